"""Two hundred fits, each with a watch of its own, leave nothing behind; the benchmark makes thousands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from forks import run_forked

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.mark.long
@pytest.mark.parametrize(("way", "fits"), [("all traced", 120), ("untraced", 80)])
def test_many_fits_leave_nothing_behind(way: str, fits: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOAK.parents[1]), "CUDA_VISIBLE_DEVICES": ""}
    status, output, errors = run_forked(SOAK, "--measure", way, "--fits", str(fits), environment=environment)
    assert status == 0, errors
    found = json.loads(output.splitlines()[-1])
    for name in ("descriptors", "threads", "folders", "patches"):
        first, last = found[name]
        assert last == first, name
    # Of a fit the series of calls keeps one object, up to 400 of them, and TensorFlow leaves two; a log that is being
    # stored is about 100, and a watch that stays as many for each fit.
    for name, most in (("objects of ours", 2), ("objects", 4)):
        first, last = found[name]
        assert last - first < most * (fits - fits // 5), name
    assert found["objects of ours in cycles"] == [0, 0]  # a full collection is rare where TensorFlow is loaded
    assert found["objects of ours"][0] > 0 and found["descriptors"][0] > 0  # so there is something to count
