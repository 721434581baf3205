"""Tracing of the kind of step or gap that held the run's peak, the next time that kind occurs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kerasmemwatch.faults import Faults
from kerasmemwatch.records.rows import Layout
from kerasmemwatch.tracing.alike_fits import TracedStage
from kerasmemwatch.tracing.gap_tracer import GapTracer
from kerasmemwatch.tracing.recent_rows import windows
from kerasmemwatch.tracing.step_tracer import StepTracer
from kerasmemwatch.tracing.untraced_peaks import Chance, UntracedPeaks

__all__ = ["PeakTraces"]

# Most rows read at once; the journal holds that many.
_MAX_ROWS = 4096


class PeakTraces:
    """Checks the rows at intervals, and captures gaps.

    Args:
        rows: Returns the columns and up to a number of newest rows; ``None`` if peaks of steps and gaps are not
            measured separately, or if only named steps are traced.
    """

    def __init__(
        self,
        tracer: StepTracer,
        faults: Faults,
        step: Callable[[], int],
        rows: Callable[[int], tuple[Layout, Any]] | None = None,
    ) -> None:
        self._faults, self._step, self._rows = faults, step, rows
        self._gap = GapTracer(tracer.captures, faults)
        self._peaks = UntracedPeaks()
        # Numbers of traced steps and gaps; the steps before each stage that made functions, and before each fit.
        self._traced, self._firsts, self._fits = set[float](), set[int](), set[int]()
        self._prepared: tuple[TracedStage, Chance] | None = None

    @property
    def in_gap(self) -> bool:
        """Whether a gap is being captured."""
        return self._gap.is_open

    def stage_begins(self, *, is_new: bool, is_fit: bool) -> None:
        """Note that a stage begins.

        Args:
            is_new: Whether it may have to make its functions.
        """
        if is_new and self._rows is not None:
            self._firsts.add(self._step())
        if is_fit and self._rows is not None:
            self._fits.add(self._step())

    def traced(self, number: float) -> None:
        """Note that a step or gap was captured."""
        if self._rows is not None:
            self._traced.add(number)

    def reason(self, stage: TracedStage) -> str:
        """Reason to trace the next step of a stage because such a step held the run's peak, else ``""``."""
        return self._taken(stage, Chance("step", stage.name))

    def prepare(self, stage: TracedStage) -> bool:
        """Decide before an execution whether to capture the gap after it, which ``begin_prepared`` then does."""
        chance = Chance("batch", stage.name)
        if stage.single or not self._reason(stage, chance):
            return False
        self._gap.prepare(stage.callbacks())
        self._prepared = stage, chance
        return True

    def begin_prepared(self) -> None:
        """Begin a prepared gap, because the execution before it has ended."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self._begin(*prepared)

    def begin(self, stage: TracedStage, begins: str) -> None:
        """Capture a gap after a stage's loop, or before its first step, if it may hold the run's peak."""
        chance = Chance(begins, stage.name)
        if self.in_gap or stage.single or not self._reason(stage, chance):
            return
        self._gap.prepare(stage.callbacks())
        self._begin(stage, chance, within_call=begins == "begin")

    def end(self, step: int, after: int, epoch: int | None) -> bool:
        """End the captured gap; return whether there is something to analyse."""
        found = self._gap.end(step, after, epoch)
        if found:
            self.traced(after + 0.5)
        return found

    def drop(self) -> None:
        """Undo everything, because training has ended in an exception."""
        self._prepared = None
        self._gap.drop()

    def _begin(self, stage: TracedStage, chance: Chance, *, within_call: bool = False) -> None:
        if self._gap.begin(stage.name, self._reason(stage, chance), within_call=within_call):
            self._peaks.take(chance)
            stage.schedule.budget.spent += 1

    def _taken(self, stage: TracedStage, chance: Chance) -> str:
        reason = self._reason(stage, chance)
        if reason:
            self._peaks.take(chance)
        return reason

    def _reason(self, stage: TracedStage, chance: Chance) -> str:
        if self._rows is None or not stage.may_trace_more:
            return ""
        with self._faults.guard("trace", "The run's peak may not be traced."):
            num_new = self._step() - self._peaks.seen
            found = windows(*self._rows(min(num_new, _MAX_ROWS))) if num_new > 0 else None
            if found is not None:
                self._peaks.see(found, self._traced, self._firsts, self._fits)
                for numbers in (self._traced, self._firsts, self._fits):
                    numbers.difference_update([number for number in numbers if number < self._peaks.seen])
            return self._peaks.reason(chance)
        return ""
