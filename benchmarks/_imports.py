"""What ``import kerasmemwatch`` costs, each time in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from _stats import Estimate, median

__all__ = ["ImportCosts", "measure_import"]

_HEAVY = ("numpy", "tensorflow", "keras", "psutil", "plotly")
_SCRIPT = f"""
import json, sys, time
begun = time.perf_counter()
import kerasmemwatch
seconds = time.perf_counter() - begun
print(json.dumps([seconds, [name for name in {_HEAVY!r} if name in sys.modules]]))
"""


@dataclass(frozen=True)
class ImportCosts:
    """Milliseconds, and which heavy packages got loaded."""

    milliseconds: Estimate
    loaded: tuple[str, ...]


def measure_import(times: int) -> ImportCosts:
    """Import the package in so many fresh interpreters; the first, which may compile it, is left out."""
    results = [json.loads(subprocess.check_output([sys.executable, "-c", _SCRIPT])) for _ in range(times + 1)][1:]
    loaded = {name for _, names in results for name in names}
    return ImportCosts(median([1e3 * seconds for seconds, _ in results]), tuple(sorted(loaded)))
