"""Controller of tracing, between the callback, the schedule, the tracer and the recorder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import FrameType
from typing import Any

from kerasmemwatch.attribution.hooks import other_fits
from kerasmemwatch.attribution.variables.inventory import is_model
from kerasmemwatch.attribution.variables.watched import Watched
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.rows import Layout
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.tracing.alike_fits import AlikeFits, TracedStage
from kerasmemwatch.tracing.peak_traces import PeakTraces
from kerasmemwatch.tracing.recent_rows import recent_peaks
from kerasmemwatch.tracing.schedule import Peaks, TraceBudget, TraceSchedule
from kerasmemwatch.tracing.step_tracer import StepTracer
from kerasmemwatch.tracing.traced_before import TRACED

__all__ = ["AHEAD", "Tracing"]

# Preparing a traced step empties the processor's caches; this many executions later they are full again.
AHEAD = 3
# The list of live objects is kept up to date for this many executions rather than made again.
_SOON = 16
# This many of the newest rows show whether the peak has changed.
_RECENT = 16


class Tracing:
    """Traces the steps of one watch.

    Args:
        rows: Returns the columns and up to a number of newest rows of the current fit.
        position: Returns the newest ``step`` and the epoch.
        run_name: Returns the name of the recorded run, ``""`` if it has none.
        take: Takes a function that returns traced steps, for another thread to call.
        has_windows: Whether peaks within steps and between them are measured separately.
        first: Returns whether to trace a fit's first step, too.

    Attributes:
        count: Number of executions of the innermost stage that have begun.
        look_at: The execution before which to call ``look``.
        watched: The watched models.
        stack: What the hooks noted.
    """

    def __init__(
        self,
        wanted: str | Collection[int],
        faults: Faults,
        rows: Callable[[int], tuple[Layout, Any]],
        position: Callable[[], tuple[int, int | None]],
        run_name: Callable[[], str] = str,
        take: Callable[[Callable[[], list[TracedStep]]], None] = lambda source: None,
        *,
        has_windows: bool = True,
        first: Callable[[], bool] = bool,
    ) -> None:
        self.count, self.look_at, self._due = 0, 1, 1
        self._wanted, self._position, self._run_name, self._take = wanted, position, run_name, take
        # Not a method, which would refer to this object from within.
        self._peaks: Callable[[], Peaks] = lambda: recent_peaks(*rows(_RECENT))
        self._first = first
        self._ahead = AHEAD
        self.watched = Watched()
        self._tracer = StepTracer(self.watched, faults)
        self.stack = self._tracer.stack
        self._alike = AlikeFits(wanted, self._tracer, self.watched, faults, self._peaks, take)
        seen = rows if has_windows and wanted == "auto" else None
        self._highest = PeakTraces(self._tracer, faults, lambda: position()[0], seen)
        self._stages: list[TracedStage] = []
        # Stages that resume where they ended: batches outside a fit, validations within one.
        self._going_on: dict[tuple[str, bool], TracedStage] = {}

    def begin(
        self,
        stage: str,
        model: Any,
        total_steps: int | None,
        *,
        single: bool = False,
        callbacks: Callable[[], Any] = lambda: None,
    ) -> None:
        """Begin a stage, perhaps within another.

        Args:
            single: Whether it is one of many batches that run outside a fit.
            callbacks: Returns its callback list, ``None`` if it has none.
        """
        self._tracer.interrupt()
        self._keep()
        if self._stages:
            self._alike.judge(self._stages[-1], self.count)
        other_fits.begin(self._tracer)
        if is_model(model):
            self.watched.add_model(model)
        goes_on = single or bool(self._stages)
        if not goes_on:
            self._going_on.pop(("test", False), None)
        begun = self._going_on.get((stage, single)) if goes_on else None
        self._highest.stage_begins(is_new=begun is None, is_fit=not goes_on)
        if begun is None:
            budget = self._stages[0].schedule.budget if self._stages else TraceBudget()
            # A model that is built in its first step is known too late to show an equivalent fit's steps.
            first = not self._stages and (getattr(model, "built", False) or TRACED.is_affordable) and self._first()
            total = None if goes_on else total_steps
            begun = TracedStage(stage, TraceSchedule(self._wanted, total, budget=budget, first=first), single)
        else:
            # Other stages have since advanced the step counter that a list of steps refers to.
            begun.due = begun.count + 1
        if goes_on:
            self._going_on[stage, single] = begun
        begun.callbacks = callbacks
        self._stages.append(begun)
        self.count = begun.since = begun.count
        if not goes_on:
            self._highest.begin(begun, "begin")
        self._await(begun.due)

    def end(self, stage: str | None = None) -> None:
        """End the innermost stage, or the named one with all stages begun within it."""
        self._tracer.interrupt()
        self._keep()
        if self._stages:
            self._alike.judge(self._stages[-1], self.count)
            self._alike.tell_untraced(self._stages[-1])
        if self._highest.in_gap and self._stages and stage in (None, self._stages[0].name):
            step = self._position()[0]
            self._end_gap(step, step)
        if stage is None:
            del self._stages[-1:]
        elif any(outer.name == stage for outer in self._stages):
            while self._stages.pop().name != stage:
                pass
        if not self._stages:
            other_fits.end(self._tracer)
        else:
            # The inner stage's steps have advanced the step counter that a list of steps refers to.
            self.count = self._stages[-1].since = self._stages[-1].count
            self._await(self.count + 1)

    def abandon(self) -> None:
        """Forget stages that ended in an exception."""
        self._tracer.interrupt()
        self._highest.drop()
        self._stages.clear()
        other_fits.end(self._tracer)

    def left(self) -> None:
        """Handle an exception that aborts the innermost stage; if it is also the outermost, training has ended."""
        self._highest.drop()
        if len(self._stages) < 2:
            other_fits.end(self._tracer)

    def loop_ended(self) -> None:
        """Begin a gap, because the innermost stage's loop of steps has ended normally."""
        if self._stages:
            self._highest.begin(self._stages[-1], "loop")
            self._expect_end_of_gap()

    def look(self, model: Any, step: int, executed: int) -> bool:
        """Decide before an execution whether to trace it; return whether to call ``batch_ended`` after it."""
        if self._highest.in_gap:
            self._end_gap(step + executed - 1, step - 1)
        if not self._stages or model is None:
            return False
        if self._only_prepares():
            return False
        stage = self._decide(step, executed)

        def is_spared(arguments: Any, frame: FrameType) -> bool:
            shown = self._alike.is_shown(stage, model, arguments, frame, is_nested=len(self._stages) > 1)
            if shown:
                self._await(stage.schedule.next_look(self.count, step, executed))
            return shown

        # The first execution makes the step's function, whose operations are noted as they are made.
        if stage.reason or self.count == 1:
            self._tracer.arm(model, stage.name, reason=stage.reason, is_first=self.count == 1, spare=is_spared)
        return bool(stage.reason) or self._highest.prepare(stage)

    def around(self, step: int, arguments: Any = ()) -> AbstractContextManager[None]:
        """Return the context for a step of a user's own loop, decided as by ``look``."""
        # A user's loop may have other iterators by a later step.
        self._ahead = 1
        if not self._stages or self._only_prepares():
            return nullcontext()
        stage = self._decide(step, 1)
        if not stage.reason and self.count > 1:
            return nullcontext()
        return self._tracer.around(stage.name, stage.reason, arguments=arguments)

    def new_functions(self, within: Callable[[], bool]) -> AbstractContextManager[None]:
        """Return a context that notes functions whenever they are traced, while ``within`` returns true."""
        return self._tracer.new_functions(within)

    def around_function(self) -> AbstractContextManager[None]:
        """Return a context for tracing a function outside all steps, and for its first call."""
        return self._tracer.around(self._stages[-1].name if self._stages else "train", "")

    def _decide(self, step: int, executed: int) -> TracedStage:
        stage = self._stages[-1]
        if self.count >= stage.schedule.judged_at:
            self._alike.judge(stage, self.count - 1)
        if self._tracer.captures.busy and stage.reason:
            stage.schedule.yielded(stage.reason)
        self._tracer.captures.busy = False
        # Earlier rows belong to another stage.
        own = self.count - 1 - stage.since
        peaks = partial(self._peaks_of, own)
        stage.reason = stage.schedule.reason(self.count, step, executed, peaks, partial(self._highest.reason, stage))
        # Right after a traced execution, because another profiler may have prevented the trace.
        self._await(self.count + 1 if stage.reason else stage.schedule.next_look(self.count, step, executed))
        if not stage.reason and (self._due - self.count > _SOON or not stage.schedule.plans(self._due)):
            self._tracer.captures.look_away()
        # The first execution makes the functions, with so many objects that any earlier preparation is out of date.
        if self._due == self.count + 1 and self.count > 1 and not stage.reason:
            self._prepare()
        return stage

    def _peaks_of(self, count: int) -> Peaks:
        """The newest peaks, at most ``count``."""
        return self._peaks()[-count:] if count > 0 else ()

    def _await(self, due: int) -> None:
        """Schedule the next decision for an execution, and preparation a few before it."""
        self._due = due
        self.look_at = max(self.count + 1, due - self._ahead)
        self._expect_end_of_gap()

    def _expect_end_of_gap(self) -> None:
        """Look at the next execution if a gap is open, because that execution ends it."""
        if self._highest.in_gap:
            self.look_at = self.count + 1

    def _only_prepares(self) -> bool:
        """Whether the decision is due only before a later execution; if so, prepare for it."""
        if self.count >= self._due:
            return False
        if self.count < self._due - self._ahead:
            self._await(self._due)  # the look only ended a gap
            return True
        self._prepare()
        self.look_at = self._due
        return True

    def _prepare(self) -> None:
        stage = self._stages[-1]
        # Anything may happen between two single batches.
        if not stage.single and stage.schedule.plans(self._due):
            self._tracer.captures.look_around()

    def batch_ended(self, step: int, epoch: int | None) -> bool:
        """Handle the end of a traced execution, whose row is written; return whether there is a step to analyse."""
        if self._stages and (fit := self._stages[-1].fit) is not None:
            fit.run = self._run_name()
        found = self._tracer.batch_ended(step, epoch)
        if found:
            self._highest.traced(step)
        self._highest.begin_prepared()
        self._expect_end_of_gap()
        return found

    @property
    def analyse(self) -> Callable[[], list[TracedStep]]:
        """Function that analyses the captured steps, in milliseconds to seconds; refers to no recorder, nor to this."""
        return self._tracer.captures.finished

    def _end_gap(self, step: int, after: int) -> None:
        if self._highest.end(step, after, self._position()[1]):
            self._take(self._tracer.captures.finished)

    def _keep(self) -> None:
        if self._stages:
            self._stages[-1].count, self._stages[-1].due = self.count, self._due
