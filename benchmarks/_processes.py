"""Measurements in processes of their own: a script that is run once more, and prints JSON in its last line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

__all__ = ["in_process"]

_LONGEST_S = 900


def in_process(script: str, what: str, **environment: str) -> dict[str, Any]:
    """Measure in a fresh process; how it ended, if without figures.

    Args:
        script: Its file, which takes ``--measure``.
        what: What to measure.
        **environment: Variables to set for it.
    """
    command = [sys.executable, script, "--measure", what]
    environ = {**os.environ, **environment}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False, env=environ)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {_LONGEST_S} s"}
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return {"error": f"exit code {done.returncode}: {said[-1] if said else 'said nothing'}", "said": said[-60:]}
