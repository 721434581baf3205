"""Traces chosen steps: puts the hooks and the capture around one call of the model's step function.

Nothing stays behind: the wrapper takes itself out before it runs what it wraps, and the analysis is somebody else's to
call, off the step's path.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import FrameType
from typing import Any

from kerasmemwatch.attribution import silent_allocators
from kerasmemwatch.attribution.batch_parts import batch_parts, eager_tensors
from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.earlier_models import unwatched_buffers
from kerasmemwatch.attribution.first_calls import FirstCalls
from kerasmemwatch.attribution.kept_tapes import KEPT_TAPES, kept_bytes
from kerasmemwatch.attribution.known_buffers import (
    EARLIER_MODELS,
    as_input,
    tensor_kind,
    variable_addresses,
    variable_buffers,
)
from kerasmemwatch.attribution.layer_hooks import LayerHooks, execution_mode, makes_function
from kerasmemwatch.attribution.live_objects import Census
from kerasmemwatch.attribution.other_fits import other_threads
from kerasmemwatch.attribution.owner_stack import INPUT_PIPELINE, OwnerStack
from kerasmemwatch.attribution.patches import unseen
from kerasmemwatch.attribution.stack_room import with_room
from kerasmemwatch.attribution.step_analysis import Learned, analysed
from kerasmemwatch.attribution.tensor_places import tensor_place
from kerasmemwatch.attribution.trace_capture import Capture, ProfilerBusyError, ProfilerUnsafeError
from kerasmemwatch.attribution.variable_sightings import variable_sightings
from kerasmemwatch.attribution.waiting_batches import not_repeated, waiting_bytes
from kerasmemwatch.attribution.watched import Watched
from kerasmemwatch.faults import Faults
from kerasmemwatch.timeline import TracedStep
from kerasmemwatch.trace_schedule import ASKED_FOR
from kerasmemwatch.traced_before import TRACED, Fit

__all__ = ["StepTracer"]

_FUNCTIONS = {"train": "train_function", "test": "test_function", "predict": "predict_function"}
# By process, the tracer whose hooks are in place. They are in classes and modules, so there is one at a time.
_hooking: dict[int, StepTracer] = {}


class StepTracer:
    """Traces steps of one model's fit, evaluate or predict.

    Args:
        watched: The watched models.
        faults: Where faults are reported.

    Attributes:
        busy: Whether a step could not be captured, as somebody else's profiler was active.
        stack: What the hooks tell.
        fit: The fit that is under way, among others of its kind.
    """

    def __init__(self, watched: Watched, faults: Faults) -> None:
        self.busy = self._missed = self._spared = False
        self.stack = OwnerStack()
        self.fit: Fit | None = None
        self._watched, self._faults = watched, faults
        self._armed: tuple[Any, str, Any, Any] | None = None
        self._open: CapturedStep | None = None
        self._census: Census | None = None
        self._waiting: deque[CapturedStep] = deque()
        self._learned, self._first_calls = Learned(), FirstCalls(self.stack, faults)

    def arm(
        self,
        model: Any,
        stage: str,
        *,
        reason: str = "",
        is_first: bool = False,
        spare: Callable[[Any, FrameType], bool] | None = None,
    ) -> None:
        """Have the next call of the model's step function run with the hooks, and captured if there is a reason.

        Args:
            model: The model that runs it.
            stage: ``"train"``, ``"test"`` or ``"predict"``.
            reason: Why to capture it, ``""`` to note only what its functions are made of.
            is_first: Whether it may be the step that makes the functions.
            spare: Says, of what the function is called with and the frame that calls it, whether to do neither.
        """
        self.disarm()
        name = _FUNCTIONS[stage]
        original = getattr(model, name, None)
        if original is None:
            return

        def once(*args: Any, **kwargs: Any) -> Any:
            with unseen:
                if self._armed is None or self._armed[2] is not once:
                    # Another watch's wrapper, by now removed, was around this one when this was to be.
                    if getattr(model, name, None) is once:
                        setattr(model, name, original)
                    return original(*args, **kwargs)
                self.disarm()
                if spare is not None and spare(args, sys._getframe(1)):
                    self._spared |= is_first
                    return original(*args, **kwargs)
                with self.around(stage, reason, model, args, is_first=is_first):
                    return with_room(original, args, kwargs)

        setattr(model, name, once)
        self._armed = (model, name, once, original)

    def look_around(self) -> None:
        """A step will soon be captured: see now what is alive, as that empties the processor's caches."""
        with TRACED.taken(), self._faults.guard("trace", "The step is traced nevertheless."):
            if self._census is None or not self._census.is_current:
                self._census = Census(tensor_kind)

    def look_away(self) -> None:
        """No step will be captured soon."""
        self._census = None

    def around(
        self, stage: str, reason: str, model: Any = None, arguments: Any = (), *, is_first: bool = True
    ) -> AbstractContextManager[None]:
        """Run one step with the hooks, and capture it if there is a reason.

        A step that only calls a function which is made already runs without hooks, unless another is made after all.

        Args:
            stage: ``"train"``, ``"test"`` or ``"predict"``.
            reason: Why to capture it, ``""`` to note only what its functions are made of.
            model: The model that runs it; ``None`` in a loop of the user's, in which models are then discovered.
            arguments: What its function is called with.
            is_first: Whether it may be the step that makes the functions.
        """
        return TRACED.around(self._around(stage, reason, model, arguments, is_first=is_first))

    @contextmanager
    def _around(self, stage: str, reason: str, model: Any, arguments: Any, *, is_first: bool) -> Iterator[None]:
        pid = os.getpid()
        if _hooking.setdefault(pid, self) is not self:
            self.busy = bool(reason)
            self._missed |= is_first
            if reason == ASKED_FOR:
                self._yield(ProfilerBusyError("another watch traced a step at the same time"))
            yield
            return
        with ExitStack() as exits:
            exits.callback(_hooking.pop, pid)
            capture = captured = None
            others = other_threads(self)
            self.stack.foreign = lambda: threading.get_ident() in others
            with self._faults.guard("trace", "This step is not traced."):
                mode = "" if model is None else execution_mode(model)
                if reason:
                    captured = CapturedStep(stage, mode, reason, batch_parts(arguments))
                install = functools.partial(self._install, exits, stage, model, captured)
                if captured is None or is_first or mode not in ("graph", "xla") or makes_function(model, stage):
                    install()
                else:
                    self.stack.begin(stage)
                    self._install_before_functions(exits, install)
                if captured is None:
                    exits.enter_context(self._first_calls.captured())
                else:
                    iterators = self._iterators(arguments, is_fit=model is not None)
                    captured.before = variable_addresses(self._watched.ledger(), mode)
                    # Last of all, as pipelines go on filling their buffers.
                    captured.held = {KEPT_TAPES: kept_bytes(), INPUT_PIPELINE: waiting_bytes(iterators)}
                    capture = self._capture(captured, exits)
                    self.stack.arguments |= {tensor_place(each).address for each in eager_tensors(arguments)}
            yield
            if capture is not None and captured is not None:
                with self._faults.guard("trace", "This step is not traced."):
                    captured.space = capture.stop() or b""
                    captured.calls, captured.arguments = self.stack.calls, self.stack.arguments
                    captured.beside, captured.missed = bool(others | other_threads(self)), self._missed
                    captured.spared, captured.fit = self._spared, self.fit
                    self._open = captured if captured.space else None
                    if capture.preempted:
                        self._yield(ProfilerBusyError("another profiler session began within the step"))

    @contextmanager
    def new_functions(self, within: Callable[[], bool]) -> Iterator[None]:
        """Note the operations of functions that are traced in here, also in steps that have no hooks.

        Args:
            within: Says whether a step is under way.
        """

        def around() -> AbstractContextManager[None]:
            self._first_calls.in_step = wanted = within() and os.getpid() not in _hooking
            return self.around(self.stack.stage, "") if wanted else nullcontext()

        with ExitStack() as exits:
            with self._faults.guard("trace", "Functions made in later steps are told apart by their names only."):
                from kerasmemwatch.attribution.tensorflow_hooks import traced_functions

                exits.enter_context(traced_functions(around))
            yield

    def interrupt(self) -> None:
        """What was prepared for the next step is not for it any more, as another stage begins or ends."""
        self.disarm()
        self.look_away()

    def disarm(self) -> None:
        """Take the wrapper out, if it is still there, and drop a captured step whose batch did not end."""
        armed, self._armed, self._open = self._armed, None, None
        if armed is not None:
            model, name, once, original = armed
            if getattr(model, name, None) is once:
                setattr(model, name, original)

    def batch_ended(self, step: int, epoch: int | None) -> bool:
        """A batch was recorded: look at what is alive, if it was captured; whether it is to be analysed."""
        captured, self._open = self._open, None
        if captured is None:
            return False
        census = self._census
        with TRACED.taken(), self._faults.guard("trace", "This step's memory is not attributed."):
            captured.step, captured.epoch = step, epoch
            captured.layers = captured.layers or LayerHooks(self.stack, self._watched).classes
            self._watched.add_variables(self.stack.differentiated())
            captured.optimizers = tuple(str(optimizer.name) for optimizer in self._watched.optimizers())
            captured.known = variable_buffers(self._watched.ledger(), captured.before, captured.mode)
            keys = {buffer.key for buffer in captured.known} - {0}
            alive = None if census is None else census.again()
            others = unwatched_buffers(alive, keys)
            captured.held[EARLIER_MODELS] = others.constant_bytes
            sources = [buffer.bytes for buffer in others.buffers if buffer.category == "inputs"]
            captured.held[INPUT_PIPELINE] = not_repeated(captured.held[INPUT_PIPELINE], sources, captured.batch)
            captured.known += [
                as_input(buffer) if buffer.address in captured.arguments else buffer for buffer in others.buffers
            ]
            if captured.fit is not None:
                captured.fit.expect()
            self._waiting.append(captured)
            return True
        return False

    def finished(self) -> list[TracedStep]:
        """Analyse what was captured: in any thread, one at a time, while other steps run with hooks."""
        found = []
        while self._waiting:
            captured = self._waiting[0]
            step = None
            with TRACED.taken(), self._faults.guard("trace", "This step's memory is not attributed."):
                step = analysed(captured, self.stack, self._learned, self._first_calls.kept())
                if step is not None:
                    found.append(step)
                else:
                    silent_allocators.remark(self._faults, captured.known)
            fit, captured.fit = captured.fit, None
            if fit is not None:
                with TRACED.taken(), self._faults.guard("trace", "Fits that are alike are traced, too."):
                    fit.add(step)
            self._waiting.popleft()  # not after an interrupt of the user's: then another call has it
        return found

    # -- inside ------------------------------------------------------------------------------------------------

    def _install(self, exits: ExitStack, stage: str, model: Any, captured: CapturedStep | None) -> None:
        """Put the hooks in place, until the step ends."""
        hooks = LayerHooks(self.stack, self._watched, discover=model is None)
        self.stack.begin(stage, hooks.own_code(model, stage))
        exits.enter_context(hooks.installed())
        if captured is not None:
            captured.layers = hooks.classes

    def _install_before_functions(self, exits: ExitStack, install: Callable[[], None]) -> None:
        """Put the hooks in place as soon as a function is made, if one is."""
        wanted = [install]

        def around() -> AbstractContextManager[None]:
            with self._faults.guard("trace", "A function is told apart by its operations' names only."):
                while wanted:
                    wanted.pop()()
            return nullcontext()

        try:
            from kerasmemwatch.attribution.tensorflow_hooks import traced_functions

            exits.enter_context(traced_functions(around))
        except (ImportError, AttributeError):  # another TensorFlow
            around()

    def _capture(self, captured: CapturedStep, exits: ExitStack) -> Capture | None:
        capture = Capture()
        try:
            capture.start()
        except ProfilerBusyError as error:
            self._yield(error)
            return None
        except ProfilerUnsafeError as error:
            self._faults.remark("trace", error, "No step is traced: trace one with a worker by itself.")
            return None
        exits.callback(capture.discard)
        captured.begun_ns = time.time_ns()
        captured.log = exits.enter_context(self.stack.timing())
        captured.gradients = self.stack.eager_gradients = []
        captured.sightings = exits.enter_context(variable_sightings(captured.before, self._watched, self._faults))
        if captured.mode in ("eager", ""):
            from kerasmemwatch.attribution.tensorflow_hooks import eager_owners

            exits.enter_context(eager_owners(self.stack))
        return capture

    def _iterators(self, arguments: Iterable[Any], *, is_fit: bool) -> Iterable[Any]:
        """What may have batches waiting as a step begins; looks as little as it can, for the sake of the caches."""
        census = self._census
        if census is None:
            self._census = census = Census(tensor_kind)
        # In a fit whatever is new is what its function is called with.
        new = arguments if is_fit else census.young()["iterator"]
        found = [*census.left("iterator"), *(each for each in new if tensor_kind(type(each)) == "iterator")]
        return {id(each): each for each in found}.values()

    def _yield(self, error: ProfilerBusyError) -> None:
        self.busy = True
        self._faults.remark("profiler", error, "That step was not traced; where the choice is ours, a later one is.")
