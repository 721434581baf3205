"""Hooks into TensorFlow for the owners of gradients: of tapes, gradient functions and custom gradients."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from kerasmemwatch.attribution.hooks.graph_registry import weak_reference
from kerasmemwatch.attribution.hooks.in_place import same_buffer
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.hooks.patching import leave_out, patched, replaced, unseen
from kerasmemwatch.attribution.live.tensor_places import host_address
from kerasmemwatch.compat.tensorflow import (
    FAST_EXECUTE,
    GRADIENT_FUNCTION,
    NO_TAPE_RECORDS,
    RECORD_GRADIENT,
    RECORD_OPERATIONS,
    REGISTER_GRADIENT_FUNCTION,
)
from kerasmemwatch.records.owners import Frame

__all__ = ["custom_gradients", "gradient_functions", "recorded_operations", "tape_gradients"]

_BACKWARD = Frame("", "", "backward")
# Some 100 bytes each, per kind of operation and layer.
_MAX_MARKS = 1 << 12


class _OpType(str):
    """The type of an operation, with the owner of its gradient.

    TensorFlow records this very object with the operation, and passes it to the gradient function. A tape that is used
    after the hooks are removed finds a string.
    """

    __slots__ = ("backward",)

    backward: Frame


@functools.lru_cache(_MAX_MARKS)
def _marked(op_type: Any, frame: Frame) -> Any:
    """Return an operation's type marked with its owner; equal arguments give the same object."""
    if not isinstance(op_type, str):
        return op_type
    found = _OpType(op_type)
    found.backward = Frame(frame.owner, frame.class_name, "backward")
    return found


@contextmanager
def recorded_operations(stack: OwnerStack) -> Iterator[None]:
    """Mark eager operations, which TensorFlow records for their gradients in C++."""
    fast, nothing_records = FAST_EXECUTE.get(), NO_TAPE_RECORDS.get()

    def execute(context: Any, op_type: Any, *args: Any) -> Any:
        try:
            # As a rule, no tape records the backward pass and the update.
            return fast(context, op_type if nothing_records() else _marked(op_type, stack.top), *args)
        except BaseException as error:
            leave_out(error)
            raise

    with replaced(FAST_EXECUTE, execute):
        yield


@contextmanager
def custom_gradients(stack: OwnerStack) -> Iterator[None]:
    """Give a function's own gradient to the function's caller: it owns what the gradient makes."""

    def hook(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def hooked(
            op_type: Any, output_tensors: Any, input_tensors: Any, backward_function: Any, *args: Any, **kwargs: Any
        ) -> Any:
            frame = stack.top._replace(phase="backward")

            @functools.wraps(backward_function)
            def backward(*grads: Any, **options: Any) -> Any:
                stack.push(frame)
                try:
                    with unseen:
                        return backward_function(*grads, **options)
                finally:
                    stack.pop()

            with unseen:
                return original(op_type, output_tensors, input_tensors, backward, *args, **kwargs)

        return hooked

    with ExitStack() as exits:
        for name in RECORD_OPERATIONS:
            exits.enter_context(replaced(name, hook(name.get())))
        yield


@contextmanager
def gradient_functions(stack: OwnerStack) -> Iterator[None]:
    """Pass each operation's owner to its gradient function, in the operation's type."""
    original, record, register = GRADIENT_FUNCTION.get(), RECORD_GRADIENT.get(), REGISTER_GRADIENT_FUNCTION.get()
    _expect(original, 8, "forward_pass_name_scope")
    _expect(record, 4, "outputs")

    def recorded(op_type: Any, *args: Any) -> None:
        record(_marked(op_type, stack.top), *args)

    def differentiate(op_type: Any, *args: Any) -> Any:
        if type(op_type) is not _OpType:
            with unseen:
                return original(op_type, *args)
        stack.push(op_type.backward)
        try:
            return original(op_type, *args)
        except BaseException as error:
            leave_out(error)
            raise
        finally:
            stack.pop()

    register(differentiate)
    try:
        with replaced(RECORD_GRADIENT, recorded):
            yield
    finally:
        register(original)


def _expect(function: Callable[..., Any], count: int, last: str) -> None:
    """Raise a ``TypeError`` if a private function's arguments have changed."""
    names = list(inspect.signature(function).parameters)
    if len(names) != count or names[-1] != last:
        raise TypeError(f"{function.__name__} takes {', '.join(names)}")


@contextmanager
def tape_gradients(stack: OwnerStack) -> Iterator[None]:
    """Hook tapes, whose gradient computations are the backward pass."""
    from tensorflow import GradientTape

    nothing_records = NO_TAPE_RECORDS.get()

    def hook(original: Callable[..., Any], *, notes: bool) -> Callable[..., Any]:
        @functools.wraps(original)
        def hooked(self: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
            stack.push(_BACKWARD)
            try:
                with unseen:
                    gradients = original(self, target, sources, *args, **kwargs)
            finally:
                stack.pop()
            if notes and not stack.foreign():
                _note_gradients(stack, sources, gradients)
            if nothing_records():
                stack.differentiated_all()
            return gradients

        return hooked

    enter = GradientTape.__enter__

    @functools.wraps(enter)
    def entered(self: Any) -> Any:
        stack.leave_input()
        with unseen:
            return enter(self)

    with ExitStack() as exits:
        exits.enter_context(patched(GradientTape, "__enter__", entered))
        for name in ("gradient", "jacobian", "batch_jacobian"):
            hooked = hook(getattr(GradientTape, name), notes=name == "gradient")
            exits.enter_context(patched(GradientTape, name, hooked))
        yield


def _note_gradients(stack: OwnerStack, sources: Any, gradients: Any) -> None:
    if not isinstance(sources, (list, tuple)) or not isinstance(gradients, (list, tuple)):
        sources, gradients = [sources], [gradients]
    for source, gradient in zip(sources, gradients, strict=False):
        tensor = getattr(gradient, "values", gradient)  # for IndexedSlices
        operation = _operation(tensor)
        if operation is not None:
            graph = stack.graph(operation.graph)
            sparse = tensor is not gradient
            graph.gradients[tensor.name] = (weak_reference(source), sparse, same_buffer(operation, graph.ops))
        elif stack.is_timing and tensor is not None:
            stack.eager_gradients.append((weak_reference(source), host_address(tensor), time.time_ns()))


def _operation(tensor: Any) -> Any:
    """Return the operation that a symbolic tensor comes from; ``None`` for an eager one."""
    try:
        return tensor.op
    except AttributeError:
        return None
