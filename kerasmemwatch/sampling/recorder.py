"""Recorder that reads the probes at batch boundaries and keeps the counters. It knows nothing about Keras."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from threading import get_ident
from typing import Any

from kerasmemwatch.errors import MemWatchError
from kerasmemwatch.faults import Faults
from kerasmemwatch.probes.base import UNKNOWN, Probe
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import ENDED, Layout, to_samples
from kerasmemwatch.records.run import STAGES, DeviceInfo, RunInfo
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.sampling.cost_share import SLOW_SHARE, CostShare
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS, ProbeSet
from kerasmemwatch.sampling.process_exit import enlist, store_when_garbage
from kerasmemwatch.sampling.snapshot import Snapshot, epoch_bytes
from kerasmemwatch.sampling.stage_stack import Stage, Stages
from kerasmemwatch.storage.run_directory import Store
from kerasmemwatch.storage.run_writer import RowLog

__all__ = ["Recorder", "Snapshot"]

_TRAIN = STAGES.index("train")


class Recorder:
    """Records a row at the end of each batch.

    Args:
        probes: The probes to read.
        open_store: Called at the first sample with its UNIX time and whether to continue an earlier run.
        clock: Returns UNIX time in seconds, and also measures intervals; by default a monotonic clock measures those.
        sample_every: Executions per row.
        strict: Whether to raise our own faults.
        about: Fields of ``RunInfo`` known in advance.
        slow_reads: Limit on slow reads; by default one of its own.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        open_store: Callable[[float, bool], Store],
        *,
        clock: Callable[[], float] | None = None,
        sample_every: int = 1,
        strict: bool = False,
        about: Mapping[str, Any] | None = None,
        slow_reads: CostShare | None = None,
    ) -> None:
        self.faults = Faults(strict=strict)
        self._probes = ProbeSet(probes, self.faults.report)
        self._open_store, self._every = open_store, sample_every
        self._clock, self._timer = clock or time.time, clock or time.monotonic
        self._run = RunInfo(**{"name": "", "created": UNKNOWN, **(about or {})})
        self._layers: tuple[LayerMemory, ...] = ()
        self._stages = Stages()
        self._resume = False
        self._step = self._train_step = self._row_step = 0
        self._countdown = 1
        self._log: RowLog | None = None
        self._early_steps: deque[TracedStep] = deque()
        self._unread: list[float] = []
        self._notes_described = 0
        self._slow_reads = slow_reads or CostShare(SLOW_SHARE, self._timer)
        self._lock = threading.Lock()
        self.dropped = self._replaced = self._under_way = False
        enlist(self, self._probes)

    # -- stages ------------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether a stage is in progress."""
        return bool(self._stages)

    @property
    def started(self) -> bool:
        """Whether there is a sample."""
        return self._log is not None

    @property
    def step(self) -> int:
        """The highest ``step`` so far."""
        return self._step

    @property
    def epoch(self) -> int | None:
        """The current epoch, ``None`` outside training."""
        epoch = self._stages[-1].epoch if self._stages else UNKNOWN
        return None if epoch != epoch else int(epoch)

    @property
    def directory(self) -> str | None:
        """Directory that the run is written to; ``None`` if none."""
        return self._log.directory if self._log is not None else None

    def begin_stage(self, stage: str, per_execution: int = 1) -> None:
        """Begin a fit, evaluate or predict, perhaps within another.

        Args:
            stage: One of ``STAGES``.
            per_execution: Batches per execution.
        """
        self._stages.begin(STAGES.index(stage), per_execution=per_execution)
        if len(self._stages) == 1:
            with self.faults.guard("probes", "Nothing is recorded."):
                self._probes.open()

    def begin_epoch(self, epoch: int, *, resumed: bool = False) -> None:
        """Begin an epoch of training; ``resumed`` if it continues an interrupted run."""
        self._resume |= resumed
        self._stages.leave_to(_TRAIN)
        if self._stages:
            self._stages[-1].epoch, self._stages[-1].last_batch = float(epoch), -1

    def end_epoch(self) -> None:
        """Read the slow columns into the newest row, unless this or another recorder has just done so."""
        if self._log is None or self.dropped or not self._slow_reads.is_due:
            return
        with self.faults.guard("slow probes", "Figures read at epoch ends are unknown."), self._slow_reads.taken():
            values = self._probes.slow()
            with self._lock:
                self._log.amend(values)

    def end_stage(self, stage: str | None = None, *, settle: bool = True) -> None:
        """End a stage.

        Args:
            stage: The stage, with all stages begun within it; ``None`` for the innermost.
            settle: Whether the end of the outermost stage stores everything at once rather than in the background.
        """
        if stage is not None:
            self._stages.leave_to(STAGES.index(stage))
        if len(self._stages) == 1 and self._log is not None and not self.dropped:
            with self.faults.guard("sample", "The last row is missing."), self._lock:
                if self._step > self._row_step:
                    self._sample(self._stages[0])
            self.end_epoch()  # an evaluate or predict outside a fit has no other
        del self._stages[-1:]
        if settle and not self._stages and self._log is not None:
            self._describe_faults()
            self._log.settle()

    def abandon_stages(self) -> None:
        """Forget stages that ended in an exception, which Keras does not report."""
        self._stages.clear()

    # -- the per-batch path ------------------------------------------------------------------------------------

    def batch_begin(self) -> None:
        """Begin an execution."""
        self._under_way = True
        if self._countdown == 1 and not self.dropped:
            try:
                self._probes.begin()
            except Exception as error:
                self.faults.report("sample", error, "Peaks of this batch are unknown.")

    def batch_end(self, batch: int, code: int = 0) -> None:
        """End an execution.

        Args:
            batch: 0-based number within its epoch of the last batch it ran.
            code: Index of its stage in ``STAGES``.
        """
        self._under_way = False
        if self.dropped:
            if self._replaced:
                error = MemWatchError(f"another watch continues the run {self._run.name!r}")
                self.faults.report("run", error, "This watch records no more of this fit. Give it another run_name.")
            return
        try:
            with self._lock:
                stages = self._stages
                if (
                    stages
                    and batch == stages[-1].last_batch + 1
                    and code == stages[-1].code
                    and get_ident() == stages.thread
                ):
                    # As nearly always. Written out: within a fit, whose steps empty the processor's caches, every
                    # further call costs microseconds.
                    stage, executed = stages[-1], 1
                    stage.last_batch = batch
                else:
                    stage, executed = stages.executed(batch, code)
                self._step += executed
                if code == _TRAIN:
                    self._train_step += executed
                if self._countdown > 1:
                    self._countdown -= 1
                    return
                self._countdown = self._every
                self._sample(stage)
        except Exception as error:
            self.faults.report("sample", error, "This batch was not recorded.")

    def batch_left(self, *, raised: bool = True, ended: float = 0) -> bool:
        """Abort the current execution, if there is one; return whether it has a row.

        Args:
            raised: Whether an exception aborted it, so that it gets a row; not if the data ran out.
            ended: Value of the row's ``ended`` column: 0, or NaN if unknown.
        """
        has_row, self._under_way = self._under_way and raised and not self.dropped, False
        if has_row:
            with self.faults.guard("sample", "The step that did not end was not recorded."), self._lock:
                stage = self._stages.left()
                self._step += stage.per_execution
                self._train_step += stage.per_execution * (stage.code == _TRAIN)
                self._sample(stage, ended=ended)
        return has_row

    def _sample(self, stage: Stage, ended: float = 1) -> None:
        """Write a row."""
        parts: list[Sequence[float]] = []
        failure = None
        if self._log is not None:
            # As nearly always: nothing is to be checked or opened.
            row: list[float] = [self._step, self._train_step, stage.epoch, stage.code, self._clock(), ended]
            try:
                for read in self._probes.ends:
                    part = read()
                    row += part
                    parts.append(part)
                row += self._unread
                if self._log.write(row):
                    self._row_step = self._step
                    return
            except Exception as error:
                failure = error
        values = self._probes.end(parts, failure)
        log = self._log or self._open_run()
        log.append(
            (self._step, self._train_step, stage.epoch, stage.code, self._clock(), ended, *values, *self._unread)
        )
        self._row_step = self._step

    # -- the run -----------------------------------------------------------------------------------------------

    def _open_run(self) -> RowLog:
        created = self._clock()
        try:
            store = self._open_store(created, self._resume)
        except Exception as error:  # remote file systems raise errors of their own
            self.faults.report("log dir", error, "The run is kept in memory only. Choose another log_dir.")
            store = Store(self._run.name or "memory")
        self._unread = [UNKNOWN] * self._probes.slow_size
        layout = (*BASE_COLUMNS, ENDED, *self._probes.layout[len(BASE_COLUMNS) :])
        log = RowLog(store, layout, self._probes.slow_size, self.faults, self._clock, self._timer)
        step, train_step = log.last_steps
        self._step += step
        self._train_step += train_step
        previous = store.previous.run
        self._run = replace(
            self._run,
            name=store.name,
            created=previous.created if previous else created,
            devices=tuple(DeviceInfo(**device) for device in self._probes.listed("tensorflow", "devices")),
            host=self._probes.facts.get("host", {}),
            drivers=self._probes.listed("nvml", "drivers"),
            notes=(*self._probes.unmeasured, *store.previous.problems),
        )
        self._layers = self._layers or store.previous.layers
        if store.occupied:
            reason = MemWatchError(f"another process or watch is recording the run {store.occupied!r}")
            self.faults.remark("resume", reason, f"It is not continued; recording to a new run, {store.name!r}.")
        self._log = log
        self._describe()
        while self._early_steps:
            log.add_step(self._early_steps.popleft())
        store_when_garbage(self, log)
        return log

    @property
    def run(self) -> RunInfo:
        """The run's description, with the faults so far in its notes."""
        return replace(self._run, notes=(*self._run.notes, *self.faults.notes))

    def describe(self, layers: Sequence[LayerMemory], **about: Any) -> None:
        """Set facts about the model (fields of ``RunInfo``); stored with the next rows."""
        self._layers, self._run = tuple(layers), replace(self._run, **about)
        self._describe()

    def add_step(self, step: TracedStep) -> None:
        """Add a traced step; it is stored soon. Call it between executions, from any thread."""
        if self.dropped:
            return
        if self._log is None:
            self._early_steps.append(step)
        else:
            self._log.add_step(step)

    def expect_steps(self, source: Callable[[], Iterable[TracedStep]]) -> None:
        """Add the traced steps that a function returns; the flush thread calls it soon."""
        if self.dropped:
            return
        if self._log is None:
            self._early_steps.extend(source())
        else:
            self._log.expect_steps(source)

    def _describe(self) -> None:
        self._notes_described = len(self.faults.notes)
        if self._log is not None:
            self._log.describe(self.run, self._layers)

    def _describe_faults(self) -> None:
        """Store new faults, so that readers see them too."""
        if len(self.faults.notes) != self._notes_described:
            self._describe()

    def snapshot(self) -> Snapshot:
        """Return everything recorded so far."""
        steps = self._log.steps() if self._log else tuple(self._early_steps)
        return Snapshot(self.run, to_samples(self._log.parts() if self._log else ()), self._layers, steps)

    def epoch_bytes(self) -> dict[str, float]:
        """Highest device peak since the last call, newest in-use bytes and RSS; unknown figures are left out.

        Maxima over devices: over those that count every allocation, if there are any.
        """
        if self._log is None:
            return {}
        exact = [index for index, device in enumerate(self._run.devices) if device.counting == "exact"]
        return epoch_bytes(*self._log.recent(exact))

    def newest(self, count: int = 16) -> tuple[Layout, Any]:
        """Columns and newest rows of the current fit, newest last."""
        return ((), []) if self._log is None else (self._log.layout, self._log.newest(count))

    def flush(self) -> None:
        """Store everything recorded so far."""
        if self._log is not None and not self.dropped:
            self._log.flush()

    def drop(self) -> None:
        """Record nothing more, as in a forked child; earlier records stay readable."""
        self.dropped = True
        self._lock = threading.Lock()  # another thread of the parent may hold the old one
        if self._log is not None:
            self._log.disown()

    def regain(self) -> bool:
        """Continue recording; return ``False`` if another recorder has continued the run since it was stored."""
        return self._log is None or self._log.regain()

    def release(self) -> None:
        """Store everything and record nothing more, because another recorder continues the run."""
        self.close()
        self._replaced = True
        self.drop()

    def close(self) -> None:
        """Store everything and release all resources."""
        if self.dropped:
            return
        self.abandon_stages()
        if self._log is not None:
            self._describe_faults()
            self._log.close()
        self._probes.close()
