"""Attributes that are replaced for a while and put back exactly, and functions that tracebacks do not show."""

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
    """Set an attribute, and put back exactly what was there, or nothing if there was nothing of its own.

    Example:
        >>> class Toy:
        ...     x = 1
        >>> with patched(Toy, "x", 2):
        ...     Toy.x
        2
        >>> Toy.x
        1

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
    """As ``patched``, of a private name of a library.

    Raises:
        MissingNameError: If the library lacks it.
    """
    return patched(name.owner(), name.attribute, value)


def leave_out(error: BaseException) -> None:
    """Take the function that has caught an error out of its traceback; a bare ``raise`` does not add it again.

    The same as :data:`unseen` for a function that is called so often that a context costs too much.
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
            # The first entry is the function's that has this context, and passing on does not add it again.
            error.__traceback__ = trace.tb_next


# ``with unseen:``, once in a function, leaves its entry out of the traceback of what is raised within.
unseen = _Unseen()
