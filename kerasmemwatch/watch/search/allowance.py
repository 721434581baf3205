"""CPU time that all dear looks of one series of rows may take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Allowance"]

_LOOK_SHARE, _LOOK_S = 0.01, 2.0


class Allowance:
    """Counts what looks take: together 1 % of the time since this was made, or 2 s, whichever is more.

    A look is begun if its estimate fits, and is not broken off: it may pass the limit by a few tenths of a second.

    Attributes:
        spent_s: CPU time of this thread that they took so far.
    """

    def __init__(self) -> None:
        self._begun, self.spent_s = time.monotonic(), 0.0

    @property
    def words(self) -> str:
        """The limit in words."""
        return f"{_LOOK_S:.0f} s or {_LOOK_SHARE:.0%} of the run's time"

    @property
    def left_s(self) -> float:
        """What they may still take; below 0 if one took longer than expected."""
        return max(_LOOK_S, _LOOK_SHARE * (time.monotonic() - self._begun)) - self.spent_s

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Count the time of the block, also if it raises."""
        begun = time.thread_time()
        try:
            yield
        finally:
            self.spent_s += time.thread_time() - begun
