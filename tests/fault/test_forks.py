"""A fork in the middle of a recording: the parent's run stays whole, the child's is its own."""

from __future__ import annotations

import json

import pytest
from fault_kit import is_toy_row

from kerasmemwatch.recording import load, runs
from kerasmemwatch.storage.files.event_file import read_records


def assert_whole(log_dir, run: str, rows: int) -> None:
    """A run has one event file that ends with a whole record, no journal, and each row once."""
    [path] = (log_dir / run).iterdir()
    data = path.read_bytes()
    assert sum(len(record) + 16 for record in read_records(data)) == len(data)
    samples = load(log_dir, run).samples
    assert samples["step"].tolist() == list(range(1, rows + 1))
    assert all(is_toy_row(samples, row) for row in range(rows))
    assert load(log_dir, run).run.notes == ()


@pytest.mark.parametrize("how", ["_exit", "exit", "raise", "pool", "late"])
def test_a_fork_leaves_the_parents_run_whole(execute, tmp_path, how):
    done = execute("fork_rows.py", tmp_path, how)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()  # the child prints none
    told = json.loads(line)
    assert told["child"] == {"seen": 50, "seen after": 50, "own": "run-2"}
    assert told["status"] == {"raise": 1}.get(how, 0)
    if how == "late":
        assert told["parent"] == 9050  # older rows are coarser
        return
    assert told["parent"] == 100
    if how == "raise":
        assert "RuntimeError: the child's own" in done.stderr
    else:
        assert done.stderr == ""
    assert_whole(tmp_path, "run", 100)
    assert runs(tmp_path) == ["run", "run-2"]
    if how in ("exit", "raise"):
        assert_whole(tmp_path, "run-2", 5)
    else:
        samples = load(tmp_path, "run-2").samples
        assert samples["step"].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("how", ["_exit", "exit", "pool"])
def test_a_fork_leaves_no_file_unclosed(execute, tmp_path, how):
    """As a watch does that a worker of a PyDataset inherits."""
    done = execute("fork_rows.py", tmp_path, how, flags=("-W", "always::ResourceWarning"))
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.long
def test_forks_in_a_real_fit(execute_forked, tmp_path):
    done = execute_forked("fork_fit.py", tmp_path)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    told = json.loads(line)
    layers = ["head", "optimizer", "metrics"]
    assert told["children"] == [[10, 10, "run-2", 3, layers], [20, 20, "run-3", 3, layers]]
    assert told["statuses"] == [0, 0]
    assert told["pool"] == [30] * 4
    assert told["parent"] == list(range(1, 41))
    assert "Traceback" not in done.stderr
    [path] = (tmp_path / "run").iterdir()
    data = path.read_bytes()
    assert sum(len(record) + 16 for record in read_records(data)) == len(data)
    samples = load(tmp_path, "run").samples
    assert samples["step"].tolist() == list(range(1, 41))
    assert (samples["host_rss_bytes"] > 0).all()
    assert runs(tmp_path) == ["run", "run-2", "run-3"]
    for run in ("run-2", "run-3"):
        assert load(tmp_path, run).samples["step"].tolist() == [1, 2, 3]
