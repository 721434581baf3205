"""Forecast of when a limit will be met: a running maximum and how fast it has been rising."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise
from statistics import median

__all__ = ["Forecast"]

_WINDOW = 16
_FEWEST = 4
# At most this many steps before the limit, growth over a few steps counts.
_NEAR = 16


class Forecast:
    """Follows one series towards a limit.

    A step's peak jitters by up to 20 % without any growth (the allocator places chunks differently), so the highest
    value so far is followed. It rises steadily if at least half of the last 16 steps raised it. It also does if each
    of the last 4 did; many trainings begin like that, so this counts only where the limit is near.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = math.nan
        self.highest_bytes = 0.0
        self._recent: deque[float] = deque(maxlen=_WINDOW + 1)

    def add(self, used_bytes: float) -> None:
        """Add the value of one more step; NaN changes nothing."""
        if used_bytes == used_bytes:
            self.used_bytes = used_bytes
            self.highest_bytes = max(self.highest_bytes, used_bytes)
            self._recent.append(self.highest_bytes)

    @property
    def bytes_per_step(self) -> float:
        """Steady growth; 0 if there is none."""
        raises = [later - earlier for earlier, later in pairwise(self._recent)]
        if len(raises) == _WINDOW and sum(raised > 0 for raised in raises) >= _WINDOW / 2:
            return sum(raises) / _WINDOW
        growth = median(raises[-_FEWEST:]) if len(raises) >= _FEWEST and min(raises[-_FEWEST:]) > 0 else 0.0
        return growth if self.highest_bytes + _NEAR * growth >= self.limit_bytes else 0.0

    @property
    def steps_left(self) -> int | None:
        """Steps until the limit is met; 0 if it has been met, ``None`` if nothing grows towards it."""
        if self.highest_bytes >= self.limit_bytes:
            return 0
        growth = self.bytes_per_step
        return math.ceil((self.limit_bytes - self.highest_bytes) / growth) if growth > 0 else None
