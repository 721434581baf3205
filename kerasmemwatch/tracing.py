"""When to trace and what becomes of it: between the callback, the schedule, the tracer and the recorder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

from kerasmemwatch.attribution import other_fits
from kerasmemwatch.attribution.fit_kind import fit_kind
from kerasmemwatch.attribution.inventory import is_model
from kerasmemwatch.attribution.layer_paths import layer_paths
from kerasmemwatch.attribution.step_tracer import StepTracer
from kerasmemwatch.attribution.watched import Watched
from kerasmemwatch.errors import MemWatchError
from kerasmemwatch.faults import Faults
from kerasmemwatch.timeline import TracedStep
from kerasmemwatch.trace_schedule import Peaks, TraceSchedule, usual_height
from kerasmemwatch.traced_before import TRACED, Fit

__all__ = ["AHEAD", "Tracing"]

# What is done once before a traced step empties the processor's caches: so many executions later they are full again.
AHEAD = 3
# What is alive is followed that long, rather than looked for once more.
_SOON = 16


class FitDiffersError(MemWatchError):
    """A short fit whose steps turned out to be others than those that another fit had traced."""


@dataclass
class _Stage:
    name: str
    schedule: TraceSchedule
    single: bool
    count: int = 0
    due: int = 1
    reason: str = ""
    fit: Fit | None = None
    is_judged: bool = False
    differs: str = ""
    since: int = 0


class Tracing:
    """Traces the steps of one watch.

    Args:
        wanted: ``"auto"`` or the steps to trace.
        faults: Where faults are reported.
        peaks: Returns the newest peaks, as ``TraceSchedule.reason`` wants them.
        run_name: Returns the name of the run that is recorded, ``""`` if it has none.
        take: Takes a function that returns traced steps, for another thread to call.

    Attributes:
        count: How many executions of the innermost stage have begun.
        look_at: The execution before which ``look`` is to be called.
        watched: The models.
    """

    def __init__(
        self,
        wanted: str | Collection[int],
        faults: Faults,
        peaks: Callable[[], Peaks],
        run_name: Callable[[], str] = str,
        take: Callable[[Callable[[], list[TracedStep]]], None] = lambda source: None,
    ) -> None:
        self.count, self.look_at, self._due = 0, 1, 1
        self._wanted, self._faults, self._peaks = wanted, faults, peaks
        self._run_name, self._take = run_name, take
        self._recording = object()  # stands for what is recorded, which fits of this process may share
        self._ahead = AHEAD
        self.watched = Watched()
        self._tracer = StepTracer(self.watched, faults)
        self._stages: list[_Stage] = []
        # What goes on where it ended: batches outside of a fit, the validations within one.
        self._going_on: dict[tuple[str, bool], _Stage] = {}

    def begin(self, stage: str, model: Any, total_steps: int | None, *, single: bool = False) -> None:
        """A stage begins, perhaps within another.

        Args:
            stage: ``"train"``, ``"test"`` or ``"predict"``.
            model: The model that runs it.
            total_steps: How many executions it has, if known.
            single: Whether it is one batch of many that run outside of a fit.
        """
        self._tracer.interrupt()
        self._keep()
        if self._stages:
            self._judge(self._stages[-1], self.count)
        other_fits.begin(self._tracer)
        if is_model(model):
            self.watched.add_model(model)
        goes_on = single or bool(self._stages)
        if not goes_on:
            self._going_on.pop(("test", False), None)
        begun = self._going_on.get((stage, single)) if goes_on else None
        if begun is None:
            begun = _Stage(stage, TraceSchedule(self._wanted, None if goes_on else total_steps), single)
        else:
            # What ran since it was left has moved the counter that a list of steps goes by.
            begun.due = begun.count + 1
        if goes_on:
            self._going_on[stage, single] = begun
        self._stages.append(begun)
        self.count = begun.since = begun.count
        self._await(begun.due)

    def end(self, stage: str | None = None) -> None:
        """The innermost stage ends, or the named one with all that was begun within it."""
        self._tracer.interrupt()
        self._keep()
        if self._stages:
            self._judge(self._stages[-1], self.count)
            self._tell_untraced(self._stages[-1])
        if stage is None:
            del self._stages[-1:]
        elif any(outer.name == stage for outer in self._stages):
            while self._stages.pop().name != stage:
                pass
        if not self._stages:
            other_fits.end(self._tracer)
        else:
            # The steps within it have moved the counter that a list of steps goes by.
            self.count = self._stages[-1].since = self._stages[-1].count
            self._await(self.count + 1)

    def abandon(self) -> None:
        """Forget stages that ended in an exception."""
        self._tracer.interrupt()
        self._stages.clear()
        other_fits.end(self._tracer)

    def left(self) -> None:
        """An exception leaves the innermost stage: if that is the outermost, no training is under way any more."""
        if len(self._stages) < 2:
            other_fits.end(self._tracer)

    def look(self, model: Any, step: int, executed: int) -> bool:
        """Before an execution: decide whether to trace it, and prepare that.

        Args:
            model: The model that runs.
            step: The ``step`` of its first batch.
            executed: How many batches it will run.

        Returns:
            Whether ``batch_ended`` is to be called after it.
        """
        if not self._stages or model is None:
            return False
        if self._only_prepares():
            return False
        stage = self._decide(step, executed)
        # The first execution makes the step's function: its operations are noted as they are made.
        if stage.reason or self.count == 1:
            spare = partial(self._is_shown, stage, model, step, executed)
            self._tracer.arm(model, stage.name, reason=stage.reason, is_first=self.count == 1, spare=spare)
        return bool(stage.reason)

    def around(self, step: int, arguments: Any = ()) -> AbstractContextManager[None]:
        """Before a step of a loop of the user's: the context to run it in, decided as by ``look``.

        Args:
            step: Its ``step``.
            arguments: The batch, if it is known.
        """
        # In a loop there may be other iterators by the time of a later step.
        self._ahead = 1
        if not self._stages or self._only_prepares():
            return nullcontext()
        stage = self._decide(step, 1)
        if not stage.reason and self.count > 1:
            return nullcontext()
        return self._tracer.around(stage.name, stage.reason, arguments=arguments)

    def new_functions(self, within: Callable[[], bool]) -> AbstractContextManager[None]:
        """A context in which functions that are traced are noted whenever that is, while ``within`` says so."""
        return self._tracer.new_functions(within)

    def around_function(self) -> AbstractContextManager[None]:
        """A context for a function that is traced outside of all steps, and its first call."""
        return self._tracer.around(self._stages[-1].name if self._stages else "train", "")

    def _is_shown(self, stage: _Stage, model: Any, step: int, executed: int, arguments: Any, frame: FrameType) -> bool:
        """Whether what other fits had traced is shown in place of this step, which is about to run."""
        self._tracer.fit = stage.fit
        if stage.fit is not None or stage.single or self._wanted != "auto":
            return False
        with self._faults.guard("trace", "The step is traced."), TRACED.taken():
            layers = layer_paths(model)
            kind = fit_kind(model, layers, stage.name, arguments, frame)
            if kind is None:
                return False
            # With several models, paths begin with the models' names: none of them is another recording's.
            alone = self._recording if len(self.watched.models) > 1 else None
            key = kind, len(self._stages) > 1, alone
            stage.fit = self._tracer.fit = TRACED.begin(key, [layer.path for layer in layers], self._recording)
        if stage.fit is None or not stage.fit.reuses:
            return False
        stage.schedule.show_others()
        stage.reason = ""
        self._await(stage.schedule.next_look(self.count, step, executed))
        return True

    def _judge(self, stage: _Stage, executed: int) -> None:
        """See whether the steps so far are like those that are to be shown, if that is the case, and was not seen yet.

        Args:
            stage: Theirs.
            executed: How many of them there were.
        """
        # The first one made the functions, and a stage within has left rows of its own.
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

    def _tell_untraced(self, stage: _Stage) -> None:
        if stage.differs and not stage.schedule.traced:
            error = FitDiffersError(f"the peak was {stage.differs} than in the fits whose steps were to be shown")
            self._faults.remark("trace", error, "It ended untraced. Name the steps to trace: trace=[2, 10].")

    def _decide(self, step: int, executed: int) -> _Stage:
        stage = self._stages[-1]
        if self.count >= stage.schedule.judged_at:
            self._judge(stage, self.count - 1)
        if self._tracer.captures.busy and stage.reason:
            stage.schedule.yielded(stage.reason)
        self._tracer.captures.busy = False
        stage.reason = stage.schedule.reason(self.count, step, executed, self._peaks)
        # After a traced one at once, as it may have had to give way.
        self._await(self.count + 1 if stage.reason else stage.schedule.next_look(self.count, step, executed))
        if not stage.reason and (self._due - self.count > _SOON or not stage.schedule.plans(self._due)):
            self._tracer.captures.look_away()
        # The first execution makes the functions, and so many objects that what is prepared before it is out of date.
        if self._due == self.count + 1 and self.count > 1 and not stage.reason:
            self._prepare()
        return stage

    def _await(self, due: int) -> None:
        """Decide before an execution, and prepare a few before."""
        self._due = due
        self.look_at = max(self.count + 1, due - self._ahead)

    def _only_prepares(self) -> bool:
        """Whether the decision is due before a later execution only; if so, prepare for it."""
        if self.count >= self._due:
            return False
        self._prepare()
        self.look_at = self._due
        return True

    def _prepare(self) -> None:
        stage = self._stages[-1]
        # Between two single batches anything may happen.
        if not stage.single and stage.schedule.plans(self._due):
            self._tracer.captures.look_around()

    def batch_ended(self, step: int, epoch: int | None) -> bool:
        """The execution that was traced has ended, and its row is written; whether there is a step to analyse."""
        if self._stages and (fit := self._stages[-1].fit) is not None:
            fit.run = self._run_name()
        return self._tracer.batch_ended(step, epoch)

    @property
    def analyse(self) -> Callable[[], list[TracedStep]]:
        """What analyses the captured steps, in milliseconds to seconds. It holds neither this object nor a recorder."""
        return self._tracer.captures.finished

    def _keep(self) -> None:
        if self._stages:
            self._stages[-1].count, self._stages[-1].due = self.count, self._due
