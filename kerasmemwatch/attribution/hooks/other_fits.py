"""Which watched trainings are under way in this process, and in which thread each runs."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from threading import get_ident
from typing import Any

__all__ = ["BESIDE", "begin", "elsewhere", "end", "other_threads"]

BESIDE = (
    "Another fit ran in a thread of this process while this step was traced. What it held is in this step's totals, as "
    "they share the device: unattributed, or, of a fit that runs eagerly, under whatever was at work here at that time."
)

_threads: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def begin(training: Any) -> None:
    """A training begins in this thread."""
    _threads[training] = get_ident()


def end(training: Any) -> None:
    """A training has ended."""
    _threads.pop(training, None)


def elsewhere(training: Any) -> Callable[[], bool]:
    """A function that returns whether the calling thread is not at work for the step that begins now, in this thread.

    Threads that the step itself starts, as a strategy does for replicas, are at work for it. Threads that ran before
    are not: they run other fits, watched or not, or prepare batches.
    """
    before = {thread.ident for thread in threading.enumerate()} - {get_ident()}

    def is_elsewhere() -> bool:
        here = get_ident()
        return here in before or any(
            thread == here and other is not training for other, thread in list(_threads.items())
        )

    return is_elsewhere


def other_threads(training: Any) -> frozenset[int]:
    """The threads in which others train now."""
    others = {thread for other, thread in list(_threads.items()) if other is not training}
    return frozenset(others & sys._current_frames().keys()) - {get_ident()}
