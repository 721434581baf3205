"""When to trace and what becomes of it: between the callback, the schedule, the tracer and the recorder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.attribution import other_fits
from kerasmemwatch.attribution.inventory import is_model
from kerasmemwatch.attribution.step_tracer import StepTracer
from kerasmemwatch.attribution.watched import Watched
from kerasmemwatch.faults import Faults
from kerasmemwatch.timeline import TracedStep
from kerasmemwatch.trace_schedule import Peaks, TraceSchedule

__all__ = ["AHEAD", "Tracing"]

# What is done once before a traced step empties the processor's caches: so many executions later they are full again.
AHEAD = 3
# What is alive is followed that long, rather than looked for once more.
_SOON = 16


@dataclass
class _Stage:
    name: str
    schedule: TraceSchedule
    single: bool
    count: int = 0
    due: int = 1
    reason: str = ""


class Tracing:
    """Traces the steps of one watch.

    Args:
        wanted: ``"auto"`` or the steps to trace.
        faults: Where faults are reported.
        peaks: Returns the newest peaks, as ``TraceSchedule.reason`` wants them.

    Attributes:
        count: How many executions of the innermost stage have begun.
        look_at: The execution before which ``look`` is to be called.
        watched: The models.
    """

    def __init__(self, wanted: str | Collection[int], faults: Faults, peaks: Callable[[], Peaks]) -> None:
        self.count, self.look_at, self._due = 0, 1, 1
        self._wanted, self._faults, self._peaks = wanted, faults, peaks
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
        self.count = begun.count
        self._await(begun.due)

    def end(self, stage: str | None = None) -> None:
        """The innermost stage ends, or the named one with all that was begun within it."""
        self._tracer.interrupt()
        self._keep()
        if stage is None:
            del self._stages[-1:]
        elif any(outer.name == stage for outer in self._stages):
            while self._stages.pop().name != stage:
                pass
        if not self._stages:
            other_fits.end(self._tracer)
        else:
            # The steps within it have moved the counter that a list of steps goes by.
            self.count = self._stages[-1].count
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
            self._tracer.arm(model, stage.name, reason=stage.reason, is_first=self.count == 1)
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

    def _decide(self, step: int, executed: int) -> _Stage:
        stage = self._stages[-1]
        if self._tracer.busy and stage.reason:
            stage.schedule.yielded(stage.reason)
        self._tracer.busy = False
        stage.reason = stage.schedule.reason(self.count, step, executed, self._peaks)
        # After a traced one at once, as it may have had to give way.
        self._await(self.count + 1 if stage.reason else stage.schedule.next_look(self.count, step, executed))
        if not stage.reason and (self._due - self.count > _SOON or not stage.schedule.plans(self._due)):
            self._tracer.look_away()
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
            self._tracer.look_around()

    def batch_ended(self, step: int, epoch: int | None) -> bool:
        """The execution that was traced has ended, and its row is written; whether there is a step to analyse."""
        return self._tracer.batch_ended(step, epoch)

    @property
    def analyse(self) -> Callable[[], list[TracedStep]]:
        """What analyses the captured steps, in milliseconds to seconds. It holds neither this object nor a recorder."""
        return self._tracer.finished

    def _keep(self) -> None:
        if self._stages:
            self._stages[-1].count, self._stages[-1].due = self.count, self._due
