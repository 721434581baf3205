"""Background thread that stores recorded data, so that the per-batch path does no I/O."""

from __future__ import annotations

import threading
import weakref
from queue import Empty, SimpleQueue
from typing import Protocol

__all__ = ["FlushThread"]


class _Target(Protocol):
    def flush(self) -> None: ...

    def close(self) -> None: ...

    @property
    def flush_interval_s(self) -> float: ...


class FlushThread:
    """Calls ``target.flush()`` at intervals, and at once when woken. Ends when the target does.

    Every method may be called from anywhere, even by the garbage collector in the middle of other code. Methods only
    put an order into a ``SimpleQueue``, whose ``put`` is reentrant; ``Event.set`` is not.

    Args:
        target: The object to flush; held by a weak reference.
    """

    def __init__(self, target: _Target) -> None:
        self._orders: SimpleQueue[str | _Target] = SimpleQueue()
        reference = weakref.ref(target, lambda _, put=self._orders.put: put("stop"))  # type: ignore[misc]
        self.thread = threading.Thread(
            target=_run, args=(reference, self._orders), name="kerasmemwatch-flush", daemon=True
        )
        self.thread.start()

    def wake(self) -> None:
        """Flush now."""
        self._orders.put("flush")

    def stop(self) -> None:
        """Ask the thread to end, without waiting."""
        self._orders.put("stop")

    def close(self, target: _Target) -> None:
        """Ask the thread to close the target, to which there may be no other reference, and to end."""
        self._orders.put(target)


def _run(reference: weakref.ref[_Target], orders: SimpleQueue[str | _Target]) -> None:
    while True:
        target = reference()
        if target is None:
            return
        interval_s = target.flush_interval_s
        del target
        try:
            order = orders.get(timeout=interval_s)
        except Empty:
            order = "flush"
        if order == "stop":
            return
        if not isinstance(order, str):
            order.close()
            return
        target = reference()
        if target is not None:
            target.flush()
        del target
