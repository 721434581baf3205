"""What is on its way to the sinks: each gets every update once and in order, also after it has failed for a while."""

from __future__ import annotations

from collections.abc import Sequence

from kerasmemwatch.faults import Faults
from kerasmemwatch.storage.sinks.base import Sink, Update

__all__ = ["Outbox"]


class Outbox:
    """Updates that not every sink has taken yet. Used by one thread at a time.

    Args:
        sinks: What receives them.
        faults: Where faults are reported.
    """

    def __init__(self, sinks: Sequence[Sink], faults: Faults) -> None:
        self._sinks, self._faults = tuple(sinks), faults
        self._pending: list[Update] = []
        self._taken = [0] * len(self._sinks)  # how many of them each sink has

    def add(self, update: Update) -> None:
        """Put an update behind the others."""
        self._pending.append(update)

    @property
    def newest(self) -> Update | None:
        """The update that was added last, unless all sinks have it."""
        return self._pending[-1] if self._pending else None

    def send(self) -> bool:
        """Give the updates to the sinks; whether all of them were taken."""
        try:
            for index, sink in enumerate(self._sinks):
                try:
                    for update in self._pending[self._taken[index] :]:
                        sink.write(update)
                        self._taken[index] += 1
                except Exception as error:
                    remedy = "What was recorded stays in memory, and is written as soon as that works again."
                    self._faults.report("writing", error, remedy)
        finally:
            done = min(self._taken, default=len(self._pending))
            del self._pending[:done]
            self._taken = [taken - done for taken in self._taken]
        return not self._pending

    def rest(self) -> None:
        """Nothing will come for a while: let the sinks give back what they hold, if they can."""
        for sink in self._sinks:
            rest = getattr(sink, "rest", None)  # a sink of the user's need not have it
            if rest is not None:
                rest()

    def close(self) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            sink.close()
