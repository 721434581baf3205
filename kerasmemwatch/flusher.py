"""A thread that writes what has been recorded, so that the per-batch path never does."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

__all__ = ["Flusher"]


class _Flushable(Protocol):
    def flush(self) -> None: ...

    @property
    def flush_interval_s(self) -> float: ...


class Flusher:
    """Calls ``target.flush()`` every so often, and at once when woken. Ends when the target does.

    Args:
        target: What is flushed; held by a weak reference.
    """

    def __init__(self, target: _Flushable) -> None:
        self._woken = threading.Event()
        self._stopped = False
        self.wake = self._woken.set
        arguments = (weakref.ref(target, lambda _: self.stop()), self)
        self._thread = threading.Thread(target=_run, args=arguments, name="kerasmemwatch-flush", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end; does not wait for it."""
        self._stopped = True
        self._woken.set()


def _run(target: weakref.ref[_Flushable], flusher: Flusher) -> None:
    while not flusher._stopped:
        alive = target()
        if alive is None:
            return
        interval_s = alive.flush_interval_s
        del alive
        flusher._woken.wait(interval_s)
        flusher._woken.clear()
        alive = target()
        if alive is not None and not flusher._stopped:
            alive.flush()
        del alive
