"""Has the step or gap traced that holds the run's peak, the next time one of its kind comes."""

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

# Of one look at most, as the journal has them.
_MOST_ROWS = 4096


class PeakTraces:
    """Looks at the rows now and then, and captures gaps.

    Args:
        tracer: What traces steps.
        faults: Where faults are reported.
        step: Returns the newest ``step``.
        rows: Returns the newest rows, so many at most, and their columns; ``None`` if peaks of steps and of gaps are
            not told apart, or only steps that are named are traced.
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
        # Numbers of what was traced; the steps before each stage that made functions, and before each fit.
        self._traced, self._firsts, self._fits = set[float](), set[int](), set[int]()
        self._prepared: tuple[TracedStage, Chance] | None = None

    @property
    def in_gap(self) -> bool:
        """Whether a gap is being captured."""
        return self._gap.is_open

    def stage_begins(self, *, is_new: bool, is_fit: bool) -> None:
        """A stage begins.

        Args:
            is_new: Whether it may have to make its functions.
            is_fit: Whether it is within no other.
        """
        if is_new and self._rows is not None:
            self._firsts.add(self._step())
        if is_fit and self._rows is not None:
            self._fits.add(self._step())

    def traced(self, number: float) -> None:
        """A step or gap was captured."""
        if self._rows is not None:
            self._traced.add(number)

    def reason(self, stage: TracedStage) -> str:
        """Why to trace the next step of a stage as one like it held the run's peak, else ``""``."""
        return self._taken(stage, Chance("step", stage.name))

    def prepare(self, stage: TracedStage) -> bool:
        """Before an execution: whether the gap after it is to be captured, which ``begin`` then does."""
        chance = Chance("batch", stage.name)
        if stage.single or not self._reason(stage, chance):
            return False
        self._gap.prepare(stage.callbacks())
        self._prepared = stage, chance
        return True

    def begin_prepared(self) -> None:
        """The execution before the gap has ended."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self._begin(*prepared)

    def begin(self, stage: TracedStage, begins: str) -> None:
        """A gap begins after a stage's loop, or before its first step: capture it if it may hold the run's peak."""
        chance = Chance(begins, stage.name)
        if self.in_gap or stage.single or not self._reason(stage, chance):
            return
        self._gap.prepare(stage.callbacks())
        self._begin(stage, chance, within_call=begins == "begin")

    def end(self, step: int, after: int, epoch: int | None) -> bool:
        """The gap that is being captured ends; whether there is something to analyse.

        Args:
            step: The ``step`` of the sample that covers it.
            after: The ``step`` that ended before it.
            epoch: 0-based epoch.
        """
        found = self._gap.end(step, after, epoch)
        if found:
            self.traced(after + 0.5)
        return found

    def drop(self) -> None:
        """Training has ended in an exception: take back what is in place."""
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
            unseen = self._step() - self._peaks.seen
            found = windows(*self._rows(min(unseen, _MOST_ROWS))) if unseen > 0 else None
            if found is not None:
                self._peaks.see(found, self._traced, self._firsts, self._fits)
                for numbers in (self._traced, self._firsts, self._fits):
                    numbers.difference_update([number for number in numbers if number < self._peaks.seen])
            return self._peaks.reason(chance)
        return ""
