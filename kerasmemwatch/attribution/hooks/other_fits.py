"""Watched trainings that are running in this process, with the thread of each."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from threading import get_ident
from typing import Any

__all__ = ["BESIDE", "begin", "elsewhere", "end", "other_threads"]

BESIDE = (
    "Another fit ran in a thread of this process while this step was traced. Its memory is part of this step's totals, "
    "because both share the device: unattributed, or, for an eager fit, under the owner at work here at that time."
)

_threads: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def begin(training: Any) -> None:
    """Record that a training begins in this thread."""
    _threads[training] = get_ident()


def end(training: Any) -> None:
    """Record that a training has ended."""
    _threads.pop(training, None)


def elsewhere(training: Any) -> Callable[[], bool]:
    """Return a function that says whether the calling thread works for something other than the step that begins now.

    Threads that the step starts work for it, such as a strategy's replicas. Earlier threads do not: they run other
    fits, watched or not, or prepare batches.
    """
    # Weakly: functions that the step makes keep what is returned, and must not keep a recorder by it.
    own, mine = weakref.ref(training), get_ident()
    before = {thread.ident: weakref.ref(thread) for thread in threading.enumerate()}

    def ran_before(here: int) -> bool:
        # A thread that the step starts may get the number of one that has ended.
        thread = before[here]() if here in before else None
        return thread is not None and thread.is_alive()

    def is_elsewhere() -> bool:
        here = get_ident()
        if here == mine:
            return False  # nearly every call
        others = (other for other, thread in list(_threads.items()) if thread == here)
        return ran_before(here) or any(other is not own() for other in others)

    return is_elsewhere


def other_threads(training: Any) -> frozenset[int]:
    """Return the threads in which other trainings are running."""
    others = {thread for other, thread in list(_threads.items()) if other is not training}
    return frozenset(others & sys._current_frames().keys()) - {get_ident()}
