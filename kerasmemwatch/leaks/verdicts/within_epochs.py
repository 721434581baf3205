"""What epochs tell of a rise: whether it repeats in each, is still within each, or is the same from end to end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.leaks.verdicts.floor import EVEN_SHARE, NUM_PARTS, floor_rise
from kerasmemwatch.leaks.verdicts.interval import slope
from kerasmemwatch.leaks.verdicts.judged_rows import JudgedRows, with_full_pipeline

__all__ = ["is_still_within", "repeats", "rises_alike"]

Indices = NDArray[np.intp]

# Rows of an epoch whose pipeline is full that tell whether memory rises within.
_LONG_EPOCH = 60
# Rises from end to end are alike if none is less than this share of the highest.
_FEWEST_ENDS, _ALIKE = 3, 2 / 3
# This share of the pace has to be certain from the rows between the ends, of which there have to be so many.
_CERTAIN, _FEWEST_BETWEEN = 0.25, 40


def repeats(rows: JudgedRows, at: Indices) -> bool:
    """Whether the floor rises within each epoch only: as high as now, it was at the same point of an earlier one."""
    ends = rows.epoch_ends
    if not len(ends):
        return False
    length = int(ends[-1] - ends[-2] if len(ends) > 1 else ends[-1] + 1)
    newest = at[-len(at) // NUM_PARTS :]
    earlier = newest - length * max(1, round(len(at) * (NUM_PARTS - 1) / NUM_PARTS / length))
    earlier = earlier[earlier >= 0]
    if not len(earlier):
        return False
    rise = floor_rise(rows.y[at])
    expected = rise * (newest[0] - earlier[0]) / (len(at) * (NUM_PARTS - 1) / NUM_PARTS)
    return bool(rows.y[newest].min() - rows.y[earlier].min() < EVEN_SHARE * expected)


def is_still_within(rows: JudgedRows, at: Indices) -> bool:
    """Whether the floor rises from one long epoch to the next but within none, as if more batches wait in each."""
    if rows.epochs is None:
        return False
    full = with_full_pipeline(rows, at)
    begins = np.append(0, np.flatnonzero(np.diff(rows.epochs[full])) + 1)
    within = [one for one in np.split(full, begins[1:]) if len(one) >= _LONG_EPOCH]
    paces = [floor_rise(rows.y[one]) / len(one) for one in within]
    return bool(paces) and float(np.median(paces)) < EVEN_SHARE * floor_rise(rows.y[full]) / len(full)


def rises_alike(rows: JudgedRows, at: Indices, least_rate: float) -> Indices | None:
    """Rows that rise at the pace of the ends of epochs, if each epoch added about the same.

    Three ends tell little by themselves, and so do rows whose floor is noisy. Together they tell more.

    Args:
        at: ``int[num_rows]``, the rows of a window.
        least_rate: The least pace, bytes a unit of ``x``.

    Returns:
        All rows of the window, or those with a full pipeline; ``None`` if neither rises so.
    """
    ends = rows.epoch_ends[(rows.epoch_ends >= at[0]) & (rows.epoch_ends <= at[-1])]
    if len(ends) < _FEWEST_ENDS:
        return None
    paces = np.diff(rows.y[ends]) / np.diff(rows.x[ends])
    pace = float(paces.mean())
    if pace < least_rate or paces.min() < _ALIKE * paces.max():
        return None
    for some in (at, with_full_pipeline(rows, at)):
        if len(some) < _FEWEST_BETWEEN:  # epochs may have a row or two
            continue
        _, low, high = slope(rows.x[some], rows.y[some])
        if _CERTAIN * pace <= low <= pace <= high:
            return some
    return None
