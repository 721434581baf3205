"""Rows between the journal, the chunks in memory and the sinks: each in exactly one place, none lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import NAN, FakeClock, FakeSink, NoFlusher

from kerasmemwatch.faults import Faults
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Column
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS
from kerasmemwatch.storage import run_writer
from kerasmemwatch.storage.codecs.row_codec import encode_rows
from kerasmemwatch.storage.files.journal import CAPACITY, read_journal
from kerasmemwatch.storage.run_reader import StoredRun
from kerasmemwatch.storage.run_store import RunStore
from kerasmemwatch.storage.run_writer import RunWriter

LAYOUT = (*BASE_COLUMNS, Column("host_rss_bytes"), Column("host_uss_bytes"))


@pytest.fixture(autouse=True)
def _rows_are_stored_when_the_test_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "FlushThread", NoFlusher)


def row(step: int, rss: float = 7.0) -> list[float]:
    return [step, step, 0, 0, 100.0 + step, rss, NAN]


def make(
    *sinks: FakeSink, path: Path | None = None, previous: StoredRun | None = None, clock: FakeClock | None = None
) -> RunWriter:
    store = RunStore("run", sinks, path, previous or StoredRun())
    return RunWriter(store, LAYOUT, 1, Faults(), clock or FakeClock())


def fill(log: RunWriter, start: int, stop: int) -> None:
    for step in range(start, stop):
        log.append(row(step))


def steps(log: RunWriter) -> list[int]:
    return [int(step) for _, rows in log.parts() for step in rows[:, 0]]


def test_a_flush_stores_all_rows_but_the_newest() -> None:
    sink = FakeSink()
    log = make(sink)
    fill(log, 1, 6)
    log.flush()
    assert sink.steps == [1, 2, 3, 4] and steps(log) == [1, 2, 3, 4, 5]
    log.amend([9.0])
    log.flush()
    assert sink.steps == [1, 2, 3, 4]
    log.close()
    assert sink.steps == steps(log) == [1, 2, 3, 4, 5]
    assert sink.samples["host_uss_bytes"][-1] == 9


def test_a_flush_of_nothing_writes_nothing() -> None:
    sink = FakeSink()
    log = make(sink)
    log.flush()
    log.settle()
    log.close()
    assert sink.updates == [] and steps(log) == []


def test_settling_stores_everything_and_removes_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "rows.journal"
    sink = FakeSink()
    log = make(sink, path=path)
    fill(log, 1, 4)
    assert read_journal(path.read_bytes())[1][:, 0].tolist() == [1, 2, 3]
    log.settle()
    assert sink.steps == [1, 2, 3] and not path.exists()
    fill(log, 4, 6)
    assert read_journal(path.read_bytes())[1][:, 0].tolist() == [4, 5]
    log.close()
    assert sink.steps == steps(log) == [1, 2, 3, 4, 5] and not path.exists()


def test_what_no_sink_has_stays_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "rows.journal"
    sink = FakeSink()
    sink.full = OSError("full")
    log = make(sink, path=path)
    fill(log, 1, 4)
    log.flush()
    log.settle()
    log.close()
    assert read_journal(path.read_bytes())[1][:, 0].tolist() == [1, 2, 3]
    assert steps(log) == [1, 2, 3]
    sink.full = None
    log.close()
    assert sink.steps == [1, 2, 3] and not path.exists()


def test_a_full_ring_makes_room_and_every_row_is_kept() -> None:
    sink = FakeSink()
    log = make(sink)
    fill(log, 1, CAPACITY + 1)
    assert sink.steps == []
    fill(log, CAPACITY + 1, CAPACITY + 3)
    assert sink.steps == list(range(1, CAPACITY + 1))
    assert steps(log) == list(range(1, CAPACITY + 3))
    log.close()


def test_memory_and_sinks_hold_the_same_rows_of_a_long_run() -> None:
    sink = FakeSink()
    log = make(sink)
    values = np.random.default_rng(0).integers(1, 1000, 60_001)
    for step in range(1, 60_001):
        log.append(row(step, float(values[step])))
    log.close()
    assert sink.steps == steps(log)
    assert len(sink.steps) < 40_000
    samples = to_samples(log.parts())
    assert np.array_equal(samples["host_rss_bytes"], values[samples["step"]])
    assert samples["host_rss_bytes"].max() == values[1:].max()


def test_an_epochs_slow_reading_survives_decimation() -> None:
    log = make()
    for step in range(1, 50_001):
        log.append(row(step))
        if step == 45_678:
            log.amend([123.0])
    log.close()
    samples = to_samples(log.parts())
    read = ~np.isnan(samples["host_uss_bytes"])
    assert samples["step"][read].tolist() == [45_678] and samples["host_uss_bytes"][read].tolist() == [123.0]


def test_a_description_goes_out_with_the_next_rows_and_once() -> None:
    sink = FakeSink()
    log = make(sink)
    run = RunInfo("run", 1.0)
    log.describe(run, ())
    assert sink.updates == []
    fill(log, 1, 4)
    log.flush()
    log.flush()
    log.close()
    assert [update.run for update in sink.updates if update.run is not None] == [run]


def test_the_steps_of_what_is_written_never_fall() -> None:
    sink = FakeSink()
    log = make(sink)
    fill(log, 1, 10)
    log.flush()
    log.describe(RunInfo("run", 1.0), ())
    log.flush()  # no new rows
    fill(log, 10, 12)
    log.close()
    written = [update.step for update in sink.updates]
    assert written == sorted(written) and len(written) == 3


def test_a_journal_that_cannot_be_made_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    sink = FakeSink()
    faults = Faults()
    log = RunWriter(RunStore("run", (sink,), tmp_path / "rows.journal"), LAYOUT, 1, faults, FakeClock())
    fill(log, 1, 4)
    log.close()
    assert sink.steps == [1, 2, 3]
    assert len(faults.notes) == 1 and "No space left" in faults.notes[0] and "Make room" in faults.notes[0]


def test_an_interrupt_while_storing_loses_and_doubles_nothing() -> None:
    class Interrupted(FakeSink):
        def write(self, update: object) -> None:
            if self.full is not None:
                raise KeyboardInterrupt
            super().write(update)  # type: ignore[arg-type]

    sink = Interrupted()
    log = make(sink)
    fill(log, 1, 4)
    sink.full = OSError()
    with pytest.raises(KeyboardInterrupt):
        log.settle()
    assert steps(log) == [1, 2, 3]
    sink.full = None
    log.close()
    assert sink.steps == steps(log) == [1, 2, 3]


def test_rows_that_a_killed_process_left_are_stored_first() -> None:
    fresh = np.array([row(4), row(5)])
    previous = StoredRun(chunks=(encode_rows(LAYOUT, np.array([row(1), row(2), row(3)])),), fresh=(LAYOUT, fresh))
    sink = FakeSink()
    log = make(sink, previous=previous)
    assert log.last_steps == (5, 5)
    fill(log, 6, 8)
    # Before the journal that held them is overwritten.
    assert sink.steps == [4, 5]
    log.close()
    assert sink.steps == [4, 5, 6, 7] and steps(log) == [1, 2, 3, 4, 5, 6, 7]
    assert [update.index for update in sink.updates] == [1, 2]


def test_no_earlier_run_means_step_zero() -> None:
    assert make().last_steps == (0, 0)


def test_many_short_fits_do_not_make_as_many_chunks() -> None:
    clock = FakeClock()
    sink = FakeSink()
    log = make(sink, clock=clock)
    for step in range(1, 1001):
        fill(log, step, step + 1)
        log.settle()
    few = len(sink.updates)
    assert few <= 33
    clock.now += 3600
    fill(log, 1001, 1002)
    log.settle()
    assert len(sink.updates) == few + 1 and sink.steps == steps(log) == list(range(1, 1002))
    log.close()


def test_the_flush_interval_grows_with_the_run() -> None:
    clock = FakeClock()
    log = make(clock=clock)
    intervals = []
    for hours in (0, 0.1, 1, 100):
        clock.now += hours * 3600
        intervals.append(log.flush_interval_s)
    assert intervals[:2] == [10, 10]
    assert intervals == sorted(intervals)
    # So that a run of any length is flushed some hundreds of times: each time makes a tag.
    assert intervals[-1] == pytest.approx(0.02 * 101.1 * 3600)


@pytest.mark.parametrize("store", [lambda log: None, RunWriter.flush])
def test_recent_values_are_the_highest_since_the_last_call(store: Callable[[RunWriter], None]) -> None:
    log = make()
    assert log.recent() == ({}, {})
    for step, rss in enumerate([5, 9, 6], 1):
        log.append(row(step, rss))
    store(log)
    assert log.recent() == ({"host_rss_bytes": 9}, {"host_rss_bytes": 6})
    log.append(row(4, 2))
    store(log)
    log.append(row(5, 1))
    assert log.recent() == ({"host_rss_bytes": 2}, {"host_rss_bytes": 1})
    log.close()


def test_the_thread_is_woken_as_the_ring_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[int] = []

    class Counting(NoFlusher):
        def wake(self) -> None:
            woken.append(1)

    monkeypatch.setattr(run_writer, "FlushThread", Counting)
    log = make()
    fill(log, 1, 2 * CAPACITY + 1)
    assert 2 <= len(woken) <= 8
    log.close()
