"""A ``MemorySession`` whose process forks, raises or is killed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from forks import Forked

from kerasmemwatch.recording import load, runs

TIMEOUT_S = 240


def test_a_fork_within_a_traced_step(
    execute_forked: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = execute_forked("session_loop.py", tmp_path, "fork", TF_CPU_ALLOCATOR_USE_BFC="1")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    # The child takes the hooks out of its own copy and records nothing.
    assert told["statuses"] == [7]
    assert told["samples"] == list(range(1, 11))
    assert told["steps"] == [2, 3, 4]
    assert not told["patched"]
    assert runs(tmp_path) == ["run"]
    recording = load(tmp_path)
    assert recording.samples["step"].tolist() == list(range(1, 11))
    assert [step.step for step in recording.steps] == [2, 3, 4]


def test_a_loop_that_raises_has_its_rows(
    execute_forked: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = execute_forked("session_loop.py", tmp_path, "raise", TF_CPU_ALLOCATOR_USE_BFC="1")
    assert done.returncode == 1
    assert "RuntimeError: of the loop" in done.stderr
    recording = load(tmp_path)
    assert recording.samples["step"].tolist() == list(range(1, 9))
    assert recording.samples["ended"].tolist() == [True] * 7 + [False]
    assert [step.step for step in recording.steps] == [2, 3, 4]


def test_a_killed_loop_has_its_rows(start_fit: Callable[..., Forked], tmp_path: Path) -> None:
    process = start_fit("session_loop.py", tmp_path, "run", TF_CPU_ALLOCATOR_USE_BFC="1")
    last = 0
    assert process.stdout is not None
    for line in process.stdout:
        last = int(line)
        if last == 40:
            process.kill()
    assert process.wait(timeout=TIMEOUT_S) == -9
    recording = load(tmp_path)
    count = recording.samples.num_samples
    assert recording.samples["step"].tolist() == list(range(1, count + 1))
    assert last <= count <= last + 1
