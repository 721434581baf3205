"""The recorder's counters, windows and faults, with a fake clock, fake probes and fake sinks."""

from __future__ import annotations

import gc
import logging
import math
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import (
    NAN,
    FakeClock,
    FakeProbe,
    FakeSink,
    NoFlusher,
    device_probe,
    recorder,
    recorder_on_disk,
    train,
    write_run,
)

from kerasmemwatch.errors import ProbeUnavailableError, RecordingVersionError
from kerasmemwatch.recording import load
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.sampling import process_exit
from kerasmemwatch.sampling.cost_share import CostShare
from kerasmemwatch.sampling.process_exit import release
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.storage import run_writer
from kerasmemwatch.storage.run_store import RunStore, open_store
from kerasmemwatch.tracing.recent_rows import recent_peaks

TRAIN, TEST, PREDICT = 0, 1, 2


@pytest.fixture(autouse=True)
def _rows_are_stored_when_the_test_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "FlushThread", NoFlusher)


def samples(target: Recorder) -> Samples:
    return target.snapshot().samples


def column(target: Recorder, name: str) -> list[Any]:
    return samples(target)[name].tolist()


# -- steps -----------------------------------------------------------------------------------------------------


def test_steps_go_on_over_stages_and_fits() -> None:
    target = recorder()
    train(target, 2)
    train(target, 1, stage="test")
    train(target, 2, stage="predict")
    train(target, 1)
    assert column(target, "step") == [1, 2, 3, 4, 5, 6]
    assert column(target, "train_step") == [1, 2, 2, 2, 2, 3]
    assert column(target, "stage") == ["train", "train", "test", "predict", "predict", "train"]


def test_an_execution_of_several_batches_counts_them_all() -> None:
    target = recorder()
    target.begin_stage("train")
    for epoch in range(2):
        target.begin_epoch(epoch)
        for last_batch in (3, 7, 9):  # steps_per_execution=4 on 10 batches
            target.batch_begin()
            target.batch_end(last_batch, TRAIN)
        target.end_epoch()
    target.end_stage()
    assert column(target, "step") == [4, 8, 10, 14, 18, 20]
    assert column(target, "train_step") == [4, 8, 10, 14, 18, 20]


def test_a_batch_number_that_does_not_rise_still_counts_one() -> None:
    target = recorder()
    target.begin_stage("train")
    for _ in range(3):
        target.batch_end(0, TRAIN)
    assert column(target, "step") == [1, 2, 3]


def test_validation_lies_within_its_epoch_and_training_goes_on_after_it() -> None:
    target = recorder()
    target.begin_stage("train")
    for epoch in range(2):
        target.begin_epoch(epoch)
        target.batch_end(0, TRAIN)
        target.batch_end(1, TRAIN)
        target.begin_stage("test")
        target.batch_end(0, TEST)
        target.end_stage()
        target.end_epoch()
    target.end_stage()
    assert column(target, "stage") == ["train", "train", "test"] * 2
    assert column(target, "epoch") == [0, 0, 0, 1, 1, 1]
    assert column(target, "train_step") == [1, 2, 2, 3, 4, 4]
    assert column(target, "step") == [1, 2, 3, 4, 5, 6]


def test_validation_in_the_middle_of_an_epoch_does_not_disturb_the_count() -> None:
    target = recorder()
    target.begin_stage("train")
    target.begin_epoch(0)
    target.batch_end(0, TRAIN)
    target.begin_stage("test")
    for batch in range(5):
        target.batch_end(batch, TEST)
    target.end_stage()
    target.batch_end(1, TRAIN)
    target.end_stage()
    assert column(target, "train_step") == [1, 1, 1, 1, 1, 1, 2]
    assert column(target, "step") == [1, 2, 3, 4, 5, 6, 7]


def test_calls_are_counted_and_what_is_within_them_is_not() -> None:
    target = recorder()
    for model in (1, 2):
        target.begin_stage("train", model=model)
        target.batch_end(0, TRAIN)
        target.begin_stage("test", model=model)
        target.batch_end(0, TEST)
        target.end_stage()
        target.end_stage()
    target.begin_stage("train", single=True)
    target.batch_end(0, TRAIN)
    target.end_stage()
    assert column(target, "call") == [1, 1, 2, 2, 0]
    assert column(target, "model") == [1, 1, 2, 2, 0]


