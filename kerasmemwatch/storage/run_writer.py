"""Writer of one run's rows: the newest in a journal, older ones as chunks in memory and in the sinks.

Rows are decimated as they leave the journal, so memory and disk hold the same rows.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from kerasmemwatch.analysis.decimation import bucket_width, decimate
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import ENDED, Layout, Rows, column_indices, to_samples
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.storage.codecs.row_codec import decode_rows, encode_rows
from kerasmemwatch.storage.files.journal import Journal
from kerasmemwatch.storage.flush_thread import FlushThread
from kerasmemwatch.storage.outbox import Outbox
from kerasmemwatch.storage.run_store import RunStore
from kerasmemwatch.storage.sinks.base import Update
from kerasmemwatch.storage.step_log import StepLog

__all__ = ["RunWriter"]

_FLUSH_INTERVAL_S = 10.0
# Each chunk is a tag in TensorBoard: this many are written eagerly, later ones only as the flush interval allows.
_EAGER_CHUNKS = 32
# The flush thread is woken early after this many rows, half of the journal's capacity.
_WAKE_EVERY = 4096
_TRACKED = ("device_peak_bytes", "device_between_peak_bytes", "device_in_use_bytes", "host_rss_bytes")

Clock = Callable[[], float]


class RunWriter:
    """Accepts rows without I/O and stores them from a thread of its own.

    Args:
        slow_size: Number of values at the end of a row that are mostly unknown.
        timer: Returns monotonic seconds; by default the clock.

    Attributes:
        write: Records one row and nothing more; ``False`` if ``append`` has to. Look it up for each row.
    """

    def __init__(
        self, store: RunStore, layout: Layout, slow_size: int, faults: Faults, clock: Clock, timer: Clock | None = None
    ) -> None:
        self.layout = layout
        self._store, self._faults, self._clock, self._timer = store, faults, clock, timer or clock
        self._size = sum(column.size for column in layout)
        self._sparse = range(self._size - slow_size, self._size)
        self._tracked = list(column_indices(layout, _TRACKED).values())
        self._ended = column_indices(layout, [ENDED.name]).get(ENDED.name, [])
        self._created = self._last_flush = self._timer()
        self._chunks = list(store.previous.chunks)
        self._next_index = max(len(self._chunks), store.previous.next_index)
        self._steps = StepLog(faults, store.previous.steps, store.previous.next_step)
        self._outbox = Outbox(store.sinks, faults)
        self._rows_chunked = self._chunked = self._marked = self._last_step = 0
        self._highest = np.full(self._size, np.nan)
        self._description: tuple[RunInfo, tuple[LayerMemory, ...]] | None = None
        self._journal: Journal | None = None
        self.write: Callable[[Sequence[float]], bool] = _refuse
        self._flusher: FlushThread | None = None
        # Taken to store or to read. The per-batch path, which has its own lock, takes it only if the journal is full.
        self._lock = threading.RLock()
        if store.previous.fresh is not None and len(store.previous.fresh[1]):
            self._add_chunk(*store.previous.fresh)

    @property
    def directory(self) -> str | None:
        """The run's directory, while this writer owns it."""
        return self._store.directory

    @property
    def last_steps(self) -> tuple[int, int]:
        """The highest ``step`` and ``train_step`` that an earlier process recorded, or zeros."""
        samples = to_samples(map(decode_rows, self._chunks))
        if not samples.num_samples:
            return 0, 0
        return int(samples["step"][-1]), int(np.nanmax(samples["train_step"]))

    # -- the per-batch path ------------------------------------------------------------------------------------

    def append(self, row: Sequence[float]) -> None:
        """Record one row, opening the journal or making room in it where ``write`` cannot."""
        if self.write(row):
            return
        journal = self._journal or self._open_journal()
        if journal.full:
            self._store_rows(journal.head, forced=True)
        if journal.head and self._flusher is not None:
            self._flusher.wake()
        journal.limit = min(journal.tail + journal.capacity, journal.head + _WAKE_EVERY)
        journal.append(row)

    def amend(self, values: Sequence[float]) -> None:
        """Set the last values of the newest row."""
        if self._journal is not None:
            self._journal.amend(self._size - len(values), values)

    # -- storing -----------------------------------------------------------------------------------------------

    def describe(self, run: RunInfo, layers: tuple[LayerMemory, ...]) -> None:
        """Set the run's description; it is stored soon."""
        self._description = (run, layers)
        if self._flusher is not None:
            self._flusher.wake()

    def add_step(self, step: TracedStep) -> None:
        """Add a traced step; it is stored soon, by the flush thread if a journal is open."""
        self._steps.add(step)
        if self._flusher is not None:
            self._flusher.wake()
            return
        with self._faults.guard("storing", "It will be retried later."), self._lock:
            if self._store.relock():
                self._send()

    def expect_steps(self, source: Callable[[], Iterable[TracedStep]]) -> None:
        """Add the traced steps that a function returns; the flush thread calls it soon and stores them."""
        self._steps.expect(source)
        if self._flusher is not None:
            self._flusher.wake()

    def steps(self) -> tuple[TracedStep, ...]:
        """The newest traced steps and the one with the highest peak."""
        self._steps.collect()
        return self._steps.steps()

    def flush(self, *, at_once: bool = False) -> None:
        """Store all rows but the newest, which may still be amended; at once, that too, but no step yet to analyse."""
        if not at_once:
            self._steps.collect(strict=False)  # without the lock: it may take a second
        with self._faults.guard("storing", "It will be retried later."), self._lock:
            if self._journal is not None:
                self._store_rows(self._journal.head - (not at_once))

    def regain(self) -> bool:
        """Continue recording, perhaps after ``settle``; return ``False`` if another recorder has continued the run."""
        with self._lock:
            return self._store.relock()

    def settle(self) -> None:
        """Store all rows and close the files, which the next row reopens. Less often once there are many chunks."""
        if len(self._chunks) >= _EAGER_CHUNKS and self._timer() - self._last_flush < self.flush_interval_s:
            return
        self._steps.collect()
        with self._faults.guard("storing", "The recording stays in memory."), self._lock:
            done = self._store_rows(self._journal.head) if self._journal else self._store.relock() and self._send()
            if done:
                self._close_journal()
                self._outbox.rest()
                self._store.unlock()

    def close(self) -> None:
        """Store everything and close the files."""
        self._last_flush = -math.inf
        self.settle()
        with self._faults.guard("closing", "The recording stays in memory."), self._lock:
            self._outbox.close()
            if self._journal is not None:  # not everything could be stored
                self._journal.finish()
            self._store.unlock()

    def retire(self) -> None:
        """Close soon, in the flush thread. Called by the garbage collector, in the middle of other code."""
        flusher = self._flusher
        if flusher is None:
            self.close()  # there are no rows left to store
        else:
            flusher.close(self)

    @property
    def flush_interval_s(self) -> float:
        """Seconds between flushes, growing with the run so that there are few."""
        return max(_FLUSH_INTERVAL_S, 0.02 * (self._timer() - self._created))

    def disown(self) -> None:
        """Keep the recording readable; leave the files and the thread to another process (after a fork, the parent)."""
        self._lock = threading.RLock()  # the parent's thread may hold the old one
        self._store.unlock()  # the parent keeps the lock
        self._store = self._store.disowned()
        self._outbox, self._description, self._flusher = Outbox((), self._faults), None, None
        self._steps.disown()
        if self._journal is not None:
            self._journal.disown()

    def parts(self) -> list[tuple[Layout, Rows]]:
        """All rows: the chunks, then those only in the journal."""
        with self._lock:
            parts = [decode_rows(chunk) for chunk in self._chunks]
            if self._journal is not None:
                parts.append((self.layout, self._journal.rows(self._chunked, self._journal.head)))
        return parts

    def recent(self, devices: Sequence[int] = ()) -> tuple[dict[str, float], dict[str, float]]:
        """Highest values since the last call and newest row's values, by column: maxima over these devices, or all."""
        with self._lock:
            if self._journal is None or not self._journal.head:
                return {}, {}
            head = self._journal.head
            self._mark(self._journal.rows(max(self._chunked, self._marked), head), head)
            highest, newest = self._highest, self._journal.rows(head - 1, head)[0]
            self._highest = np.full(self._size, np.nan)
        groups = {
            name: [group[index] for index in devices if index < len(group)] or group
            for name, group in column_indices(self.layout, _TRACKED).items()
        }
        return tuple(  # type: ignore[return-value]
            {name: float(np.fmax.reduce(row[group])) for name, group in groups.items()} for row in (highest, newest)
        )

    def newest(self, count: int) -> Rows:
        """The newest rows of this fit, newest last; fewer if there are not as many."""
        with self._lock:
            journal = self._journal
            if journal is None:
                return np.empty((0, self._size))
            # The ring still holds them, stored or not.
            return journal.rows(max(0, journal.head - min(count, journal.capacity)), journal.head)

    def _mark(self, rows: Rows, upto: int) -> None:
        if len(rows):
            self._highest = np.fmax(self._highest, np.fmax.reduce(rows, axis=0))
        self._marked = max(self._marked, upto)

    def _open_journal(self) -> Journal:
        self._send()  # rows that an earlier process left in its journal, before that file is overwritten
        try:
            self._journal = Journal(self.layout, self._store.journal_path)
        except OSError as error:
            remedy = "If the process is killed, its newest rows are lost. Make room on the disk, or choose a local one."
            self._faults.report("journal", error, remedy)
            self._journal = Journal(self.layout)
        self._chunked = self._marked = 0
        self.write = self._journal.append
        self._flusher = FlushThread(self)
        return self._journal

    def _close_journal(self) -> None:
        if self._journal is None:
            return
        self._journal.close()
        if self._journal.path is None and self._store.journal_path is not None:
            self._store.journal_path.unlink(missing_ok=True)  # the empty file made with the directory
        self._journal, self.write = None, _refuse
        if self._flusher is not None:
            self._flusher.stop()
            self._flusher = None

    def _store_rows(self, stop: int, *, forced: bool = False) -> bool:
        """Make a chunk of the rows before ``stop`` and send it; return whether the sinks have everything."""
        with self._lock:
            journal = self._journal
            assert journal is not None
            self._last_flush = self._timer()
            if stop > self._chunked:
                rows = journal.rows(self._chunked, stop)
                width = bucket_width(self._rows_chunked)
                died = (rows[:, self._ended] != 1).any(axis=1)
                kept = decimate(rows, width, tracked=self._tracked, sparse=self._sparse, special=died)
                self._add_chunk(self.layout, kept)
                self._rows_chunked += len(rows)
                self._mark(rows[max(0, self._marked - self._chunked) :], stop)
                self._chunked = stop
            sent = self._send()
            if sent or forced:
                journal.release(self._chunked)
            return sent

    def _add_chunk(self, layout: Layout, rows: Rows) -> None:
        chunk = encode_rows(layout, rows)
        self._last_step = int(rows[-1, 0])
        self._outbox.add(Update(self._next_index, layout, rows, chunk, self._last_step, float(rows[-1, 4])))
        self._next_index += 1
        self._chunks.append(chunk)

    def _send(self) -> bool:
        """Pass pending updates to the sinks, in order; return whether all were accepted."""
        traced = self._steps.encode()
        if traced or self._description is not None:
            run, layers = self._description or (None, ())
            newest, nothing = self._outbox.newest, np.empty((0, self._size))
            step = newest.step if newest else self._last_step
            self._outbox.add(Update(None, self.layout, nothing, b"", step, self._clock(), run, layers, traced))
            self._description = None
        return self._outbox.send()


def _refuse(row: Sequence[float]) -> bool:
    return False
