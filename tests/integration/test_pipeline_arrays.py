"""What Keras' pipeline for arrays keeps, in a process of its own: what earlier tests left would be in its sums."""

from __future__ import annotations

from pathlib import Path

import pytest
from forks import run_forked


@pytest.mark.long
def test_each_case_in_a_process_without_earlier_fits(tmp_path: Path) -> None:
    cases, script = Path(__file__).with_name("alone_pipeline_arrays.py"), tmp_path / "script.py"
    script.write_text("import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))")
    arguments = ("-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(cases))
    status, output, errors = run_forked(script, *arguments, folder=Path(__file__).parents[2])
    assert status == 0, output + errors
    assert " passed" in output
