"""A share of time that something may take, over all who do it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["SLOW_READS", "SLOW_SHARE", "CostShare"]

# Reading slowly (USS, the driver) may take this share of the time, at most.
SLOW_SHARE = 0.005


class CostShare:
    """Says when something that takes time may be done again.

    Args:
        share: Of the time that passes, at most.
        clock: Returns seconds.

    Example:
        >>> now = [0.0]
        >>> share = CostShare(0.005, clock=lambda: now[0])
        >>> with share.taken():
        ...     now[0] += 0.1
        >>> now[0] += 19
        >>> share.is_due
        False
        >>> now[0] += 1
        >>> share.is_due
        True
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._end = self._cost_s = 0.0
        self._taking = threading.Lock()

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed since it was done last, and nobody does it now."""
        begun_before = bool(self._cost_s) and self._clock() < self._end + self._cost_s / self._share
        return not begun_before and not self._taking.locked()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Do it, and note how long that took."""
        with self._taking:
            begun = self._clock()
            try:
                yield
            finally:
                self._end = self._clock()
                self._cost_s = self._end - begun


# The process's: a search makes thousands of short fits, each with a watch of its own.
SLOW_READS = CostShare(SLOW_SHARE)
