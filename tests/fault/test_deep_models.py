"""Hooks make calls deeper, and Python limits how deep calls go."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

_Execute = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.long
def test_the_deepest_model_that_runs_without_a_watch_runs_and_is_traced_with_one(execute_forked: _Execute) -> None:
    done = execute_forked("deep_models.py", TF_CPU_ALLOCATOR_USE_BFC="1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for mode in ("graph", "eager"):
        assert 80 < found[mode]["depth"] < 110, "the script's range does not hold Keras' own limit"
        assert found[mode]["fits"] and found[mode]["traced"] == 3
        assert found[mode]["limit"] == found["limit"]
    assert not found["endless"]["fits"]
    assert found["endless"]["limit"] == found["limit"]
