"""Which watched trainings are under way in this process, and in which thread each runs."""

from __future__ import annotations

import sys
import weakref
from threading import get_ident
from typing import Any

__all__ = ["BESIDE", "begin", "end", "other_threads"]

BESIDE = (
    "Another fit ran in a thread of this process while this step was traced. What it held is in this step's totals, as "
    "they share the device, and is unattributed."
)

_threads: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def begin(training: Any) -> None:
    """A training begins in this thread."""
    _threads[training] = get_ident()


def end(training: Any) -> None:
    """A training has ended."""
    _threads.pop(training, None)


def other_threads(training: Any) -> frozenset[int]:
    """The threads in which others train now."""
    others = {thread for other, thread in list(_threads.items()) if other is not training}
    return frozenset(others & sys._current_frames().keys()) - {get_ident()}
