"""The rising floor: whether the lowest values of a series rise from part to part."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["EVEN_SHARE", "NUM_PARTS", "begins", "falls_back", "floor_rise", "floor_rises", "is_rising", "windows"]

Floats = NDArray[np.float64]

NUM_PARTS = 4
# Each rise is at least this share of the mean one, so that one jump is no growth.
EVEN_SHARE = 0.4
# What slows down steadily, to less than this share, settles.
_SLOWED_SHARE = 0.5
# Levels are alike that differ by less than this share of a rise.
_NEAR = 0.25
# A step down, or a late start, blinds the whole series but not its end.
_WINDOWS = (800, 400, 200, 100)


def windows(num_rows: int, fewest: int) -> Iterator[slice]:
    """The parts of a series to test: all rows, then the last 800, 400, 200 and 100, if they are at least so many."""
    if num_rows:
        yield slice(0, num_rows)
    for size in _WINDOWS:
        if fewest <= size < num_rows:
            yield slice(num_rows - size, num_rows)


def floor_rises(values: Floats) -> Floats:
    """By how much the minimum rises from each quarter of the rows to the next."""
    floors = np.minimum.reduceat(values, begins(len(values)))
    return np.subtract(floors[1:], floors[:-1])  # far faster than np.diff of four values


def floor_rise(values: Floats) -> float:
    """By how much the minimum rises from the first quarter of the rows to the last: the sum of ``floor_rises``."""
    starts = begins(len(values))
    return float(values[starts[-1] :].min() - values[: starts[1]].min())


@lru_cache(maxsize=1024)
def begins(count: int, parts: int = NUM_PARTS) -> NDArray[np.int64]:
    """Where each of so many parts begins, of at least as many values: the first have one more if they are not even."""
    numbers, (size, more) = np.arange(parts), divmod(count, parts)
    found: NDArray[np.int64] = numbers * size + np.minimum(numbers, more)
    found.setflags(write=False)  # all callers share it
    return found


def falls_back(values: Floats, start: int) -> bool:
    """Whether what rises from a row on has risen as high before, and fallen back: a sawtooth is no growth.

    Args:
        values: All rows.
        start: The first row of those that rise.
    """
    newest = values[start:]
    size = max(2, len(newest) // (2 * NUM_PARTS))
    count = start // size
    if count < 2:
        return False
    low, high = newest[: 2 * size].min(), newest[-2 * size :].min()
    floors = values[start - count * size : start].reshape(count, size).min(axis=1)
    near = _NEAR * (high - low)
    # The first time that it was as low as now, and whether it was as high later.
    were_low = np.flatnonzero(floors <= low + near)
    return bool(len(were_low) and floors[were_low[0] :].max() >= high - near)


def is_rising(x: Floats, values: Floats, least_rate: float) -> bool:
    """Whether the floor rises evenly, without slowing down, and by at least ``least_rate`` a unit of ``x``.

    Args:
        x: ``float64[num_rows]``, rising.
        values: ``float64[num_rows]``, at least 4.
    """
    rises = floor_rises(values)
    # Of few values, the first parts have one more than the last.
    paces = rises / np.diff(begins(len(values)))
    mean = float(paces.mean())
    if paces[0] > paces[1] > paces[2] and paces[2] < _SLOWED_SHARE * paces[0]:
        return False
    # From the middle of the first part to that of the last.
    span = float(x[-1] - x[0]) * len(values) / max(1, len(values) - 1) * (NUM_PARTS - 1) / NUM_PARTS
    return mean > 0 and float(rises.sum()) >= least_rate * span and float(paces.min()) >= EVEN_SHARE * mean
