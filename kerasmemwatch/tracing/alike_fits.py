"""Choice for each fit: trace it, or show the steps traced in an equivalent fit."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import FrameType
from typing import Any

from kerasmemwatch.attribution.variables.layer_paths import layer_paths
from kerasmemwatch.attribution.variables.watched import Watched
from kerasmemwatch.errors import MemWatchError
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.tracing.fit_kind import fit_kind
from kerasmemwatch.tracing.schedule import Peaks, TraceSchedule, usual_height
from kerasmemwatch.tracing.step_tracer import StepTracer
from kerasmemwatch.tracing.traced_before import TRACED, Fit

__all__ = ["AlikeFits", "TracedStage"]


class FitDiffersError(MemWatchError):
    """A short fit whose steps turned out to differ from those traced in a supposedly equivalent fit."""


@dataclass
class TracedStage:
    """One fit, evaluate or predict, or the batches outside all of them."""

    name: str  # `"train"`, `"test"` or `"predict"`
    schedule: TraceSchedule  # decides which of its steps are traced
    single: bool  # whether it is one of many batches that run outside a fit
    callbacks: Callable[[], Any] = lambda: None  # returns the running callback list, `None` if there is none
    count: int = 0  # number of its executions that have begun
    due: int = 1  # the execution before which to decide next
    reason: str = ""  # why the current execution is traced
    fit: Fit | None = None  # its entry among equivalent fits, once known
    is_judged: bool = False  # whether its peaks were compared with those of the steps it shows
    differs: str = ""  # how they differ
    since: int = 0  # number of executions that had begun when it was last entered

    @property
    def may_trace_more(self) -> bool:
        """Whether more than the planned steps may be traced; if it shows another fit's steps, only if affordable."""
        return self.schedule.budget.is_left and (self.fit is None or not self.fit.reuses or TRACED.is_affordable)


class AlikeFits:
    """Decides for the stages of one watch whether to show an equivalent fit's steps.

    Args:
        take: Takes a function that returns traced steps, for another thread to call.
    """

    def __init__(
        self,
        wanted: str | Collection[int],
        tracer: StepTracer,
        watched: Watched,
        faults: Faults,
        peaks: Callable[[], Peaks],
        take: Callable[[Callable[[], list[TracedStep]]], None],
    ) -> None:
        self._wanted, self._tracer, self._watched, self._faults = wanted, tracer, watched, faults
        self._peaks, self._take = peaks, take
        self._recording = object()  # identifies the recording, which fits of this process may share

    def is_shown(self, stage: TracedStage, model: Any, arguments: Any, frame: FrameType, *, is_nested: bool) -> bool:
        """Whether to show steps of an equivalent fit instead of tracing a step that is about to run."""
        self._tracer.fit = stage.fit
        if stage.fit is not None or stage.single or self._wanted != "auto":
            return False
        with self._faults.guard("trace", "The step is traced."), TRACED.taken():
            layers = layer_paths(model)
            kind = fit_kind(model, layers, stage.name, arguments, frame)
            if kind is None:
                return False
            # With several models, paths begin with the models' names, so they do not match another recording's.
            alone = self._recording if len(self._watched.models) > 1 else None
            key = kind, is_nested, alone
            stage.fit = self._tracer.fit = TRACED.begin(key, [layer.path for layer in layers], self._recording)
        if stage.fit is None or not stage.fit.reuses:
            return False
        stage.schedule.show_others(spared=bool(stage.reason))
        stage.reason = ""
        return True

    def judge(self, stage: TracedStage, executed: int) -> None:
        """Compare the steps so far with those of an equivalent fit that are to be shown, unless that was done."""
        # The first step made the functions, and an inner stage has left rows of its own.
        fit, count = stage.fit, executed - max(1, stage.since)
        if fit is None or stage.is_judged or not count:
            return
        with self._faults.guard("trace", "What another fit had traced is not shown."):
            stage.is_judged, height = True, usual_height(self._peaks(), count)
            if not fit.reuses:
                fit.usual(height)
            elif how := fit.differs(height):
                stage.schedule.differ(how)
                stage.differs = how
            else:
                self._take(fit.steps)

    def tell_untraced(self, stage: TracedStage) -> None:
        """Report at the end of a stage if its steps differ from those that were to be shown and none was traced."""
        if stage.differs and not stage.schedule.traced:
            error = FitDiffersError(f"the peak was {stage.differs} than in the fits whose steps were to be shown")
            self._faults.remark("trace", error, "It ended untraced. Name the steps to trace: trace=[2, 10].")
