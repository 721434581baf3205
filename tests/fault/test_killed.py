"""``kill -9`` and reading while another process writes."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from fault_kit import PEAK_AT, is_toy_row
from forks import Forked

from kerasmemwatch.analysis.decimation import DENSE_ROWS
from kerasmemwatch.recording import load
from kerasmemwatch.storage.files.journal import JOURNAL_NAME, read_journal

TIMEOUT_S = 120


def kill_after(process: subprocess.Popen[str] | Forked, step: int) -> int:
    """Kill a script that tells its steps once it has told ``step``; the last step that it told."""
    told = 0
    for line in process.stdout:
        told = int(line)
        if told == step:
            process.kill()
    assert process.wait(timeout=TIMEOUT_S) == -9
    return told


@pytest.mark.long
def test_a_killed_fit_loses_no_row(start_fit, tmp_path):
    told = kill_after(start_fit("killed_fit.py", tmp_path), 150)
    recording = load(tmp_path)
    steps = recording.samples["step"]
    assert steps.tolist() == list(range(1, len(steps) + 1))
    assert len(steps) in (told, told + 1)  # a row may be written and not told
    assert (recording.samples["host_rss_bytes"] > 0).all()
    assert recording.run.name == "run"
    assert recording.run.tags == ("killed", "<b>")
    assert recording.run.created > 0 and recording.run.versions["keras"]
    assert {layer.path: layer.weights_bytes for layer in recording.layers}["head"] == (8 * 4 + 4) * 4
    assert not [note for note in recording.run.notes if "cannot be read" in note]
    assert "Step 150" in str(recording.report) or str(len(steps)) in str(recording.report)


@pytest.mark.parametrize("killed_at", [1, 2, 49, 50, 51, 3000])
def test_rows_in_chunks_and_journal_are_all_rows(start, tmp_path, killed_at):
    told = kill_after(start("killed_rows.py", tmp_path, 50 if killed_at < 100 else 700), killed_at)
    samples = load(tmp_path).samples
    assert samples["step"].tolist() == list(range(1, samples.num_samples + 1))
    assert samples.num_samples in (told, told + 1)
    assert all(is_toy_row(samples, row) for row in range(samples.num_samples))


def test_a_long_killed_run_keeps_the_newest_rows_at_full_resolution(start, tmp_path):
    killed_at = 5 * DENSE_ROWS + 77
    told = kill_after(start("killed_rows.py", tmp_path, 1000), killed_at)
    samples = load(tmp_path).samples
    steps = samples["step"]
    assert (np.diff(steps) > 0).all()
    assert steps[-1] in (told, told + 1)
    _, newest = read_journal((tmp_path / "run" / JOURNAL_NAME).read_bytes())
    assert len(newest) and newest[-1, 0] == steps[-1]
    assert steps[-len(newest) :].tolist() == list(range(int(steps[-1]) + 1 - len(newest), int(steps[-1]) + 1))
    assert steps[:DENSE_ROWS].tolist() == list(range(1, DENSE_ROWS + 1))
    assert steps.size < told  # older rows are coarser, so this run tests what it says
    assert PEAK_AT in steps
    assert all(is_toy_row(samples, row) for row in range(len(steps)))


def test_reading_while_it_is_written_never_fails(start, tmp_path):
    writer = start("many_rows.py", tmp_path)
    assert writer.stdout.readline() == "ready\n"
    newest, reads = 0, 0
    while newest < 70_000 or reads < 10:
        try:
            recording = load(tmp_path)
        except FileNotFoundError:
            assert not reads  # before the first row there is nothing
            continue
        reads += 1
        steps = recording.samples["step"]
        assert (np.diff(steps) > 0).all()
        assert not len(steps) or steps[-1] >= newest
        assert all(is_toy_row(recording.samples, row) for row in range(0, len(steps), 97))
        # It may see half of a chunk that is being written; its rows are then in the journal.
        assert [note for note in recording.run.notes if "tfevents" not in note or "cut off" not in note] == []
        newest = int(steps[-1]) if len(steps) else newest
    written, _ = writer.communicate("", timeout=TIMEOUT_S)
    assert load(tmp_path).samples["step"][-1] == int(written)


@pytest.mark.parametrize(("ending", "status"), [("killed", -9), ("raises", 1), ("interrupted", -2), ("exits", 0)])
def test_traced_steps_outlive_a_process_that_ends_within_an_epoch(execute_forked, tmp_path, ending, status):
    done = execute_forked("ended_epoch.py", tmp_path, ending, TF_CPU_ALLOCATOR_USE_BFC="1")
    assert done.returncode == status, done.stderr
    recording = load(tmp_path)
    assert [step.step for step in recording.steps] == [2, 10]
    assert all("head" in step.timeline.owners for step in recording.steps)
    assert recording.samples["step"].tolist()[:12] == list(range(1, 13))