def test_outside_of_training_there_is_no_epoch() -> None:
    target = recorder()
    train(target, 1, epoch=3)
    train(target, 1, stage="test")
    assert np.array_equal(samples(target)["epoch"], [3, NAN], equal_nan=True)


def test_rows_carry_the_time_of_their_end() -> None:
    clock = FakeClock(100.0)
    target = recorder(clock=clock)
    target.begin_stage("train")
    for now in (101.5, 103.25):
        target.batch_begin()
        clock.now = now
        target.batch_end(0, TRAIN)
    assert column(target, "time_s") == [101.5, 103.25]


def test_stages_that_died_are_forgotten() -> None:
    target = recorder()
    target.begin_stage("train")
    target.begin_epoch(5)
    target.batch_end(7, TRAIN)
    target.abandon_stages()
    assert not target.active
    train(target, 2)
    assert column(target, "step") == [8, 9, 10]
    assert column(target, "epoch") == [5, 0, 0]


def test_an_abandoned_stage_that_goes_on_is_recorded_without_a_jump() -> None:
    # A callback that runs a fit of its own with the same watch, in the middle of an epoch.
    target = recorder()
    target.begin_stage("train")
    target.begin_epoch(0)
    for batch in range(500):
        target.batch_end(batch, TRAIN)
    target.abandon_stages()
    train(target, 1)
    target.batch_end(500, TRAIN)
    target.batch_end(501, TRAIN)
    assert column(target, "step")[-3:] == [501, 502, 503]


def test_a_batch_that_an_exception_leaves_has_a_row_with_its_peak() -> None:
    target = recorder([device_probe(lambda reading: [10.0 * reading, 100.0 * reading, 1.0])])
    train(target, 2)
    target.begin_stage("train")
    target.begin_epoch(3)
    target.batch_begin()
    assert target.batch_left()
    assert not target.batch_left()  # once
    target.abandon_stages()
    train(target, 1)
    assert column(target, "step") == column(target, "train_step") == [1, 2, 3, 4]
    assert column(target, "ended") == [True, True, False, True]
    assert column(target, "epoch") == [0, 0, 3, 0]
    assert samples(target)["device_peak_bytes"][:, 0].tolist() == [100, 200, 300, 400]


def test_the_first_batch_of_all_may_be_left() -> None:
    sink = FakeSink()
    target = recorder(sinks=[sink])
    target.begin_stage("predict")
    target.batch_begin()
    assert target.batch_left()
    target.close()
    assert (column(target, "stage"), column(target, "train_step")) == (["predict"], [0])
    assert column(target, "ended") == [False]
    assert sink.samples["ended"].tolist() == [False]


@pytest.mark.parametrize("how", ["between batches", "the data ended", "another watch continues the run"])
def test_no_row_of_what_is_no_batch(how: str) -> None:
    target = recorder()
    train(target, 1)
    target.begin_stage("train")
    if how != "between batches":
        target.batch_begin()
    if how == "another watch continues the run":
        target.release()
    assert not target.batch_left(raised=how != "the data ended")
    assert not target.batch_left()
    assert column(target, "step") == [1]


def test_an_execution_of_several_batches_that_is_left_counts_as_a_whole() -> None:
    target = recorder()
    target.begin_stage("train", 4)
    target.begin_epoch(0)
    for last in (3, None, 11):
        target.batch_begin()
        if last is None:
            target.batch_left()
        else:
            target.batch_end(last, TRAIN)
    assert column(target, "step") == column(target, "train_step") == [4, 8, 12]


def test_a_batch_that_is_left_has_a_row_though_not_every_batch_is_sampled() -> None:
    target = recorder(sample_every=3)
    target.begin_stage("train")
    for batch in range(4):
        target.batch_begin()
        target.batch_end(batch, TRAIN)
    target.batch_begin()
    target.batch_left()
    assert (column(target, "step"), column(target, "ended")) == ([1, 4, 5], [True, True, False])


def test_a_fault_of_a_probe_where_a_batch_is_left_is_ours(caplog: pytest.LogCaptureFixture) -> None:
    probe = FakeProbe()
    target = recorder([probe])
    train(target, 1)
    target.begin_stage("train")
    target.batch_begin()
    probe.raises["batch_end"] = OSError("gone")
    assert target.batch_left()
    assert column(target, "ended") == [True, False]
    assert np.isnan(column(target, "host_rss_bytes")[1])
    assert len(caplog.records) == 1


