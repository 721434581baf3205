"""Traced steps on their way from a recorder to the disk and back: none lost, none in the way."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import (
    FakeClock,
    FakeSink,
    NoFlusher,
    append_payload,
    event_file,
    newer,
    recorder,
    recorder_on_disk,
    train,
    write_run,
)
from timelines import STEP, assert_same_step, random_timeline, step, timeline

from kerasmemwatch.faults import Faults
from kerasmemwatch.recording import load
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.storage import run_writer, step_log
from kerasmemwatch.storage.codecs.row_codec import VERSION
from kerasmemwatch.storage.codecs.step_codec import decode_step, encode_step
from kerasmemwatch.storage.sinks.tensorboard import STEPS_TAG
from kerasmemwatch.storage.step_log import MAX_STEPS, StepLog
from kerasmemwatch.tracing.recent_rows import recent_peaks

ROOT = Path(__file__).parents[2]


def numbers(steps: Sequence[TracedStep]) -> list[int]:
    return [found.step for found in steps]


def of_bytes(size: int, number: int) -> TracedStep:
    """A step whose peak is so many bytes."""
    return step(timeline([(size, 0, 1, "dense", "activations", "forward", "MatMul")], 1), number)


def resumed(log_dir: Path) -> Recorder:
    """A recorder that has continued the run and recorded one more batch."""
    target = recorder_on_disk(log_dir, clock=FakeClock(1_800_000_000.0))
    target.begin_stage("train")
    target.begin_epoch(1, resumed=True)
    target.batch_end(0)
    return target


# -- the log -------------------------------------------------------------------------------------------------------


def test_steps_are_readable_before_and_after_they_are_encoded() -> None:
    log = StepLog(Faults())
    made = [step(random_timeline(np.random.default_rng(n), 9, 3, 9), n) for n in range(3)]
    for each in made[:2]:
        log.add(each)
    assert log.steps() == tuple(made[:2])
    encoded = log.encode()
    assert [number for number, _ in encoded] == [0, 1]
    log.add(made[2])
    for found, expected in zip(log.steps(), made, strict=True):
        assert_same_step(found, expected)
    assert [number for number, _ in log.encode()] == [2] and log.encode() == ()


def test_a_step_that_cannot_be_encoded_is_told_and_the_others_are_kept() -> None:
    faults = Faults()
    log = StepLog(faults)
    broken = TracedStep(2, "train", 0, 0.0, "graph", "", timeline=None)  # type: ignore[arg-type]
    for each in (step(STEP, 1), broken, step(STEP, 3)):
        log.add(each)
    assert [decode_step(payload).step for _, payload in log.encode()] == [1, 3]
    assert numbers(log.steps()) == [1, 3]
    [note] = faults.notes
    assert note.startswith("traced step") and "missing" in note


def test_so_many_steps_are_kept_and_the_highest_among_them() -> None:
    log = StepLog(Faults(), [encode_step(of_bytes(size, size)) for size in (3, 900, 5)], 3)
    for number in range(100, 100 + MAX_STEPS):
        log.add(of_bytes(10, number))
    assert len(log.encode()) == MAX_STEPS
    assert numbers(log.steps()) == [900, *range(101, 100 + MAX_STEPS)]
    log.add(of_bytes(1000, 1000))
    log.encode()
    assert numbers(log.steps()) == [900, *range(102, 100 + MAX_STEPS), 1000]


def test_taking_a_step_does_not_wait_for_one_that_is_being_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, finish = threading.Event(), threading.Event()

    def slow(each: TracedStep) -> bytes:
        begun.set()
        assert finish.wait(60)
        return encode_step(each)

    monkeypatch.setattr(step_log, "encode_step", slow)
    log = StepLog(Faults())
    log.add(step(STEP, 1))
    thread = threading.Thread(target=log.encode)
    thread.start()
    assert begun.wait(60)
    log.add(step(STEP, 2))
    assert numbers(log.steps()) == [1, 2]
    finish.set()
    thread.join()
    assert numbers(log.steps()) == [1, 2]


def test_expected_steps_come_when_they_are_collected_each_once() -> None:
    log = StepLog(Faults())
    log.expect(lambda: [step(STEP, 1), step(STEP, 2)])
    log.expect(lambda: [step(STEP, 3)])
    assert numbers(log.steps()) == []
    log.collect()
    log.collect()
    assert numbers(log.steps()) == [1, 2, 3]


def test_what_an_analysis_raises_in_a_thread_is_raised_to_who_asks_next() -> None:
    log = StepLog(Faults(strict=True))
    log.expect(lambda: [step(STEP, 1)])
    log.expect(lambda: [][0])
    log.expect(lambda: [step(STEP, 3)])
    log.collect(strict=False)
    assert numbers(log.steps()) == [1, 3]
    with pytest.raises(IndexError):
        log.collect()
    log.collect()


def test_an_analysis_that_the_user_interrupts_is_made_later() -> None:
    log, interrupts = StepLog(Faults()), [KeyboardInterrupt()]

    def analyse() -> list[TracedStep]:
        if interrupts:
            raise interrupts.pop()
        return [step(STEP, 1)]

    log.expect(analyse)
    with pytest.raises(KeyboardInterrupt):
        log.collect()
    log.collect()
    assert numbers(log.steps()) == [1]


def test_whoever_wants_the_steps_waits_for_the_thread_that_analyses_them() -> None:
    begun, finish = threading.Event(), threading.Event()

    def analyse() -> list[TracedStep]:
        begun.set()
        assert finish.wait(60)
        return [step(STEP, 1)]

    log = StepLog(Faults())
    log.expect(analyse)
    thread = threading.Thread(target=log.collect)
    thread.start()
    assert begun.wait(60)
    threading.Timer(0.01, finish.set).start()
    log.collect()
    assert numbers(log.steps()) == [1]
    thread.join()


# -- from the recorder to the sinks --------------------------------------------------------------------------------


def test_a_step_is_encoded_by_the_thread_that_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    stored = threading.Event()

    def noting(each: TracedStep) -> bytes:
        threads.append(threading.current_thread().name)
        return encode_step(each)

    class Waiting(FakeSink):
        def write(self, update: object) -> None:
            super().write(update)  # type: ignore[arg-type]
            if self.updates[-1].traced:
                stored.set()

    monkeypatch.setattr(step_log, "encode_step", noting)
    target = recorder(sinks=[Waiting()])
    target.begin_stage("train")
    target.batch_end(0)
    target.add_step(step(STEP))
    assert stored.wait(60)
    target.close()
    assert threads == ["kerasmemwatch-flush"]


def test_expected_steps_are_analysed_and_stored_by_the_thread_while_rows_can_be_read() -> None:
    threads: list[str] = []
    finish, stored = threading.Event(), threading.Event()

    class Waiting(FakeSink):
        def write(self, update: object) -> None:
            super().write(update)  # type: ignore[arg-type]
            if self.updates[-1].traced:
                stored.set()

    def analyse() -> list[TracedStep]:
        threads.append(threading.current_thread().name)
        assert finish.wait(60)
        return [step(STEP, 1)]

    sink = Waiting()
    target = recorder(sinks=[sink])
    target.begin_stage("train")
    target.batch_end(0)
    target.expect_steps(analyse)
    # What a callback does at any time does not wait for the analysis.
    target.batch_end(1)
    assert target.epoch_bytes() and recent_peaks(*target.newest()) == []
    finish.set()
    assert stored.wait(60)
    assert threads == ["kerasmemwatch-flush"]
    target.close()
    assert [number for update in sink.updates for number, _ in update.traced] == [0]


@pytest.mark.parametrize("ends", ["end_stage", "close", "snapshot"])
def test_expected_steps_are_there_at_every_end(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    monkeypatch.setattr(run_writer, "FlushThread", NoFlusher)
    target = recorder(sinks=[FakeSink()])
    target.begin_stage("train")
    target.batch_end(0)
    analysed: list[int] = []
    target.expect_steps(lambda: analysed.append(1) or [step(STEP, 1)])
    assert not analysed
    getattr(target, ends)()
    assert analysed == [1]
    assert numbers(target.snapshot().steps) == [1]
    target.close()


@pytest.fixture
def _stored_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "FlushThread", NoFlusher)


@pytest.mark.usefixtures("_stored_when_told")
def test_a_sink_gets_every_step_once_also_after_a_full_disk() -> None:
    sink = FakeSink()
    target = recorder(sinks=[sink])
    target.begin_stage("train")
    target.batch_end(0)
    target.add_step(step(STEP, 1))
    assert not any(update.traced for update in sink.updates)
    sink.full = OSError(errno.ENOSPC, "No space left")
    target.flush()
    target.add_step(step(STEP, 2))
    target.flush()
    assert numbers(target.snapshot().steps) == [1, 2]
    sink.full = None
    target.batch_end(1)
    target.flush()
    target.flush()
    found = [pair for update in sink.updates for pair in update.traced]
    assert [number for number, _ in found] == [0, 1]
    assert [decode_step(payload).step for _, payload in found] == [1, 2]
    target.close()


@pytest.mark.usefixtures("_stored_when_told")
def test_a_step_before_the_first_sample_and_one_after_the_last_are_kept() -> None:
    sink = FakeSink()
    target = recorder(sinks=[sink])
    target.add_step(step(STEP, 1))
    assert numbers(target.snapshot().steps) == [1]
    train(target, 2)
    assert numbers(target.snapshot().steps) == [1]
    target.add_step(step(STEP, 2))  # the fit is over: no thread would store it
    assert [decode_step(payload).step for update in sink.updates for _, payload in update.traced] == [1, 2]
    assert numbers(target.snapshot().steps) == [1, 2]
    target.close()


def test_after_a_fork_steps_can_be_read_and_no_more_are_taken() -> None:
    target = recorder()
    train(target, 1)
    target.add_step(step(STEP, 1))
    target.drop()
    target.add_step(step(STEP, 2))
    assert numbers(target.snapshot().steps) == [1]


@pytest.mark.usefixtures("_stored_when_told")
def test_after_a_fork_a_stage_ends_without_an_analysis() -> None:
    target = recorder()
    target.begin_stage("train")
    target.batch_end(0)
    analysed: list[int] = []
    target.expect_steps(lambda: analysed.append(1) or [step(STEP, 1)])
    target.drop()
    target.end_stage()
    assert not analysed
    assert numbers(target.snapshot().steps) == [1]  # for who asks


# -- on disk -------------------------------------------------------------------------------------------------------


def test_steps_are_loaded_as_they_were(tmp_path: Path) -> None:
    target = recorder_on_disk(tmp_path)
    made = [step(random_timeline(np.random.default_rng(n), 20, 3, 9), n, notes=("a",)) for n in (2, 3)]
    train(target, 2)
    for each in made:
        target.add_step(each)
    train(target, 2)
    target.close()
    recording = load(tmp_path)
    for found, expected in zip(recording.steps, made, strict=True):
        assert_same_step(found, expected)
    assert recording.samples["step"].tolist() == [1, 2, 3, 4]


def test_a_run_without_steps_has_none(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert load(tmp_path).steps == ()


def test_a_resumed_run_keeps_its_steps(tmp_path: Path) -> None:
    target = recorder_on_disk(tmp_path)
    train(target, 2)
    target.add_step(step(STEP, 1))
    target.close()
    second = resumed(tmp_path)
    second.add_step(step(STEP, 7))
    assert numbers(second.snapshot().steps) == [1, 7]
    second.close()
    assert numbers(load(tmp_path).steps) == [1, 7]


def test_older_steps_than_memory_holds_are_on_disk(tmp_path: Path) -> None:
    target = recorder_on_disk(tmp_path)
    train(target, 1)
    for number in range(1, MAX_STEPS + 4):
        target.add_step(step(STEP, number))
    target.close()
    assert len(target.snapshot().steps) == MAX_STEPS
    assert numbers(load(tmp_path).steps) == list(range(1, MAX_STEPS + 4))


def test_a_killed_process_leaves_the_steps_that_were_stored(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        f"sys.path[:0] = [{str(ROOT / 'tests')!r}]\n"
        "from fakes import recorder_on_disk\n"
        "from timelines import STEP, step\n"
        "target = recorder_on_disk(sys.argv[1])\n"
        "target.begin_stage('train')\n"
        "target.batch_end(0)\n"
        "target.batch_end(1)\n"
        "target.add_step(step(STEP, 2))\n"
        "target.flush()\n"
        "target.batch_end(2)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    recording = load(tmp_path)
    assert numbers(recording.steps) == [2] and recording.samples["step"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("payload", [b"", b"garbage", newer(VERSION + 1, of_rows=True)])
def test_a_step_that_cannot_be_read_is_a_note_and_the_rest_is_read(tmp_path: Path, payload: bytes) -> None:
    target = recorder_on_disk(tmp_path)
    train(target, 2)
    target.add_step(step(STEP, 2))
    target.close()
    append_payload(tmp_path / "run", f"{STEPS_TAG}000001", payload)
    recording = load(tmp_path)
    assert numbers(recording.steps) == [2] and recording.samples["step"].tolist() == [1, 2]
    assert f"{STEPS_TAG}000001 cannot be read" in recording.report.notes[-1]


def test_a_damaged_step_costs_no_other(tmp_path: Path) -> None:
    target = recorder_on_disk(tmp_path)
    train(target, 2)
    for number in (1, 2, 3):
        target.add_step(step(STEP, number))
    target.close()
    path = event_file(tmp_path / "run")
    data = bytearray(path.read_bytes())
    data[data.index(f"{STEPS_TAG}000001".encode()) + 60] ^= 1
    path.write_bytes(data)
    second = resumed(tmp_path)
    second.add_step(step(STEP, 4))
    second.close()
    recording = load(tmp_path)
    assert numbers(recording.steps) == [1, 3, 4] and recording.samples["step"].tolist() == [1, 2, 3]
