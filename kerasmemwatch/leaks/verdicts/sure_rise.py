"""Bytes in use that surely rise although noise hides their floor: in most rows, or by the same in most steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.leaks.verdicts.floor import EVEN_SHARE, NUM_PARTS
from kerasmemwatch.leaks.verdicts.interval import slope

__all__ = ["adds_each_time", "rises_regularly", "rises_surely"]

Floats = NDArray[np.float64]

# The medians of so many blocks follow what most rows do: batches that wait, and epochs that end, move few of them.
_NUM_BLOCKS, _FEWEST_OF_BLOCK = 20, 5
# The lower end of the rate's interval, as a share of the rate.
_NARROW = 0.65
# Share of the changes that are about the same.
_REGULAR = 0.75
# In so many rows the commonest change is what is added, and in so many of each quarter.
_COMMON, _COMMON_IN_EACH = 0.25, 0.125


def rises_surely(x: Floats, values: Floats, least_rate: float) -> bool:
    """Whether what most rows do rises evenly, at a rate that is known within a third.

    Args:
        x: ``float64[num_rows]``, rising.
        values: ``float64[num_rows]``.
        least_rate: The least that the values rise by a unit of ``x``.
    """
    if len(values) < _NUM_BLOCKS * _FEWEST_OF_BLOCK:
        return False
    medians = np.array([np.median(block) for block in np.array_split(values, _NUM_BLOCKS)])
    rate, low, _ = slope(np.array([block.mean() for block in np.array_split(x, _NUM_BLOCKS)]), medians)
    if rate < least_rate or low < _NARROW * rate:
        return False
    rises = np.diff([np.median(part) for part in np.array_split(values, NUM_PARTS)])
    return bool(rises.min() >= EVEN_SHARE * rises.mean())


def rises_regularly(values: Floats, least: float) -> bool:
    """Whether most changes from value to value are about the same rise, whatever jumps are between them.

    Args:
        values: ``float64[num_values]``, at least 2.
        least: The least of that rise.
    """
    changes = np.diff(values)
    usual = float(np.median(changes))
    return bool(usual >= least and np.mean((changes >= usual / 2) & (changes <= 2 * usual)) >= _REGULAR)


def adds_each_time(x: Floats, values: Floats, least_rate: float) -> bool:
    """Whether the commonest change from row to row is a rise, from the first quarter to the last, that nothing undoes.

    Batches that wait come and go; what each step keeps stays. The commonest change of a clean run is none.

    Args:
        x: ``float64[num_rows]``, rising.
        values: ``float64[num_rows]``, at least 5.
        least_rate: The least that the values rise by a unit of ``x``.
    """
    changes = np.diff(values)
    sizes, counts = np.unique(changes, return_counts=True)
    added = float(sizes[np.argmax(counts)])
    is_added = changes == added
    pace = added / float(np.median(np.diff(x)))
    if pace < max(least_rate, 1.0) or is_added.mean() < _COMMON:
        return False
    if min(part.mean() for part in np.array_split(is_added, NUM_PARTS)) < _COMMON_IN_EACH:
        return False
    # Otherwise something gives it back now and then.
    _, low, high = slope(x, values)
    return 0 < low <= pace <= high
