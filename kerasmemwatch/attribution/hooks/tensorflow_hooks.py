"""Hooks into TensorFlow for the owner of each operation; also installs the hooks for gradients and errors.

Most of these interfaces are private. A missing one is left out, and the consequence is recorded.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from kerasmemwatch.attribution.hooks.error_stacks import left_out_of_stacks
from kerasmemwatch.attribution.hooks.gradient_hooks import (
    custom_gradients,
    gradient_functions,
    recorded_operations,
    tape_gradients,
)
from kerasmemwatch.attribution.hooks.graph_registry import weak_reference
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.hooks.patching import replaced, unseen
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
    RECORD_OPERATIONS,
    SET_FUNCTION_ATTRIBUTE,
)
from kerasmemwatch.errors import MissingNameError

__all__ = ["eager_owners", "tensorflow_hooks", "traced_functions"]

_UNEXPECTED = "This TensorFlow is not as expected"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@contextmanager
def tensorflow_hooks(stack: OwnerStack) -> Iterator[None]:
    """Record the owners of graphs' operations, and push the owners of gradients while they are computed."""
    hooks: tuple[tuple[Callable[[OwnerStack], AbstractContextManager[None]], Name], ...] = (
        (_made_operations, CREATE_OPERATION),
        (rewritten_calls, SET_FUNCTION_ATTRIBUTE),
        (custom_gradients, RECORD_OPERATIONS[0]),
        (gradient_functions, GRADIENT_FUNCTION),
        (tape_gradients, NO_TAPE_RECORDS),
        (_merged_calls, MERGE_CALL),
        (left_out_of_stacks, FILTER_STACK),
    )
    with ExitStack() as exits:
        for hook, name in hooks:
            _install(exits, hook(stack), stack, name)
        yield


@contextmanager
def eager_owners(stack: OwnerStack) -> Iterator[None]:
    """Record the owner of each eager operation for its gradient.

    This takes time, so it is done only while a step is captured.
    """
    with ExitStack() as exits:
        _install(exits, recorded_operations(stack), stack, FAST_EXECUTE)
        _install(exits, _calls(stack), stack, CALL_FUNCTION)
        yield


@contextmanager
def traced_functions(around: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Run each tracing of a function within a context; calls of traced functions take no extra time.

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


@contextmanager
def _calls(stack: OwnerStack) -> Iterator[None]:
    """Record the times and arguments of functions that eager code calls."""
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
            graph.variables[operation.name] = weak_reference(captured_handle(operation.inputs[0]))
        elif operation.type in _CALLS:
            graph.calls[operation.name] = operation.get_attr("f").name
        note_scatter(operation)
        return operation

    with replaced(CREATE_OPERATION, hooked):
        yield


@contextmanager
def _merged_calls(stack: OwnerStack) -> Iterator[None]:
    """Copy the top of the stack to the thread that runs the replicas' common code, which is none of theirs."""
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
