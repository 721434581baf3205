"""Real out-of-memory errors, of a CPU whose memory TensorFlow limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kerasmemwatch.recording import load
from kerasmemwatch.units import MIB

# The inputs of the failing batch.
INPUT_BYTES = 8192 * 512 * 4


@pytest.mark.parametrize(("where", "fails_at"), [("fit", 1), ("fit", 4), ("session", 4)])
def test_the_batch_that_does_not_fit_has_a_row(execute_forked: Any, tmp_path: Any, where: str, fails_at: int) -> None:
    limits = {"TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_CPU_BFC_MEM_LIMIT_IN_MB": "96", "TF_ENABLE_ONEDNN_OPTS": "0"}
    done = execute_forked("out_of_memory.py", tmp_path, where, fails_at, **limits)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["raised"] == "ResourceExhaustedError"
    assert found["ended"] == [True] * (fails_at - 1) + [False]
    assert found["limit"] == 96 * MIB
    assert max([INPUT_BYTES, *found["peaks"][:-1]]) < found["peaks"][-1] <= 96 * MIB
    assert f"step {fails_at} (train" in found["text"] and "did not end: an exception left it" in found["text"]
    assert load(tmp_path).samples["ended"].tolist() == found["ended"]
