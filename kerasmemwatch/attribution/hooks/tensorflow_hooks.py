"""Hooks into TensorFlow: which operation is made by whom, and whose gradient is computed.

Most of these interfaces are private. One that is missing is left out, and what follows from that is noted.
"""

from __future__ import annotations

import functools
import inspect
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from kerasmemwatch.attribution.hooks.error_stacks import left_out_of_stacks
from kerasmemwatch.attribution.hooks.graph_registry import Reference
from kerasmemwatch.attribution.hooks.in_place import same_buffer
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.hooks.patching import leave_out, patched, replaced, unseen
from kerasmemwatch.attribution.hooks.rewritten_calls import rewritten_calls
from kerasmemwatch.attribution.live.tensor_places import captured_handle, host_address, note_scatter
from kerasmemwatch.compat.names import Name
from kerasmemwatch.compat.tensorflow import (
    CALL_FUNCTION,
    CREATE_FUNCTION,
    CREATE_OPERATION,
    FAST_EXECUTE,
    FILTER_STACK,
    GRADIENT_FUNCTION,
    MERGE_CALL,
    NO_TAPE_RECORDS,
    RECORD_GRADIENT,
    RECORD_OPERATIONS,
    REGISTER_GRADIENT_FUNCTION,
    SET_FUNCTION_ATTRIBUTE,
)
from kerasmemwatch.errors import MissingNameError
from kerasmemwatch.records.owners import Frame

__all__ = ["eager_owners", "tensorflow_hooks", "traced_functions"]

_BACKWARD = Frame("", "", "backward")
_UNEXPECTED = "This TensorFlow is not as expected"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Some 100 bytes each: kinds of operations times layers that make them.
_MOST_MARKS = 1 << 12


@contextmanager
def tensorflow_hooks(stack: OwnerStack) -> Iterator[None]:
    """Note who makes the operations of graphs, and tell whose gradients are computed."""
    hooks: tuple[tuple[Callable[[OwnerStack], AbstractContextManager[None]], Name], ...] = (
        (_made_operations, CREATE_OPERATION),
        (rewritten_calls, SET_FUNCTION_ATTRIBUTE),
        (_own_gradients, RECORD_OPERATIONS[0]),
        (_gradient_functions, GRADIENT_FUNCTION),
        (_tapes, NO_TAPE_RECORDS),
        (_merged_calls, MERGE_CALL),
        (left_out_of_stacks, FILTER_STACK),
    )
    with ExitStack() as exits:
        for hook, name in hooks:
            _install(exits, hook(stack), stack, name)
        yield


@contextmanager
def eager_owners(stack: OwnerStack) -> Iterator[None]:
    """Have the owner of each eager operation noted for its gradient.

    This costs time, so only while a step is captured.
    """
    with ExitStack() as exits:
        _install(exits, _recorded_operations(stack), stack, FAST_EXECUTE)
        _install(exits, _calls(stack), stack, CALL_FUNCTION)
        yield