def test_a_batch_without_a_stage_is_recorded() -> None:
    target = recorder((FakeProbe(),))
    target.begin_stage("train")
    target.abandon_stages()
    target.batch_begin()
    target.batch_end(0, PREDICT)
    assert column(target, "stage") == ["predict"]
    target.end_stage()
    assert not target.active


def test_batches_that_end_in_other_threads_count_for_their_stage() -> None:
    # Keras on JAX ends batches in a pool of threads: out of order, and when the next stage may have begun.
    target = recorder()
    target.begin_stage("train", 4)
    target.begin_epoch(2)
    with ThreadPoolExecutor(1) as pool:
        for batch in (7, 3):
            pool.submit(target.batch_end, batch, TRAIN).result()
        target.begin_stage("test", 1)
        pool.submit(target.batch_end, 11, TRAIN).result()
        pool.submit(target.batch_end, 0, TEST).result()
    assert column(target, "step") == [4, 8, 12, 13]
    assert column(target, "train_step") == [4, 8, 12, 12]
    assert column(target, "stage") == ["train", "train", "train", "test"]
    assert column(target, "epoch") == [2, 2, 2, 2]


def test_batches_that_end_at_once_are_all_recorded() -> None:
    target = recorder()
    target.begin_stage("train")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda batch: target.batch_end(batch, TRAIN), range(2000)))
    assert column(target, "step") == list(range(1, 2001))
    assert target.run.notes == ()


# -- sample_every ----------------------------------------------------------------------------------------------


def test_every_nth_execution_is_sampled_and_the_last_of_a_stage() -> None:
    probe = FakeProbe()
    target = recorder((probe,), sample_every=4)
    train(target, 10)
    assert column(target, "step") == [1, 5, 9, 10]
    assert probe.calls.count("batch_end") == 4
    train(target, 3)
    # The rhythm goes on where it was: 13 is due as well as last.
    assert column(target, "step") == [1, 5, 9, 10, 13]


def test_a_sampled_batch_begins_a_window_and_others_do_not() -> None:
    probe = FakeProbe()
    target = recorder((probe,), sample_every=3)
    train(target, 7)
    assert [call for call in probe.calls if call.startswith("batch")] == ["batch_begin", "batch_end"] * 3


def test_a_nested_stage_forces_no_row_of_its_own() -> None:
    target = recorder(sample_every=100)
    target.begin_stage("train")
    target.begin_epoch(0)
    target.batch_end(0, TRAIN)
    target.batch_end(1, TRAIN)
    target.begin_stage("test")
    target.batch_end(0, TEST)
    target.end_stage()
    assert column(target, "step") == [1]
    target.batch_end(2, TRAIN)
    target.end_stage()
    assert column(target, "step") == [1, 4]


def test_a_stage_without_batches_leaves_no_row() -> None:
    target = recorder(sample_every=2)
    train(target, 0)
    assert not target.started and samples(target).num_samples == 0
    train(target, 1)
    train(target, 0)
    assert column(target, "step") == [1]


# -- what is slow ----------------------------------------------------------------------------------------------


def slow_probe(clock: FakeClock, cost_s: float) -> FakeProbe:
    def read(_: int) -> list[float]:
        clock.now += cost_s
        return [clock.now]

    return FakeProbe("host", ["host_rss_bytes"], ["host_uss_bytes"], slow=read)


def test_slow_values_are_in_the_newest_row_of_an_epoch() -> None:
    clock = FakeClock(1000.0)
    probe = FakeProbe("host", ["host_rss_bytes"], ["host_uss_bytes"], slow=lambda n: [float(n)])
    target = recorder((probe,), clock=clock)
    target.begin_stage("train")
    for epoch in range(2):
        target.begin_epoch(epoch)
        target.batch_end(0, TRAIN)
        target.batch_end(1, TRAIN)
        clock.now += 60
        target.end_epoch()
    assert np.array_equal(samples(target)["host_uss_bytes"], [NAN, 1, NAN, 2], equal_nan=True)


def test_slow_reading_takes_half_a_percent_of_the_time_at_most() -> None:
    clock = FakeClock(1000.0)
    probe = slow_probe(clock, cost_s=1.0)
    target = recorder((probe,), clock=clock)
    target.begin_stage("train")
    for epoch in range(1000):
        target.begin_epoch(epoch)
        target.batch_end(0, TRAIN)
        clock.now += 1.0
        target.end_epoch()
    spent = probe.calls.count("epoch_end") * 1.0
    assert spent >= 3 and spent <= 0.005 * (clock.now - 1000.0) + 1.0


