"""Outbox of updates for the sinks: each gets every update once and in order, even after failures."""

from __future__ import annotations

from collections.abc import Sequence

from kerasmemwatch.faults import Faults
from kerasmemwatch.storage.sinks.base import Sink, Update

__all__ = ["Outbox"]


class Outbox:
    """Updates that not all sinks have accepted yet. Used by one thread at a time."""

    def __init__(self, sinks: Sequence[Sink], faults: Faults) -> None:
        self._sinks, self._faults = tuple(sinks), faults
        self._pending: list[Update] = []
        self._taken = [0] * len(self._sinks)  # how many pending updates each sink has accepted

    def add(self, update: Update) -> None:
        """Append an update."""
        self._pending.append(update)

    @property
    def newest(self) -> Update | None:
        """The last update added, unless all sinks have it."""
        return self._pending[-1] if self._pending else None

    def send(self) -> bool:
        """Pass the updates to the sinks; return whether all were accepted."""
        try:
            for index, sink in enumerate(self._sinks):
                try:
                    for update in self._pending[self._taken[index] :]:
                        sink.write(update)
                        self._taken[index] += 1
                except Exception as error:
                    remedy = "The recording stays in memory, and is written as soon as that works again."
                    self._faults.report("writing", error, remedy)
        finally:
            done = min(self._taken, default=len(self._pending))
            del self._pending[:done]
            self._taken = [taken - done for taken in self._taken]
        return not self._pending

    def rest(self) -> None:
        """Let the sinks release their resources where they can: no updates will come for a while."""
        for sink in self._sinks:
            rest = getattr(sink, "rest", None)  # optional in a user's sink
            if rest is not None:
                rest()

    def close(self) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            sink.close()
