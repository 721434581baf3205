"""Tracer of chosen steps: wraps one call of the model's step function with the hooks and the capture.

Nothing stays behind: the wrapper removes itself before it calls the function. Callers run the analysis later, off the
step's path.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import FrameType
from typing import Any

from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.events.profiler_capture import Capture, ProfilerBusyError
from kerasmemwatch.attribution.hooks.armed_step import ArmedStep
from kerasmemwatch.attribution.hooks.layer_hooks import LayerHooks, execution_mode, makes_function
from kerasmemwatch.attribution.hooks.other_fits import elsewhere, other_threads
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.live.batch_spec import batch_parts, eager_tensors, fixed_rows
from kerasmemwatch.attribution.live.tensor_places import tensor_place
from kerasmemwatch.attribution.variables.watched import Watched
from kerasmemwatch.faults import Faults
from kerasmemwatch.tracing.captures import Captures
from kerasmemwatch.tracing.schedule import ASKED_FOR
from kerasmemwatch.tracing.traced_before import TRACED, Fit

__all__ = ["StepTracer"]


class StepTracer:
    """Traces steps of one model's fit, evaluate or predict."""

    def __init__(self, watched: Watched, faults: Faults) -> None:
        self._missed = self._spared = False
        self.stack = OwnerStack()  # state that the hooks maintain
        self.captures = Captures(watched, self.stack, faults)  # captures that wait for analysis
        self.fit: Fit | None = None  # the current fit's entry among equivalent fits
        self._watched, self._faults = watched, faults
        self._armed = ArmedStep()
        self._open: CapturedStep | None = None

    def arm(
        self,
        model: Any,
        stage: str,
        *,
        reason: str = "",
        is_first: bool = False,
        spare: Callable[[Any, FrameType], bool] | None = None,
    ) -> None:
        """Wrap the next step-function call with hooks; capture it if ``reason`` is set.

        Args:
            reason: Why to capture it; ``""`` to note only the operations of its functions.
            spare: Given the function's arguments and the calling Python frame, returns whether to do neither.
        """
        self.disarm()

        def is_spared(args: tuple[Any, ...], frame: FrameType) -> bool:
            spared = spare is not None and spare(args, frame)
            self._spared |= spared and is_first
            return spared

        around = lambda args: self.around(stage, reason, model, args, is_first=is_first)  # noqa: E731
        self._armed.arm(model, stage, around, is_spared)

    def around(
        self, stage: str, reason: str, model: Any = None, arguments: Any = (), *, is_first: bool = True
    ) -> AbstractContextManager[None]:
        """Return a context that runs one step with hooks, and captures it if ``reason`` is set.

        A step that only calls an existing function runs without hooks, unless another function is made after all.

        Args:
            model: The model that runs it; ``None`` in a user's own loop, where models are discovered.
        """
        return TRACED.around(self._around(stage, reason, model, arguments, is_first=is_first))

    @contextmanager
    def _around(self, stage: str, reason: str, model: Any, arguments: Any, *, is_first: bool) -> Iterator[None]:
        with ExitStack() as exits:
            if not self.captures.claim(exits):
                self.captures.busy = bool(reason)
                self._missed |= is_first
                if reason == ASKED_FOR:
                    self.captures.give_way(ProfilerBusyError("another watch traced a step at the same time"))
                yield
                return
            capture = captured = None
            others = other_threads(self)
            self.stack.foreign = elsewhere(self)
            with self._faults.guard("trace", "This step is not traced."):
                mode = "" if model is None else execution_mode(model)
                if reason:
                    parts, rows = batch_parts(arguments), fixed_rows(arguments)
                    captured = CapturedStep(stage, mode, reason, parts, is_first=is_first, rows=rows)
                install = functools.partial(self._install, exits, stage, model, captured)
                if captured is None or is_first or mode not in ("graph", "xla") or makes_function(model, stage):
                    install()
                else:
                    self.stack.begin(stage)
                    self._install_before_functions(exits, install)
                if captured is None:
                    exits.enter_context(self.captures.first_calls.captured())
                else:
                    capture = self._capture(captured, arguments, exits, is_fit=model is not None)
                    self.stack.arguments |= {tensor_place(each).address for each in eager_tensors(arguments)}
            yield
            if capture is not None and captured is not None:
                with self._faults.guard("trace", "This step is not traced."):
                    is_whole = self.captures.end(captured, capture)
                    captured.calls, captured.arguments = self.stack.calls, self.stack.arguments
                    captured.beside, captured.missed = bool(others | other_threads(self)), self._missed
                    captured.spared, captured.fit = self._spared, self.fit
                    self._open = captured if is_whole else None

    @contextmanager
    def new_functions(self, within: Callable[[], bool]) -> Iterator[None]:
        """Note the operations of functions traced within this context, even in steps without hooks.

        Args:
            within: Returns whether a step is in progress.
        """

        def around() -> AbstractContextManager[None]:
            self.captures.first_calls.in_step = wanted = within() and self.captures.is_free
            return self.around(self.stack.stage, "") if wanted else nullcontext()

        with ExitStack() as exits:
            with self._faults.guard("trace", "Functions made in later steps are distinguished only by their names."):
                from kerasmemwatch.attribution.hooks.tensorflow_hooks import traced_functions

                exits.enter_context(traced_functions(around))
            yield

    def interrupt(self) -> None:
        """Discard what was prepared for the next step, because another stage begins or ends."""
        self.disarm()
        self.captures.look_away()

    def disarm(self) -> None:
        """Remove the wrapper if it is still there, and drop a captured step whose batch did not end."""
        self._open = None
        self._armed.disarm()

    def batch_ended(self, step: int, epoch: int | None) -> bool:
        """Complete a captured step once its row is written; return whether there is a step to analyse."""
        captured, self._open = self._open, None
        if captured is None:
            return False
        with TRACED.taken(), self._faults.guard("trace", "This step's memory is not attributed."):
            captured.step, captured.epoch = step, epoch
            self.captures.complete(captured)
            return True
        return False

    # -- inside ------------------------------------------------------------------------------------------------

    def _install(self, exits: ExitStack, stage: str, model: Any, captured: CapturedStep | None) -> None:
        """Install the hooks until the step ends."""
        hooks = LayerHooks(self.stack, self._watched, discover=model is None)
        self.stack.begin(stage, hooks.own_code(model, stage))
        exits.enter_context(hooks.installed())
        if captured is not None:
            captured.layers = hooks.classes

    def _install_before_functions(self, exits: ExitStack, install: Callable[[], None]) -> None:
        """Install the hooks as soon as a function is made, if one is."""
        wanted = [install]

        def around() -> AbstractContextManager[None]:
            with self._faults.guard("trace", "A function is recognised only by its operations' names."):
                while wanted:
                    wanted.pop()()
            return nullcontext()

        try:
            from kerasmemwatch.attribution.hooks.tensorflow_hooks import traced_functions

            exits.enter_context(traced_functions(around))
        except (ImportError, AttributeError):  # another TensorFlow
            around()

    def _capture(self, captured: CapturedStep, arguments: Any, exits: ExitStack, *, is_fit: bool) -> Capture | None:
        capture = self.captures.begin(captured, arguments, exits, is_fit=is_fit)
        if capture is None:
            return None
        captured.log = exits.enter_context(self.stack.timing())
        captured.gradients = self.stack.eager_gradients = []
        if captured.mode in ("eager", ""):
            from kerasmemwatch.attribution.hooks.tensorflow_hooks import eager_owners

            exits.enter_context(eager_owners(self.stack))
        return capture