def test_many_short_fits_share_what_slow_reading_may_take() -> None:
    clock = FakeClock(1000.0)
    probe, share = slow_probe(clock, cost_s=0.05), CostShare(0.005, clock)
    for _ in range(1000):  # each with a watch of its own
        target = recorder((probe,), clock=clock, slow_reads=share)
        train(target, 1)
        clock.now += 0.2
    spent = probe.calls.count("epoch_end") * 0.05
    assert 0.5 <= spent <= 0.005 * (clock.now - 1000.0) + 0.05


def test_a_clock_that_is_set_back_does_not_stop_what_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    unix, elapsed = FakeClock(), FakeClock(0.0)
    monkeypatch.setattr(time, "time", unix)
    monkeypatch.setattr(time, "monotonic", elapsed)

    def read(_: int) -> list[float]:
        unix.now, elapsed.now = unix.now + 0.1, elapsed.now + 0.1
        return [elapsed.now]

    probe = FakeProbe("host", ["host_rss_bytes"], ["host_uss_bytes"], slow=read)
    target = Recorder((probe,), lambda created, resume: RunStore("run"))
    target.begin_stage("train")
    for epoch in range(4):
        target.begin_epoch(epoch)
        target.batch_end(0, TRAIN)
        unix.now += -86_400 if epoch == 1 else 60
        elapsed.now += 60
        target.end_epoch()
    assert not np.isnan(samples(target)["host_uss_bytes"]).any()


def test_a_slow_probe_that_raises_costs_its_columns_only() -> None:
    probe = FakeProbe("host", ["host_rss_bytes"], ["host_uss_bytes"])
    probe.raises["epoch_end"] = OSError("gone")
    target = recorder((probe,))
    train(target, 3)
    assert column(target, "host_rss_bytes") == [1, 2, 3]
    assert np.isnan(samples(target)["host_uss_bytes"]).all()
    assert len(target.run.notes) == 1


# -- the run ---------------------------------------------------------------------------------------------------


def test_the_store_is_opened_at_the_first_sample() -> None:
    opened: list[tuple[float, bool]] = []

    def open_store(created: float, resume: bool) -> RunStore:
        opened.append((created, resume))
        return RunStore("name")

    target = Recorder((FakeProbe(),), open_store, clock=FakeClock(5.0))
    target.begin_stage("train")
    target.begin_epoch(0)
    target.batch_begin()
    assert opened == [] and not target.started
    target.batch_end(0, TRAIN)
    target.batch_end(1, TRAIN)
    assert opened == [(5.0, False)] and target.started
    assert (target.run.name, target.run.created) == ("name", 5.0)


@pytest.mark.parametrize("epochs", [[(0, True)], [(0, False), (1, True)]])
def test_a_resumed_fit_asks_to_continue(epochs: list[tuple[int, bool]]) -> None:
    resumes: list[bool] = []
    target = Recorder(
        (FakeProbe(),), lambda created, resume: resumes.append(resume) or RunStore("x"), clock=FakeClock()
    )
    target.begin_stage("train")
    for epoch, resumed in epochs:
        target.begin_epoch(epoch, resumed=resumed)
    target.batch_end(0, TRAIN)
    assert resumes == [True]


def test_the_run_tells_what_the_probes_told() -> None:
    missing = FakeProbe("nvml")
    missing.raises["open"] = ProbeUnavailableError("No driver.", "Install it.")
    probes = (device_probe(names=("GPU:0", "CPU:0")), FakeProbe(facts={"limit_bytes": 7}), missing)
    target = recorder(probes, about={"tags": ("t",), "versions": {"python": "3"}})
    train(target, 1)
    run = target.run
    assert [device.name for device in run.devices] == ["GPU:0", "CPU:0"]
    assert run.host == {"limit_bytes": 7} and run.tags == ("t",) and run.versions == {"python": "3"}
    assert run.notes == ("Not measured (nvml): No driver. Install it.",)


def test_layers_and_what_else_is_known_later_reach_the_sinks() -> None:
    sink = FakeSink()
    target = recorder(sinks=[sink])
    target.begin_stage("train")
    target.batch_end(0, TRAIN)
    layers = (LayerMemory("dense", "Dense", weights_bytes=4),)
    target.describe(layers, tags=("late",))
    assert target.snapshot().layers == layers
    target.end_stage()
    described = [update for update in sink.updates if update.run is not None]
    assert described[-1].layers == layers and described[-1].run.tags == ("late",)


