"""Wrapper that runs one call of a model's step function within a context, and removes itself first."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

from kerasmemwatch.attribution.hooks.patching import unseen

__all__ = ["ArmedStep"]

_FUNCTIONS = {"train": "train_function", "test": "test_function", "predict": "predict_function"}


class ArmedStep:
    """Wraps the next call of a step function; at most one at a time."""

    def __init__(self) -> None:
        self._armed: tuple[Any, str, Any, Any] | None = None

    def arm(
        self,
        model: Any,
        stage: str,
        around: Callable[[tuple[Any, ...]], AbstractContextManager[None]],
        is_spared: Callable[[tuple[Any, ...], FrameType], bool],
    ) -> None:
        """Run the next call of the model's step function within a context.

        Args:
            around: Returns the context for the arguments of the call.
            is_spared: Whether the function should run unchanged, given the arguments of the call and the caller's
                Python frame.
        """
        self.disarm()
        name = _FUNCTIONS[stage]
        original = getattr(model, name, None)
        if original is None:
            return

        def once(*args: Any, **kwargs: Any) -> Any:
            with unseen:
                if self._armed is None or self._armed[2] is not own():
                    # Another watch's wrapper, now removed, was around this one when this one had to be removed.
                    if getattr(model, name, None) is own():
                        setattr(model, name, original)
                    return original(*args, **kwargs)
                self.disarm()
                if is_spared(args, sys._getframe(1)):
                    return original(*args, **kwargs)
                with around(args):
                    return original(*args, **kwargs)

        # Weakly: a function that refers to itself leaves the whole watch to the garbage collector.
        own = weakref.ref(once)
        setattr(model, name, once)
        self._armed = (model, name, once, original)

    def disarm(self) -> None:
        """Remove the wrapper, if it is still in place."""
        armed, self._armed = self._armed, None
        if armed is not None:
            model, name, once, original = armed
            if getattr(model, name, None) is once:
                setattr(model, name, original)
