"""The step loop of a Keras fit, evaluate or predict; reports whether an exception ended it.

Keras does not tell callbacks about an exception. It runs its steps, and their callbacks, within a context of the data's
iterator, which ends an epoch where the data end; here that context also reports how it was left. Nothing wraps the
step itself, so this adds no cost to it and no frame to tracebacks or TensorFlow's error messages.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from kerasmemwatch.attribution.hooks.patching import unseen
from kerasmemwatch.compat.keras import CATCH_STOP, EPOCH_ITERATOR

__all__ = ["lasts_for_epochs", "running_iterator", "tell_how_loops_end"]

_METHODS = ("fit", "evaluate", "predict")
_VARIABLE, _CONTEXT = EPOCH_ITERATOR.attribute, CATCH_STOP.attribute

Told = Callable[[BaseException | None, Any], None]


def tell_how_loops_end(told: Told, *, every_epoch: bool) -> bool:
    """Have a method called when the step loop ends that is about to begin on this thread's stack.

    Args:
        told: A bound method, kept weakly; called with the exception that has left the loop, if any, and with
            Keras' iterator.
        every_epoch: Whether the loop is run again for each epoch, as in a fit.

    Returns:
        Whether there is such a loop; false if callbacks are driven by hand, or Keras' loop is different.
    """
    iterator = _iterator(sys._getframe(1))
    if iterator is None or EPOCH_ITERATOR.is_missing or CATCH_STOP.is_missing:
        return False
    loop = vars(iterator).get(_CONTEXT)
    if not isinstance(loop, _Loop):
        loop = _Loop(iterator, every_epoch)
        setattr(iterator, _CONTEXT, loop)
    loop.tell(weakref.WeakMethod(told))
    return True


class _Loop:
    """Replaces the method that gives the context; removes itself when called."""

    def __init__(self, iterator: Any, every_epoch: bool) -> None:
        # Weak: a cycle would keep a fit's data after the fit.
        self._iterator, self._every_epoch = weakref.ref(iterator), every_epoch
        self._told: list[weakref.WeakMethod[Told]] = []

    def tell(self, told: weakref.WeakMethod[Told]) -> None:
        if told not in self._told:
            self._told.append(told)

    def __call__(self) -> _Context:
        iterator = self._iterator()
        with unseen:
            delattr(iterator, _CONTEXT)
            return _Context(getattr(iterator, _CONTEXT)(), self)

    def ended(self, error: BaseException | None) -> None:
        iterator = self._iterator()
        if iterator is not None and self._every_epoch and error is None:
            setattr(iterator, _CONTEXT, self)
        for reference in self._told:
            told = reference()
            if told is not None:
                told(error, iterator)


class _Context:
    """The iterator's own context; also reports how it was left."""

    def __init__(self, inner: Any, loop: _Loop) -> None:
        self._inner, self._loop = inner, loop

    def __enter__(self) -> Any:
        with unseen:
            return self._inner.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        with unseen:
            handled = False
            try:
                handled = bool(self._inner.__exit__(kind, error, trace))
            finally:
                self._loop.ended(None if handled else error)
            return handled


def running_iterator() -> Any:
    """Keras' iterator of the step loop on this thread's stack; ``None`` if there is none."""
    return _iterator(sys._getframe(1))


def lasts_for_epochs(iterator: Any) -> bool:
    """Whether a pass over the data goes on from epoch to epoch, as with ``steps_per_epoch``.

    Args:
        iterator: Keras' iterator of a step loop; ``None`` if there is none.
    """
    return getattr(iterator, "steps_per_epoch", None) is not None


def _iterator(frame: FrameType | None) -> Any:
    while frame is not None:
        code = frame.f_code
        if code.co_name in _METHODS and _VARIABLE in code.co_varnames:
            # Not repeated in later epochs: values read here, such as the newest logs, stay alive as long as the frame.
            iterator = frame.f_locals.get(_VARIABLE)
            return iterator if hasattr(iterator, _CONTEXT) else None
        frame = frame.f_back
    return None