def test_a_store_that_cannot_be_opened_leaves_the_run_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    def open_store(created: float, resume: bool) -> RunStore:
        raise PermissionError("read-only")

    target = Recorder((FakeProbe(),), open_store, clock=FakeClock())
    train(target, 3)
    train(target, 2)
    assert column(target, "step") == [1, 2, 3, 4, 5]
    assert len(caplog.records) == 1 and "read-only" in caplog.text
    assert "kept in memory only" in target.run.notes[0]


def test_an_older_run_that_cannot_be_continued_leaves_the_run_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    def open_store(created: float, resume: bool) -> RunStore:
        raise RecordingVersionError("from the future")

    target = Recorder((FakeProbe(),), open_store, clock=FakeClock())
    train(target, 3)
    assert column(target, "step") == [1, 2, 3]
    assert len(caplog.records) == 1


# -- faults ----------------------------------------------------------------------------------------------------


def test_a_probe_that_raises_never_reaches_the_training(caplog: pytest.LogCaptureFixture) -> None:
    probe, other = FakeProbe("bad", ["x"]), FakeProbe()
    target = recorder((probe, other))
    train(target, 1)
    probe.raises["batch_end"] = RuntimeError("broken")
    train(target, 2)
    assert np.array_equal(samples(target)["x"], [1, NAN, NAN], equal_nan=True)
    assert column(target, "host_rss_bytes") == [1, 2, 3]
    [record] = caplog.records
    assert record.levelno == logging.WARNING and "Training goes on" in record.getMessage()
    assert any("probe bad: broken" in note for note in target.run.notes)
    del probe.raises["batch_end"]
    train(target, 1)
    assert not math.isnan(column(target, "x")[-1])


@pytest.mark.parametrize("wrong", [["text"], [None], [], [1.0, 2.0], None])
def test_a_probe_that_gives_nonsense_costs_its_columns_only(wrong: Any) -> None:
    bad, good = FakeProbe("bad", ["x"], fast=lambda _: wrong), FakeProbe()
    target = recorder((bad, good))
    train(target, 3)
    assert column(target, "step") == [1, 2, 3]
    assert column(target, "host_rss_bytes") == [1, 2, 3]
    assert np.isnan(samples(target)["x"]).all()
    assert len(target.run.notes) == 1


@pytest.mark.parametrize("hook", ["open", "batch_begin", "batch_end", "epoch_end"])
def test_strict_raises_what_would_be_swallowed(hook: str) -> None:
    probe = FakeProbe("bad", ["x"], ["y"])
    target = recorder((probe,), strict=True)
    train(target, 1)
    probe.raises[hook] = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        train(target, 1)
    probe.raises.clear()
    target.close()


def test_strict_raises_what_a_sink_raises() -> None:
    sink = FakeSink()
    sink.full = OSError("full")
    target = recorder(sinks=[sink], strict=True)
    with pytest.raises(OSError, match="full"):
        train(target, 1)
    sink.full = None
    target.close()


def test_a_failing_sink_gets_everything_once_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    sink = FakeSink()
    target = recorder(sinks=[sink])
    train(target, 2)
    sink.full = OSError("No space left")
    train(target, 3)
    target.flush()
    train(target, 1)
    assert sink.refused >= 2 and sink.steps == [1, 2]
    assert column(target, "step") == [1, 2, 3, 4, 5, 6]
    sink.full = None
    train(target, 1)
    assert sink.steps == [1, 2, 3, 4, 5, 6, 7]
    assert len(caplog.records) == 1 and "No space left" in caplog.text


def test_a_failing_sink_costs_no_other_sink_a_row() -> None:
    first, second, third = FakeSink(), FakeSink(), FakeSink()
    second.full = OSError("full")
    target = recorder(sinks=[first, second, third])
    train(target, 2)
    train(target, 2)
    assert first.steps == third.steps == [1, 2, 3, 4]
    second.full = None
    target.close()
    assert [sink.steps for sink in (first, second, third)] == [[1, 2, 3, 4]] * 3
    indices = [[u.index for u in sink.updates if u.index is not None] for sink in (first, second, third)]
    assert all(found == sorted(set(found)) for found in indices)


def test_a_sink_that_fails_longer_than_the_journal_is_long_loses_nothing() -> None:
    sink = FakeSink()
    sink.full = OSError("full")
    target = recorder(sinks=[sink])
    train(target, 20_000)
    assert sink.refused <= 4  # not with each further row
    sink.full = None
    target.close()
    kept = column(target, "step")
    assert sink.steps == kept
    assert kept[0] == 1 and kept[-1] == 20_000
    # The newest of the journal's rows are there one by one.
    assert kept[:4096] == list(range(1, 4097))


