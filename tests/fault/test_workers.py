"""Several workers on one machine, each a process: their runs under one log dir are one recording."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import Forked

from kerasmemwatch.cli import main
from kerasmemwatch.recording import load, runs

TIMEOUT_S = 240
Start = Callable[..., Forked]


def configurations(count: int = 2) -> list[dict[str, str]]:
    """The environment of each worker of a cluster on the loopback address, whose allocator counts every byte."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return [
        {
            "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}),
            "TF_CPU_ALLOCATOR_USE_BFC": "1",
        }
        for index in range(count)
    ]


def begin_at_once(start_fit: Start, log_dir: Path, run_name: str, *each: tuple[int, int]) -> list[Forked]:
    """Workers that train by themselves; of each, how many batches, and every which of them is sampled."""
    workers = [
        start_fit("worker_fit.py", log_dir, batches, run_name, sample_every, **environment)
        for (batches, sample_every), environment in zip(each, configurations(len(each)), strict=True)
    ]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("begin\n")
        worker.stdin.flush()
    return workers


def kill_after(worker: Forked, step: int) -> int:
    """``kill -9`` once it has told a step; the last step that it told."""
    told = 0
    assert worker.stdout is not None
    for line in worker.stdout:
        told = int(line)
        if told == step:
            worker.kill()
    assert worker.wait(timeout=TIMEOUT_S) == -9
    return told


def finish(*workers: Forked) -> None:
    for worker in workers:
        worker.communicate(timeout=TIMEOUT_S)
        assert worker.returncode == 0


@pytest.mark.long
def test_a_killed_worker_loses_no_row_and_costs_the_other_none(
    start_fit: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stays, dies = begin_at_once(start_fit, tmp_path, "", (4000, 1), (100_000, 1))
    assert stays.stdout is not None and stays.stdout.readline() == "1\n"  # it may begin late; both train by now
    told = kill_after(dies, 57)
    finish(stays)
    names = runs(tmp_path)
    assert len(names) == 2 and {name[-9:] for name in names} == {"-worker-0", "-worker-1"}

    recording = load(tmp_path)
    zero, one = recording.workers
    assert zero.samples["step"].tolist() == recording.samples["step"].tolist() == list(range(1, 4001))
    last = one.samples.num_samples
    assert one.samples["step"].tolist() == list(range(1, last + 1)) and last >= told
    for index, worker in enumerate((zero, one)):
        assert worker.run.worker is not None and worker.run.worker.name == f"worker:{index}"
        for name in ("device_in_use_bytes", "device_peak_bytes"):
            assert (worker.samples[name] > 0).all()
            rows = worker.samples.num_samples
            np.testing.assert_array_equal(recording.samples[name][:rows, index], worker.samples[name][:, 0])
            assert np.isnan(recording.samples[name][rows:, index].astype(float)).all()
    rss = [worker.samples["host_rss_bytes"][:last] for worker in (zero, one)]
    np.testing.assert_array_equal(recording.samples["host_rss_bytes"][:last], np.maximum(*rss))
    assert not [note for note in recording.run.notes if "cannot be read" in note or "no recording" in note]

    alone = load(tmp_path, one.run.name)
    assert alone.workers == () and alone.samples["step"].tolist() == one.samples["step"].tolist()
    assert main(["show", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "on 2 workers" in shown and f"worker 1's recording ends at step {last} of 4000" in shown


@pytest.mark.long
def test_workers_may_sample_differently(start_fit: Start, tmp_path: Path) -> None:
    finish(*begin_at_once(start_fit, tmp_path, "mine", (2000, 1), (2000, 7)))
    assert sorted(runs(tmp_path)) == ["mine-worker-0", "mine-worker-1"]
    recording = load(tmp_path)
    zero, one = recording.workers
    sampled = one.samples["step"]
    assert 0 < len(sampled) < 2000 == zero.samples.num_samples == recording.samples.num_samples
    np.testing.assert_array_equal(np.isfinite(recording.samples["device_peak_bytes"][:, 1]).nonzero()[0] + 1, sampled)
    assert not any(worker.ends_early for worker in recording.report.workers)
    # Each traced steps of its own.
    assert {step.timeline.device for step in recording.steps} == {"worker:0/CPU:0", "worker:1/CPU:0"}
    traced = recording.report.traced
    assert traced is not None and traced.device.startswith("worker:")


def test_workers_of_one_strategy_are_one_recording(start_fit: Start, tmp_path: Path) -> None:
    finish(*(start_fit("mirrored_worker.py", tmp_path, 40, "mine", **environment) for environment in configurations()))
    assert sorted(runs(tmp_path)) == ["mine-worker-0", "mine-worker-1"]
    recording = load(tmp_path)
    assert recording.run.name == "mine" and len(recording.workers) == 2
    assert [device.name for device in recording.run.devices] == ["worker:0/CPU:0", "worker:1/CPU:0"]
    samples = recording.samples
    assert samples["step"].tolist() == list(range(1, 41))
    for name in ("device_in_use_bytes", "device_peak_bytes"):
        assert samples[name].shape == (40, 2) and samples[name].dtype == np.int64 and (samples[name] > 0).all()
    # Each worker's process has the other's devices in its list, and they share no allocator.
    assert not [note for note in recording.run.notes if "share one allocator" in note]
    # TensorFlow's own profiler may crash a process whose operations talk to another.
    assert recording.steps == ()
    assert any("No step is traced" in note for note in recording.run.notes)
    weights = (8 * 64 + 64 + 64 * 4 + 4) * 4
    assert sum(layer.weights_bytes or 0 for layer in recording.layers) == weights
    report = recording.report
    assert [worker.last_step for worker in report.workers] == [40, 40]
    assert report.peak.device in ("worker:0/CPU:0", "worker:1/CPU:0")
    assert report.peak.bytes == max(worker.peak_bytes or 0 for worker in report.workers)


def test_workers_of_one_strategy_that_are_killed_keep_their_rows(start_fit: Start, tmp_path: Path) -> None:
    workers = [
        start_fit("mirrored_worker.py", tmp_path, 100_000, "", **environment) for environment in configurations()
    ]
    told: list[int] = [kill_after(workers[1], 30)]
    workers[0].kill()  # it waits for the other
    rest: Any = workers[0].stdout
    told.insert(0, int(rest.read().splitlines()[-1]))
    recording = load(tmp_path)
    for worker, last in zip(recording.workers, told, strict=True):
        assert worker.samples["step"].tolist() == list(range(1, worker.samples.num_samples + 1))
        assert last <= worker.samples.num_samples <= last + 1
    assert recording.samples.num_samples == max(worker.samples.num_samples for worker in recording.workers)
