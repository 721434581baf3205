"""Real out-of-memory errors, of a CPU whose memory TensorFlow limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kerasmemwatch.analysis.death_words import MAX_LINES
from kerasmemwatch.recording import load
from kerasmemwatch.units import MIB

# The inputs of the failing batch, and the output of its first layer, which does not fit beside them.
INPUT_BYTES, OUTPUT_BYTES, LIMIT_MIB = 8192 * 512 * 4, 8192 * 2048 * 4, 60


@pytest.fixture(scope="module")
def die(execute_forked: Any) -> Any:
    def run(folder: Path, where: str, mode: str, fails_at: int) -> dict[str, Any]:
        limits = {"TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(LIMIT_MIB)}
        done = execute_forked("out_of_memory.py", folder, where, mode, fails_at, **limits, TF_ENABLE_ONEDNN_OPTS="0")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


@pytest.mark.parametrize(
    ("where", "mode", "fails_at"),
    [("fit", "graph", 1), ("fit", "graph", 4), ("fit", "eager", 4), ("steps", "graph", 4)],
)
def test_the_exception_has_a_note_and_the_step_a_record(
    die: Any, tmp_path: Path, where: str, mode: str, fails_at: int
) -> None:
    found = die(tmp_path, where, mode, fails_at)
    assert found["raised"] == "ResourceExhaustedError" and found["plain"] == [True, False, False]
    assert found["ended"] == [True] * (fails_at - 1) + [False]
    assert found["limit"] == LIMIT_MIB * MIB and found["faults"] == []
    assert INPUT_BYTES < found["peaks"][-1] <= found["limit"]
    # On disk before the exception left.
    assert found["stored"] == found["page"] == 1
    assert load(tmp_path).samples["ended"].tolist() == found["ended"]
    first, asked, *_ = note = found["note"]
    assert first.startswith(f"kerasmemwatch: training step {fails_at}") and "a batch of 8,192" in first
    assert asked.startswith(f"  Asked for: 64.0 MiB ({OUTPUT_BYTES:,} bytes) by layer wide in its forward pass")
    alive = next(line for line in note if "Alive then" in line)
    assert ("no step was traced yet" if fails_at == 1 else "traced step 2, scaled from batch 8 to 8,192") in alive
    assert len(note) <= MAX_LINES and note[-1].endswith("run/out-of-memory.html")
    headline = f"Step {fails_at} ran out of memory: layer wide asked for 64.0 MiB for a batch of 8,192"
    assert found["text"].startswith(headline)
    assert "an exception left it" not in found["text"]  # it is told of already