@contextmanager
def traced_functions(around: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Run each tracing of a function within a context; calls of functions that are traced cost nothing.

    Raises:
        MissingNameError: If this TensorFlow traces functions in another way.
    """
    original = CREATE_FUNCTION.get()

    @functools.wraps(original)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        with unseen, around():
            return original(*args, **kwargs)

    with replaced(CREATE_FUNCTION, hooked):
        yield


def _install(exits: ExitStack, hook: AbstractContextManager[None], stack: OwnerStack, name: Name) -> None:
    try:
        exits.enter_context(hook)
    except MissingNameError as error:
        stack.missing[error.full_name] = f"{_UNEXPECTED}: {error}. {error.lost}"
    except (AttributeError, TypeError) as error:
        stack.missing[name.lost] = f"{_UNEXPECTED}: {error}. {name.lost}"


class _OpType(str):
    """The type of an operation, with who is at work when its gradient is computed.

    TensorFlow records this very object with the operation and hands it to the gradient function. A tape that is used
    when the hooks are gone finds a string.
    """

    __slots__ = ("backward",)

    backward: Frame


@functools.lru_cache(_MOST_MARKS)
def _marked(op_type: Any, frame: Frame) -> Any:
    """A type of operation with whoever made it; the same object for the same two."""
    if not isinstance(op_type, str):
        return op_type
    found = _OpType(op_type)
    found.backward = Frame(frame.owner, frame.class_name, "backward")
    return found


@contextmanager
def _recorded_operations(stack: OwnerStack) -> Iterator[None]:
    """Eager operations, which TensorFlow records for their gradients in C++."""
    fast, nothing_records = FAST_EXECUTE.get(), NO_TAPE_RECORDS.get()

    def execute(context: Any, op_type: Any, *args: Any) -> Any:
        try:
            # Nothing records the backward pass, as a rule, and the update.
            return fast(context, op_type if nothing_records() else _marked(op_type, stack.top), *args)
        except BaseException as error:
            leave_out(error)
            raise

    with replaced(FAST_EXECUTE, execute):
        yield


@contextmanager
def _calls(stack: OwnerStack) -> Iterator[None]:
    """Note when functions run that eager code calls, and what they are called with."""
    original = CALL_FUNCTION.get()

    @functools.wraps(original)
    def hooked(self: Any, name: Any, tensor_inputs: Any, *args: Any, **kwargs: Any) -> Any:
        stack.arguments |= set(map(host_address, tensor_inputs))
        begun_ns = time.time_ns()
        try:
            with unseen:
                return original(self, name, tensor_inputs, *args, **kwargs)
        finally:
            stack.called(begun_ns, time.time_ns())

    with replaced(CALL_FUNCTION, hooked):
        yield


@contextmanager
def _made_operations(stack: OwnerStack) -> Iterator[None]:
    original = CREATE_OPERATION.get()

    @functools.wraps(original)
    def hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        with unseen:
            operation = original(self, *args, **kwargs)
        graph = stack.graph(self)
        stack.made(graph, operation.name)
        if operation.type.startswith("Assign") and operation.type.endswith("VariableOp"):
            graph.variables[operation.name] = _reference(captured_handle(operation.inputs[0]))
        elif operation.type in _CALLS:
            graph.calls[operation.name] = operation.get_attr("f").name
        note_scatter(operation)
        return operation

    with replaced(CREATE_OPERATION, hooked):
        yield


def _reference(value: Any) -> Reference:
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: None


@contextmanager
def _own_gradients(stack: OwnerStack) -> Iterator[None]:
    """Functions with a gradient of their own: whoever calls one owns what its gradient makes."""

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
def _tapes(stack: OwnerStack) -> Iterator[None]:
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


@contextmanager
def _merged_calls(stack: OwnerStack) -> Iterator[None]:
    """What replicas do together runs on a thread that is none of theirs: who is on top there is so here."""
    original = MERGE_CALL.get()

    @functools.wraps(original)
    def hooked(self: Any, merge: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        frame = stack.top

        @functools.wraps(merge)
        def merged(*merge_args: Any, **merge_kwargs: Any) -> Any:
            stack.push(frame)
            try:
                with unseen:
                    return merge(*merge_args, **merge_kwargs)
            finally:
                stack.pop()

        with unseen:
            return original(self, merged, args, kwargs)

    with replaced(MERGE_CALL, hooked):
        yield


def _note_gradients(stack: OwnerStack, sources: Any, gradients: Any) -> None:
    if not isinstance(sources, (list, tuple)) or not isinstance(gradients, (list, tuple)):
        sources, gradients = [sources], [gradients]
    for source, gradient in zip(sources, gradients, strict=False):
        tensor = getattr(gradient, "values", gradient)  # of IndexedSlices
        operation = _operation(tensor)
        if operation is not None:
            graph = stack.graph(operation.graph)
            sparse = tensor is not gradient
            graph.gradients[tensor.name] = (_reference(source), sparse, same_buffer(operation, graph.ops))
        elif stack.is_timing and tensor is not None:
            stack.eager_gradients.append((_reference(source), host_address(tensor), time.time_ns()))


@contextmanager
def _gradient_functions(stack: OwnerStack) -> Iterator[None]:
    """Who runs an operation travels with it to its gradient function: its type says so."""
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
    """Raise a ``TypeError`` if a private function takes other arguments than it did."""
    names = list(inspect.signature(function).parameters)
    if len(names) != count or names[-1] != last:
        raise TypeError(f"{function.__name__} takes {', '.join(names)}")


def _operation(tensor: Any) -> Any:
    """The operation that a symbolic tensor comes from; ``None`` for an eager one."""
    try:
        return tensor.op
    except AttributeError:
        return None
