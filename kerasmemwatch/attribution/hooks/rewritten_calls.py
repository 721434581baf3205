"""Record of rewritten calls: an operation that calls another function than it was made to call."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.hooks.patching import replaced, unseen
from kerasmemwatch.compat.tensorflow import SET_FUNCTION_ATTRIBUTE

__all__ = ["rewritten_calls"]


@contextmanager
def rewritten_calls(stack: OwnerStack) -> Iterator[None]:
    """Record rewritten calls: one with a gradient is changed to a function that also returns the gradient's inputs."""
    original = SET_FUNCTION_ATTRIBUTE.get()

    @functools.wraps(original)
    def hooked(self: Any, attribute: Any, function: Any) -> None:
        with unseen:
            original(self, attribute, function)
        calls = stack.graph(self.graph).calls
        if self.name in calls:
            calls[self.name] = function.decode() if isinstance(function, bytes) else str(function)

    with replaced(SET_FUNCTION_ATTRIBUTE, hooked):
        yield
