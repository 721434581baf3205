"""The runs of several workers under one log dir: loading and showing them, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock, FakeProbe, append_payload, device_probe, newer, train

from kerasmemwatch.cli import main
from kerasmemwatch.errors import RecordingNotFoundError, RecordingVersionError
from kerasmemwatch.recording import Recording, load, runs
from kerasmemwatch.records.run import WorkerInfo
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.storage.codecs.row_codec import VERSION
from kerasmemwatch.storage.run_store import open_store
from kerasmemwatch.storage.sinks.tensorboard import RUN_TAG

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(index, batches, name="mine", created=1000.0)``: one worker's run, of a row a second."""

    def write(
        index: int,
        batches: int,
        name: str | None = "mine",
        *,
        created: float = 1000.0,
        cluster: str = "c",
        count: int = 2,
    ) -> None:
        worker = WorkerInfo(cluster, "worker", index, count)
        clock = FakeClock(created)

        def read(reading: int) -> list[float]:
            clock.now = created + reading - 1
            return [100.0 * reading + index] * 3

        recorder = Recorder(
            (device_probe(read), FakeProbe()),
            lambda created, resume: open_store(
                str(tmp_path / "logs"), name, created=created, resume=resume, worker=worker
            ),
            clock=clock,
            about={"worker": worker},
        )
        train(recorder, batches)
        recorder.close()

    return write


def names(recording: Recording) -> list[str]:
    return [worker.run.name for worker in recording.workers]


def test_the_newest_training_is_loaded_as_one(write: Write, tmp_path: Path) -> None:
    write(0, 5)
    write(1, 3)
    assert runs(tmp_path / "logs") == ["mine-worker-0", "mine-worker-1"]
    recording = load(tmp_path / "logs")
    assert names(recording) == ["mine-worker-0", "mine-worker-1"] and recording.run.name == "mine"
    assert [device.name for device in recording.run.devices] == ["worker:0/CPU:0", "worker:1/CPU:0"]
    assert recording.samples["step"].tolist() == [1, 2, 3, 4, 5]
    assert recording.samples["device_peak_bytes"][2].tolist() == [300, 301]
    assert recording.workers[1].samples["device_peak_bytes"].tolist() == [[101], [201], [301]]
    assert load(tmp_path / "logs", recording.run.name).samples.num_samples == 5
    # By its name, or its directory, a worker's run is read alone.
    for alone in (load(tmp_path / "logs", "mine-worker-1"), load(tmp_path / "logs" / "mine-worker-1")):
        assert alone.workers == () and alone.samples.num_samples == 3
        assert [device.name for device in alone.run.devices] == ["CPU:0"]


def test_an_earlier_training_is_loaded_by_what_its_names_share(write: Write, tmp_path: Path) -> None:
    for created, name in ((1000.0, "mine"), (2000.0, "mine"), (3000.0, "other")):
        for index in (1, 0):
            write(index, 4, name, created=created)
    assert sorted(runs(tmp_path / "logs")) == sorted(
        f"{name}-worker-{index}" for name in ("mine", "mine-2", "other") for index in (0, 1)
    )
    for name in ("mine", "mine-2", "other"):
        assert names(load(tmp_path / "logs", name)) == [f"{name}-worker-0", f"{name}-worker-1"]
    assert load(tmp_path / "logs").run.name == "other"
    above = load(tmp_path, "logs/mine-2")
    assert above.run.name == "mine-2" and len(above.workers) == 2
    for name in ("min", "mine-", "mine-worker", "../logs/mine/../../secret", "worker", ""):
        with pytest.raises(RecordingNotFoundError, match="Expected the name of a run"):
            load(tmp_path / "logs", name)


def test_unnamed_runs_of_one_training_need_not_begin_in_the_same_second(write: Write, tmp_path: Path) -> None:
    write(0, 5, None, created=1000.0)
    write(1, 5, None, created=1001.5)
    recording = load(tmp_path / "logs")
    assert recording.run.name == "memwatch-19700101T001640Z-0"
    assert names(recording) == ["memwatch-19700101T001640Z-0-worker-0", "memwatch-19700101T001641Z-0-worker-1"]
    assert names(load(tmp_path / "logs", recording.run.name)) == names(recording)


def test_a_cluster_that_was_started_again_is_another_training(write: Write, tmp_path: Path) -> None:
    write(0, 50)
    write(1, 20)
    write(0, 30, created=2000.0)
    write(1, 40, created=2000.5)
    recording = load(tmp_path / "logs")
    assert names(recording) == ["mine-2-worker-0", "mine-2-worker-1"]
    assert recording.samples.num_samples == 40 and recording.run.notes == ()
    assert load(tmp_path / "logs", "mine").samples.num_samples == 50


def test_a_worker_that_was_started_again_alone_is_told(write: Write, tmp_path: Path) -> None:
    write(0, 100)
    write(1, 57)
    write(1, 30, created=1065.0)
    recording = load(tmp_path / "logs")
    assert names(recording) == ["mine-worker-0", "mine-2-worker-1"]
    assert recording.run.notes == ("Left out: 'mine-worker-1', another run at that time; load it by its name.",)


def test_a_worker_without_the_others_is_an_ordinary_recording(write: Write, tmp_path: Path) -> None:
    write(1, 5)
    write(0, 5, "stranger", cluster="other")
    write(0, 5, "early", created=10.0)
    recording = load(tmp_path / "logs", "mine")
    assert recording.workers == () and recording.run.name == "mine-worker-1"
    assert [device.name for device in recording.run.devices] == ["CPU:0"]
    assert "1 of 2 workers left no recording of this training here" in recording.run.notes[-1]


def test_a_newer_run_that_is_no_workers_is_the_newest(write: Write, tmp_path: Path) -> None:
    from fakes import write_run

    write(0, 5)
    write(1, 5)
    write_run(tmp_path / "logs", "plain", 2, clock=FakeClock(9000.0))
    assert load(tmp_path / "logs").run.name == "plain" and load(tmp_path / "logs").workers == ()
    assert len(load(tmp_path / "logs", "mine").workers) == 2


def test_a_worker_of_a_newer_version_is_told(write: Write, tmp_path: Path) -> None:
    write(0, 5)
    write(1, 5)
    append_payload(tmp_path / "logs" / "mine-worker-1", RUN_TAG, newer(VERSION + 1, of_rows=False))
    with pytest.raises(RecordingVersionError):
        load(tmp_path / "logs")
    recording = load(tmp_path / "logs", "mine")
    assert names(recording) == [] and recording.run.name == "mine-worker-0"


def test_they_are_shown(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(0, 100)
    write(1, 57)
    assert main(["show", str(tmp_path / "logs")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "run mine on 2 workers" in shown and "worker:0" in shown
    assert "worker 1's recording ends at step 57 of 100" in shown
    assert main(["show", str(tmp_path / "logs"), "--run", "mine-worker-1"]) == 0
    assert "57 steps" in capsys.readouterr().out
    assert main(["show", str(tmp_path / "logs"), "--list"]) == 0
    assert capsys.readouterr().out.split() == ["mine-worker-0", "mine-worker-1"]


@pytest.mark.parametrize("name", ["[red]x[/]\x1b[31m", "x" * 255, "memwatch", "-worker-1"])
def test_odd_names_are_found_again(write: Write, tmp_path: Path, name: str) -> None:
    write(0, 3, name)
    write(1, 3, name)
    recording: Any = load(tmp_path / "logs")
    assert len(recording.workers) == 2 and name.startswith(recording.run.name)
    assert names(load(tmp_path / "logs", recording.run.name)) == names(recording)
    assert "\x1b" not in str(recording.report)
