"""What Keras' pipeline for arrays keeps, in a process of its own: what earlier tests left would be in its sums."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_each_case_in_a_process_without_earlier_fits() -> None:
    cases = Path(__file__).with_name("alone_pipeline_arrays.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(cases)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
