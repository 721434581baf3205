"""Recorder that reads the probes at batch boundaries and keeps the counters. It knows nothing about Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from typing import Any

from kerasmemwatch.errors import MemWatchError
from kerasmemwatch.probes.base import UNKNOWN, Probe
from kerasmemwatch.records.run import STAGES
from kerasmemwatch.sampling.cost_share import SLOW_SHARE, CostShare
from kerasmemwatch.sampling.process_exit import enlist
from kerasmemwatch.sampling.run_recorder import RunRecorder
from kerasmemwatch.sampling.stage_stack import Stage, Stages
from kerasmemwatch.storage.run_store import RunStore

__all__ = ["Recorder"]

_TRAIN = STAGES.index("train")


class Recorder(RunRecorder):
    """Records a row at the end of each batch.

    Args:
        open_store: Called at the first sample with its UNIX time and whether to continue an earlier run.
        clock: Returns UNIX time in seconds, and also measures intervals; by default a monotonic clock measures those.
        sample_every: Executions per row.
        about: Fields of ``RunInfo`` known in advance.
        slow_reads: Limit on slow reads; by default one of its own.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        open_store: Callable[[float, bool], RunStore],
        *,
        clock: Callable[[], float] | None = None,
        sample_every: int = 1,
        strict: bool = False,
        about: Mapping[str, Any] | None = None,
        slow_reads: CostShare | None = None,
    ) -> None:
        super().__init__(probes, open_store, clock=clock, strict=strict, about=about)
        self._every = sample_every
        self._stages = Stages()
        self._row_step = 0
        self._num_calls = 0
        self._call = self._model = 0.0
        self._countdown = 1
        self._slow_reads = slow_reads or CostShare(SLOW_SHARE, self._timer)
        self._under_way = False
        enlist(self, self._probes)

    # -- stages ------------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether a stage is in progress."""
        return bool(self._stages)

    @property
    def is_nested(self) -> bool:
        """Whether the stage in progress is part of another."""
        return len(self._stages) > 1

    @property
    def num_calls(self) -> int:
        """How many fits, evaluates and predicts there were that were part of no other."""
        return self._num_calls

    @property
    def stage(self) -> str:
        """The innermost stage in progress; ``""`` if there is none."""
        return STAGES[self._stages[-1].code] if self._stages else ""

    @property
    def epoch(self) -> int | None:
        """The current epoch, ``None`` outside training."""
        epoch = self._stages[-1].epoch if self._stages else UNKNOWN
        return None if epoch != epoch else int(epoch)

    def begin_stage(self, stage: str, per_execution: int = 1, *, model: int = 0, single: bool = False) -> None:
        """Begin a fit, evaluate or predict, perhaps within another.

        Args:
            model: How many models there have been, its own included.
            single: Whether it is none of them, but a loop of the user's own or a single batch of it.
        """
        self._stages.begin(STAGES.index(stage), per_execution=per_execution)
        if len(self._stages) == 1:
            self._num_calls += not single
            self._call = 0.0 if single else float(self._num_calls)
            self._model = float(model)
            with self.faults.guard("probes", "Nothing is recorded."):
                self._probes.open()

    def begin_epoch(self, epoch: int, *, resumed: bool = False) -> None:
        """Begin an epoch of training; ``resumed`` if it continues an interrupted run."""
        self._resume |= resumed
        self._stages.leave_to(_TRAIN)
        if self._stages:
            self._stages[-1].epoch, self._stages[-1].last_batch = float(epoch), -1

    def end_epoch(self) -> None:
        """Read the slow columns if they are due, and whether host memory is near its limit."""
        if self._log is None or self.dropped:
            return
        self._read_slow()
        with self.faults.guard("host memory", "Whether it is near its limit is unknown."):
            if self._headroom.epoch_ended(*self.newest(1)):
                self._describe_faults()
                self._log.flush(at_once=True)

    def _read_slow(self) -> None:
        """Read the slow columns into the newest row, unless this or another recorder has just done so."""
        if self._log is None or not self._slow_reads.is_due:
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
            self._read_slow()  # an evaluate or predict outside a fit has no other end of an epoch
        del self._stages[-1:]
        if settle and not self._stages and self._log is not None and not self.dropped:
            self._describe_faults()
            self._log.settle()

    def abandon_stages(self) -> None:
        """Forget stages that ended in an exception, which Keras does not report."""
        self._stages.clear()

    def close(self) -> None:
        """Store everything and release all resources."""
        if not self.dropped:
            self.abandon_stages()
        super().close()

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
            row += self._call, self._model
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
        place = (self._step, self._train_step, stage.epoch, stage.code, self._clock(), ended, self._call, self._model)
        log.append((*place, *values, *self._unread))
        self._row_step = self._step
