"""Keeps a context open from the tracing of a function to the end of its first call, for a tape without a session."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from kerasmemwatch.attribution.hooks.patching import unseen
from kerasmemwatch.compat.tensorflow import CALL_FUNCTION, CONTEXT

__all__ = ["AwaitedCall"]

# Calls of other functions before the awaited one; its variables' initializer is one.
_MOST_OTHER_CALLS = 4


class AwaitedCall:
    """Stays in a context until the function being traced has been called, or never will be.

    Args:
        guard: Makes a context in which to leave it, because that may happen within the user's code.
    """

    def __init__(
        self, around: AbstractContextManager[None], guard: Callable[[], AbstractContextManager[object]]
    ) -> None:
        CALL_FUNCTION.owner()
        self._running, self._guard = CONTEXT.get()(), guard
        self._others_left = _MOST_OTHER_CALLS
        self._around: AbstractContextManager[None] | None = None
        self.expect()
        around.__enter__()
        self._around = around
        self._running.call_function = self._called

    @property
    def is_open(self) -> bool:
        """Whether the call is still to come."""
        return self._around is not None

    def expect(self) -> None:
        """Await the function being traced now, perhaps for the second time because it has made its variables."""
        import tensorflow as tf

        graph = tf.compat.v1.get_default_graph()
        while getattr(graph.outer_graph, "building_function", False):
            graph = graph.outer_graph
        self._part_of_name = f"_{getattr(graph, 'name', '')}_".encode()
        # A function whose tracing fails is never called; its graph goes away with the exception.
        self._graph = weakref.ref(graph, self._gone)

    def close(self) -> None:
        """Leave the context, unless already left."""
        around, self._around = self._around, None
        if around is not None:
            vars(self._running).pop("call_function", None)
            with self._guard():
                around.__exit__(None, None, None)

    def _gone(self, reference: Any) -> None:
        if reference is self._graph:
            self.close()

    def _called(self, name: bytes, *args: Any, **kwargs: Any) -> Any:
        """Replaces ``Context.call_function``."""
        is_last = self._part_of_name in name or not self._others_left
        self._others_left -= 1
        try:
            with unseen:
                return type(self._running).call_function(self._running, name, *args, **kwargs)
        finally:
            if is_last:
                self.close()
