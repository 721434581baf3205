"""Stand-ins for what a recorder is given: a clock, probes, sinks. Nothing in them waits or measures."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.compat import tensorflow as private
from kerasmemwatch.compat.names import Name
from kerasmemwatch.records.rows import Layout, to_samples
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Column
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.storage.codecs.row_codec import decode_rows
from kerasmemwatch.storage.files.event_file import frame
from kerasmemwatch.storage.run_store import RunStore, open_store
from kerasmemwatch.storage.sinks.base import Sink, Update
from kerasmemwatch.storage.sinks.tensorboard import _tensor_event

NAN = float("nan")
DEVICES: dict[str, object] = {"devices": [{"name": "CPU:0"}]}


class FakeClock:
    """Tells the time it was set to, in seconds."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeProbe:
    """Gives what ``fast`` and ``slow`` return, remembers its calls, and raises what ``raises`` says.

    Args:
        name: Its name.
        columns: Names of its columns, or the columns.
        slow_columns: Likewise, read at epoch ends.
        fast: Returns the values of ``columns`` for the n-th reading, from 1.
        slow: Likewise for ``slow_columns``.
        facts: Its facts.
    """

    def __init__(
        self,
        name: str = "host",
        columns: Sequence[str | Column] = ("host_rss_bytes",),
        slow_columns: Sequence[str | Column] = (),
        *,
        fast: Callable[[int], Sequence[float]] | None = None,
        slow: Callable[[int], Sequence[float]] | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        self.name = name
        self.columns = tuple(Column(c) if isinstance(c, str) else c for c in columns)
        self.slow_columns = tuple(Column(c) if isinstance(c, str) else c for c in slow_columns)
        self.facts = dict(facts or {})
        self.raises: dict[str, Exception] = {}
        self.calls: list[str] = []
        self._count: Counter[str] = Counter()
        self._fast = fast or (lambda reading: [float(reading)] * sum(c.size for c in self.columns))
        self._slow = slow or (lambda reading: [float(-reading)] * sum(c.size for c in self.slow_columns))

    def _called(self, name: str) -> int:
        self.calls.append(name)
        self._count[name] += 1
        if name in self.raises:
            raise self.raises[name]
        return self._count[name]

    def open(self) -> None:
        self._called("open")

    def batch_begin(self) -> None:
        self._called("batch_begin")

    def batch_end(self) -> Sequence[float]:
        return self._fast(self._called("batch_end"))

    def epoch_end(self) -> Sequence[float]:
        return self._slow(self._called("epoch_end"))

    def close(self) -> None:
        self._called("close")


def device_probe(
    fast: Callable[[int], Sequence[float]] | None = None, names: Sequence[str] = ("CPU:0",), **facts: object
) -> FakeProbe:
    """A probe with the columns of TensorFlow's allocators: in use, peak, peak between batches."""
    columns = [
        Column(name, len(names)) for name in ("device_in_use_bytes", "device_peak_bytes", "device_between_peak_bytes")
    ]
    return FakeProbe("tensorflow", columns, fast=fast, facts={"devices": [{"name": name} for name in names], **facts})


class FakeSink:
    """Keeps what it is given; ``full`` is raised instead as long as it is set."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self.full: Exception | None = None
        self.refused = 0
        self.closed = 0

    def write(self, update: Update) -> None:
        if self.full is not None:
            self.refused += 1
            raise self.full
        self.updates.append(update)

    def close(self) -> None:
        self.closed += 1

    @property
    def steps(self) -> list[int]:
        """The step of every row it was given, in the order of arrival."""
        return [int(step) for update in self.updates for step in update.rows[:, 0]]

    @property
    def parts(self) -> list[tuple[Layout, np.ndarray]]:
        """The chunks it was given, decoded."""
        return [decode_rows(update.chunk) for update in self.updates if update.index is not None]

    @property
    def samples(self) -> Any:
        return to_samples(self.parts)


class NoFlusher:
    """Stands for a flusher whose thread never gets to run, so that a test decides when rows are stored."""

    def __init__(self, target: object) -> None:
        self.stopped = False

    def wake(self) -> None:
        pass

    def stop(self) -> None:
        self.stopped = True

    def close(self, target: Any) -> None:
        target.close()


def recorder(
    probes: Sequence[Any] = (), sinks: Sequence[Sink] = (), *, clock: FakeClock | None = None, **options: Any
) -> Recorder:
    """A recorder that gives its rows to ``sinks`` and has no journal on disk."""
    return Recorder(
        probes or (FakeProbe(),),
        lambda created, resume: RunStore("run", tuple(sinks)),
        clock=clock or FakeClock(),
        **options,
    )


def recorder_on_disk(
    log_dir: object, run_name: str | None = "run", *, probes: Sequence[Any] = (), **options: Any
) -> Recorder:
    """A recorder that writes into a log dir as ``MemoryWatch`` does."""
    return Recorder(
        probes or (device_probe(), FakeProbe()),
        lambda created, resume: open_store(str(log_dir), run_name, created=created, resume=resume),
        **{"clock": FakeClock(), **options},
    )


def train(target: Recorder, batches: int, *, epoch: int = 0, stage: str = "train") -> None:
    """One fit of one epoch (or an evaluate, a predict)."""
    code = ("train", "test", "predict").index(stage)
    target.begin_stage(stage)
    if not code:
        target.begin_epoch(epoch)
    for batch in range(batches):
        target.batch_begin()
        target.batch_end(batch, code)
    if not code:
        target.end_epoch()
    target.end_stage()


def write_run(log_dir: object, run_name: str | None = "run", batches: int = 5, **options: Any) -> Recorder:
    """Record a fit on disk; returns the closed recorder."""
    written = recorder_on_disk(log_dir, run_name, **options)
    train(written, batches)
    written.close()
    return written


def event_file(run_dir: Path) -> Path:
    """The one event file of a run."""
    [path] = run_dir.glob("*tfevents*")
    return path


def append_payload(run_dir: Path, tag: str, payload: bytes) -> None:
    """Put one more tensor into a run's event file, whole and with the right checksums."""
    update = Update(None, (), np.empty((0, 0)), b"", 9, 9.0, RunInfo("x", 0.0))
    with event_file(run_dir).open("ab") as file:
        file.write(frame(_tensor_event(tag, payload, update).SerializeToString()))


def newer(version: int, *, of_rows: bool) -> bytes:
    """What a later version might write as a chunk of rows, or as the description of a run."""
    raw = f'{{"version": {version}}}'.encode()
    return zlib.compress(len(raw).to_bytes(4, "little") + raw if of_rows else raw)


def look_up_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have TensorFlow's private names looked up anew in this test, in which a stand-in takes TensorFlow's place."""
    for name in [value for value in vars(private).values() if isinstance(value, Name)]:
        monkeypatch.setattr(name, "_owner", None)
        monkeypatch.setattr(name, "_reason", "")
