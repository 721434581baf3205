"""Temporary patches of attributes, restored exactly, and functions hidden from tracebacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

from kerasmemwatch.compat.names import Name

__all__ = ["leave_out", "patched", "replaced", "unseen"]

_MISSING = object()


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute, and restore exactly what was there, or delete it if it was only inherited.

    Raises:
        AttributeError: If there is no such attribute, not even an inherited one.
    """
    getattr(owner, name)
    before = vars(owner).get(name, _MISSING)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def replaced(name: Name, value: Any) -> AbstractContextManager[None]:
    """Set a private name of a library for a while, like ``patched``.

    Raises:
        MissingNameError: If the library lacks it.
    """
    return patched(name.owner(), name.attribute, value)


def leave_out(error: BaseException) -> None:
    """Remove the function that has caught an error from its traceback; a bare ``raise`` does not add it again.

    The same as :data:`unseen`, for functions that are called so often that a context takes too long.
    """
    trace = error.__traceback__
    error.__traceback__ = None if trace is None else trace.tb_next


class _Unseen:
    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and trace is not None:
            # The first entry is the function with this context, and passing on does not add it again.
            error.__traceback__ = trace.tb_next


# ``with unseen:``, once in a function, hides the function's entry in the traceback of an error raised within.
unseen = _Unseen()