# -- long runs -------------------------------------------------------------------------------------------------


def test_a_long_run_keeps_its_peak_and_stays_small() -> None:
    steps, peak = 200_000, 123_457
    values = np.random.default_rng(1).integers(1, 10**6, steps + 1).astype(float)
    values[peak] = 2.0e6
    sink = FakeSink()
    probes = (device_probe(lambda n: (values[n], values[-n], values[n // 2])), FakeProbe(fast=lambda n: [values[n]]))
    target = recorder(probes, [sink])
    train(target, steps)
    found = samples(target)
    assert found["device_in_use_bytes"][found["step"] == peak].tolist() == [[2_000_000]]
    assert np.array_equal(found["host_rss_bytes"], values[found["step"]])
    assert found["step"][0] == 1 and found["step"][-1] == steps
    assert found.num_samples <= 6 * (4096 * 6 + 4096)
    assert sum(len(update.chunk) for update in sink.updates) < 4 * 2**20
    assert np.array_equal(sink.samples["step"], found["step"])


# -- disk ------------------------------------------------------------------------------------------------------


def assert_same(one: Samples, other: Samples) -> None:
    assert set(one) == set(other)
    for name, values in one.items():
        assert values.dtype == other[name].dtype, name
        assert np.array_equal(values, other[name], equal_nan=values.dtype.kind == "f"), name


@pytest.mark.parametrize("batches", [1, 5, 9000])
def test_what_is_loaded_is_what_was_recorded(tmp_path: Path, batches: int) -> None:
    target = recorder_on_disk(tmp_path, probes=(device_probe(), FakeProbe(slow_columns=["host_uss_bytes"])))
    target.begin_stage("train")
    target.begin_epoch(0)
    for batch in range(batches):
        target.batch_begin()
        target.batch_end(batch, TRAIN)
    target.describe((LayerMemory("dense", "Dense", weights_bytes=4),))
    for action in (lambda: None, target.flush, target.flush, target.end_epoch, target.end_stage, target.close):
        action()
        loaded, snapshot = load(tmp_path), target.snapshot()
        assert_same(loaded.samples, snapshot.samples)
    assert (loaded.run, loaded.layers) == (snapshot.run, snapshot.layers)
    assert loaded.run.notes == ()


def test_a_resumed_run_continues_its_steps(tmp_path: Path) -> None:
    first = recorder_on_disk(tmp_path, clock=FakeClock(100.0))
    train(first, 3)
    first.close()
    second = recorder_on_disk(tmp_path, clock=FakeClock(200.0))
    second.begin_stage("train")
    second.begin_epoch(1, resumed=True)
    second.batch_end(0, TRAIN)
    second.batch_end(1, TRAIN)
    second.end_stage()
    second.close()
    loaded = load(tmp_path)
    assert loaded.samples["step"].tolist() == [1, 2, 3, 4, 5]
    assert loaded.samples["train_step"].tolist() == [1, 2, 3, 4, 5]
    assert loaded.run.created == 100.0 and loaded.run.name == "run"
    assert_same(loaded.samples, second.snapshot().samples)


def test_a_run_that_another_recorder_continues_is_let_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = recorder_on_disk(tmp_path, clock=FakeClock(100.0))
    first.begin_stage("train")
    first.batch_end(0, TRAIN)
    first.batch_end(1, TRAIN)
    second = Recorder(
        (device_probe(), FakeProbe()),
        lambda created, resume: open_store(str(tmp_path), "run", created=created, resume=resume, release=release),
        clock=FakeClock(200.0),
    )
    second.begin_stage("train")
    second.begin_epoch(0, resumed=True)
    second.batch_end(0, TRAIN)
    first.batch_end(2, TRAIN)
    first.end_stage()
    second.end_stage()
    second.close()
    assert load(tmp_path).samples["step"].tolist() == [1, 2, 3]
    assert column(first, "step") == [1, 2]
    [record] = caplog.records
    assert "another watch continues the run 'run'" in record.getMessage()


def test_a_run_of_the_same_name_that_is_not_resumed_is_another(tmp_path: Path) -> None:
    for _ in range(2):
        target = recorder_on_disk(tmp_path)
        train(target, 2)
        target.close()
    assert load(tmp_path, "run").samples.num_samples == load(tmp_path, "run-2").samples.num_samples == 2


def test_two_that_resume_a_run_at_once_keep_all_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run(tmp_path, "run", batches=3)
    targets = [recorder_on_disk(tmp_path, "run") for _ in range(2)]
    for target in targets:
        target.begin_stage("train")
        target.begin_epoch(1, resumed=True)
    for batch in range(5):
        for target in targets:
            target.batch_end(batch, TRAIN)
    for target in targets:
        target.close()
    assert load(tmp_path, "run").samples["step"].tolist() == list(range(1, 9))
    second = load(tmp_path, "run-2")
    assert second.samples["step"].tolist() == list(range(1, 6))
    [note] = [note for note in second.run.notes if "resume" in note]
    assert "is recording the run 'run'" in note and "'run-2'" in note and note in caplog.text


def test_a_run_can_be_resumed_as_soon_as_its_recorder_is_garbage(tmp_path: Path) -> None:
    def resuming(created: float, resume: bool) -> RunStore:
        return open_store(str(tmp_path), "run", created=created, resume=True, release=release)

    for _ in range(3):
        target = Recorder((FakeProbe(),), resuming, clock=FakeClock())
        target.begin_stage("train")  # and never ends, as in a fit that raised
        target.batch_end(0, TRAIN)
        del target
        gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    release(str(tmp_path / "run"))
    assert load(tmp_path).samples["step"].tolist() == [1, 2, 3]


# -- ends ------------------------------------------------------------------------------------------------------


def test_after_a_fork_the_child_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = FakeProbe(slow_columns=["host_uss_bytes"])
    stores: list[RunStore] = []  # the parent's, which would be closed as garbage

    def open_run(created: float, resume: bool) -> RunStore:
        stores.append(open_store(str(tmp_path), "run", created=created))
        return stores[0]

    target = Recorder((device_probe(), probe), open_run, clock=FakeClock(), sample_every=2)
    target.begin_stage("train")
    target.begin_epoch(0)
    for batch in range(4):
        target.batch_begin()
        target.batch_end(batch, TRAIN)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    calls = list(probe.calls)
    monkeypatch.setattr(process_exit, "_live", weakref.WeakSet([target]))
    process_exit._drop_all()  # what os.register_at_fork calls in the child
    assert target.dropped
    target.batch_begin()
    target.batch_end(4, TRAIN)
    target.end_epoch()
    target.flush()
    target.end_stage()
    target.close()
    assert probe.calls == calls
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert column(target, "step") == [1, 3]
    stores[0].sinks[0].close()


def test_a_closed_recorder_can_go_on() -> None:
    sink = FakeSink()
    target = recorder(sinks=[sink])
    train(target, 2)
    target.close()
    train(target, 1)
    target.close()
    assert sink.steps == [1, 2, 3] and sink.closed == 2


def test_a_recorder_that_is_garbage_has_stored_its_rows() -> None:
    sink = FakeSink()
    target = recorder(sinks=[sink])
    target.begin_stage("train")
    target.batch_end(0, TRAIN)
    target.batch_end(1, TRAIN)
    assert sink.steps == []
    del target
    gc.collect()
    assert sink.steps == [1, 2] and sink.closed == 1


def test_a_recorder_that_is_garbage_has_closed_its_probes() -> None:
    probe, locking = FakeProbe(), FakeProbe("nvml")
    locking.abandon = lambda: locking.calls.append("abandon")  # type: ignore[attr-defined]
    target = recorder((probe, locking))
    target.begin_stage("train")  # and never ends, as in a fit that raised
    target.batch_end(0, TRAIN)
    del target
    gc.collect()
    assert probe.calls[-1] == "close"
    assert locking.calls[-1] == "abandon" and "close" not in locking.calls


def test_a_probe_that_leads_to_its_recorder_does_not_keep_it() -> None:
    probe = FakeProbe()
    target = recorder((probe,))
    probe.recorder = target  # type: ignore[attr-defined]
    gone = weakref.ref(target)
    del probe, target
    gc.collect()
    assert gone() is None


def test_a_recorder_whose_probes_did_not_all_open_is_closed() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("dead")

    dead, unopened = FakeProbe("dead"), FakeProbe("unopened")
    dead.open = fail  # type: ignore[method-assign]
    target = recorder((dead, unopened), strict=True)
    with pytest.raises(RuntimeError, match="dead"):
        target.begin_stage("train")
    target.close()
    assert unopened.calls == ["close"]


def test_all_recorders_are_closed_as_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = FakeSink()
    target = recorder(sinks=[sink])
    target.begin_stage("train")
    target.batch_end(0, TRAIN)
    monkeypatch.setattr(process_exit, "_live", weakref.WeakSet([target]))
    process_exit._close_all()
    assert sink.steps == [1]


def test_the_newest_peaks_are_known_after_their_rows_are_stored() -> None:
    rows = iter([(1, 50, 20), (2, 10, 70), (3, 12, 10)])
    target = recorder((device_probe(lambda _: next(rows)),), [FakeSink()])
    target.begin_stage("train")
    for batch in range(3):
        target.batch_end(batch, TRAIN)
    target.flush()
    assert recent_peaks(*target.newest(2)) == [(10, 8), (12, 9)]
    assert recent_peaks(*target.newest(9)) == [(50, 49), (10, 8), (12, 9)]


# -- epochs ----------------------------------------------------------------------------------------------------


def test_epoch_bytes_are_the_highest_peak_since_the_last_call_and_the_newest_values() -> None:
    rows = iter([(1, 50, 20), (2, 10, 70), (3, 10, 10), (4, 11, 12), (5, 13, NAN)])
    probes = (device_probe(lambda _: next(rows)), FakeProbe(fast=lambda n: [1000.0 + n]))
    target = recorder(probes)
    assert target.epoch_bytes() == {}
    target.begin_stage("train")
    for batch in range(3):
        target.batch_end(batch, TRAIN)
    assert target.epoch_bytes() == {"device_peak_bytes": 70, "device_in_use_bytes": 3, "host_rss_bytes": 1003}
    target.batch_end(3, TRAIN)
    target.flush()
    target.batch_end(4, TRAIN)
    assert target.epoch_bytes() == {"device_peak_bytes": 13, "device_in_use_bytes": 5, "host_rss_bytes": 1005}


def test_epoch_bytes_take_the_maximum_over_devices() -> None:
    target = recorder((device_probe(lambda _: (1, 5, 10, 20, 3, 4), names=("GPU:0", "GPU:1")),))
    target.begin_stage("train")
    target.batch_end(0, TRAIN)
    assert target.epoch_bytes() == {"device_peak_bytes": 20, "device_in_use_bytes": 5}


def test_a_long_run_keeps_the_batches_that_were_left(tmp_path: Path) -> None:
    target = recorder_on_disk(tmp_path)
    target.begin_stage("train")
    left = [12_001, 17_777]
    for step in range(1, 20_001):
        target.batch_begin()
        if step in left:
            target.batch_left()
        else:
            target.batch_end(step - 1, TRAIN)
    target.close()
    found = load(tmp_path).samples
    assert found.num_samples < 19_000
    assert found["step"][~found["ended"]].tolist() == left


@pytest.mark.parametrize(("exact", "peak", "in_use"), [((0,), 10, 1), ((1,), 20, 5), ((0, 1), 20, 5), ((), 20, 5)])
def test_epoch_bytes_are_of_devices_that_count_all_if_there_are_any(
    exact: tuple[int, ...], peak: int, in_use: int
) -> None:
    probe = device_probe(lambda _: (1, 5, 10, 20, 3, 4), names=("GPU:0", "CPU:0"))
    for index, device in enumerate(probe.facts["devices"]):  # type: ignore[arg-type]
        device["counting"] = "exact" if index in exact else "partial"
    target = recorder((probe, FakeProbe(fast=lambda n: [1000.0])))
    target.begin_stage("train")
    target.batch_end(0, TRAIN)
    assert target.epoch_bytes() == {
        "device_peak_bytes": peak,
        "device_in_use_bytes": in_use,
        "host_rss_bytes": 1000,
    }


def test_epoch_bytes_survive_that_the_ring_wraps() -> None:
    peak = 3000
    target = recorder((device_probe(lambda n: (1, 9 if n == peak else 2, 1)),))
    target.begin_stage("train")
    for batch in range(20_000):
        target.batch_end(batch, TRAIN)
    assert target.epoch_bytes()["device_peak_bytes"] == 9
    target.batch_end(20_000, TRAIN)
    assert target.epoch_bytes()["device_peak_bytes"] == 2


def test_unknown_figures_are_left_out() -> None:
    target = recorder((device_probe(lambda _: (NAN, NAN, NAN)),))
    target.begin_stage("train")
    target.batch_end(0, TRAIN)
    assert target.epoch_bytes() == {}
