"""Limit on the share of time that a slow activity may take, over all its callers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["SLOW_READS", "SLOW_SHARE", "CostShare"]

# Slow reads (USS, the driver) may take at most this share of the time.
SLOW_SHARE = 0.005


class CostShare:
    """Decides when a slow activity may run again.

    Args:
        share: Largest share of the elapsed time.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._end = self._cost_s = 0.0
        self._taking = threading.Lock()

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed since the last run, and none is in progress."""
        begun_before = bool(self._cost_s) and self._clock() < self._end + self._cost_s / self._share
        return not begun_before and not self._taking.locked()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Run the block and record how long it takes."""
        with self._taking:
            begun = self._clock()
            try:
                yield
            finally:
                self._end = self._clock()
                self._cost_s = self._end - begun


# One for the process: a hyperparameter search makes thousands of short fits, each with a watch of its own.
SLOW_READS = CostShare(SLOW_SHARE)
