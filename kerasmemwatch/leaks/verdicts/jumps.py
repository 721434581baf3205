"""Levels that shift now and then are no growth: a second model, a cache for validation, a larger batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.leaks.verdicts.floor import begins

__all__ = [
    "has_stopped",
    "is_in_few_jumps",
    "only_jump",
    "rows_since_full",
    "usual_rise",
    "without_one_jump",
    "without_shifts",
]

_NUM_BLOCKS = 16
# Share of the whole rise that one jump explains.
_MOST_OF_IT = 0.8
# RSS that rises so much in so few of the blocks rises with high-water marks, not with the steps.
_FEW_BLOCKS, _SHARE_OF_FEW = 3, 0.5
# One jump is so many times as high as any other rise.
_ALONE = 2.0
# What rises by less than this share of its pace in the newest eighth has stopped.
_NUM_EIGHTHS, _STOPPED_SHARE = 8, 0.2
# What has not risen for so many rows, and so many times as long as ever before, is full.
_FEWEST_STILL, _LONGEST_BEFORE = 20, 2
# If there are two or three calls, a shift is the difference of the medians of so many rows before and after one begins.
_MOST_SHIFTS, _FEWEST_BESIDE, _ROWS_BESIDE = 2, 20, 40


def is_in_few_jumps(values: NDArray[np.float64]) -> bool:
    """Whether a few of the blocks hold most of the rise.

    Args:
        values: ``float64[num_rows]``, RSS whose floor rises.
    """
    rises = np.sort(_rises_of_blocks(values))
    return bool(rises[-_FEW_BLOCKS:].sum() > _SHARE_OF_FEW * rises.sum())


def usual_rise(values: NDArray[np.float64]) -> float:
    """How far the floor would rise if it always rose as in the median block: 0 for what rises in few blocks only.

    Args:
        values: ``float64[num_rows]``, at least 2.
    """
    rises = _rises_of_blocks(values)
    return float(np.median(rises)) * len(rises)


def has_stopped(values: NDArray[np.float64]) -> bool:
    """Whether a rise is over: the newest eighth is hardly higher than the one before.

    Args:
        values: ``float64[num_rows]``, at least 8, whose floor rises.
    """
    before, newest = (float(np.median(part)) for part in np.array_split(values, _NUM_EIGHTHS)[-2:])
    return newest - before < _STOPPED_SHARE * float(values[-1] - values[0]) / _NUM_EIGHTHS


def rows_since_full(values: NDArray[np.float64]) -> int:
    """For how many rows what rose before has been still, far longer than ever between two rises; 0 if it has not.

    A list with a most number of items rises like a leak until it is full, and stays there.

    Args:
        values: ``float64[num_rows]``, of a device, whose floor rises.
    """
    floor = np.minimum.accumulate(values[::-1])[::-1]  # the lowest value from each row on
    levels = floor[0] + (floor[-1] - floor[0]) * np.arange(1, _NUM_BLOCKS) / _NUM_BLOCKS
    passed = np.searchsorted(floor, levels, side="right")
    still = len(values) - int(passed[-1])
    longest_before = int(np.diff(passed, prepend=0).max())
    return still if still >= max(_FEWEST_STILL, _LONGEST_BEFORE * longest_before) else 0


def only_jump(values: NDArray[np.float64]) -> int | None:
    """The first row after the one jump that explains nearly all of a rise; ``None`` if there is none.

    Args:
        values: ``float64[num_rows]``, whose floor rises.
    """
    blocks = np.array_split(values, min(_NUM_BLOCKS, len(values)))
    floors = np.array([block.min() for block in blocks])
    rises = np.diff(floors)
    highest = int(np.argmax(rises))
    if rises[highest] < _MOST_OF_IT * (floors[-1] - floors[0]):
        return None
    # A block that the jump is in keeps the floor before it.
    begin = sum(len(block) for block in blocks[: highest + 1]) - len(blocks[highest])
    own = np.diff(values[begin : begin + 2 * len(blocks[highest])])
    return begin + int(np.argmax(own)) + 1


def without_one_jump(values: NDArray[np.float64], start: int) -> NDArray[np.float64]:
    """The values less the one jump from a row on that is far higher than any other rise: what a thread sets up, say."""
    changes = np.diff(values[start:])
    if len(changes) < 2:
        return values
    second, highest = np.argsort(changes)[-2:]
    if changes[highest] <= _ALONE * max(0.0, changes[second]):
        return values
    found = values.copy()
    found[start + highest + 1 :] -= changes[highest]
    return found


def without_shifts(values: NDArray[np.float64], calls: NDArray[np.intp] | None) -> NDArray[np.float64]:
    """The values less what each of two or three calls needs in addition: another optimizer's slots, or larger batches.

    If there are more calls, the values at their ends tell whether each adds something.

    Args:
        values: ``float64[num_rows]``.
        calls: ``int[num_rows]``, the call of each row; ``None`` if unknown.
    """
    starts = np.flatnonzero(np.diff(calls)) + 1 if calls is not None else ()
    if not 0 < len(starts) <= _MOST_SHIFTS:
        return values
    found = values.copy()
    for begin, before, after in zip(starts, [0, *starts[:-1]], [*starts[1:], len(values)], strict=True):
        if min(begin - before, after - begin) >= _FEWEST_BESIDE:
            size = min(_ROWS_BESIDE, begin - before, after - begin)
            rise = np.median(values[begin : begin + size]) - np.median(values[begin - size : begin])
            # Growth that goes on in both calls is no shift.
            pace = min(_usual_pace(values[before:begin]), _usual_pace(values[begin:after]))
            found[begin:] -= max(0.0, float(rise) - size * max(0.0, pace))
    return found


def _usual_pace(values: NDArray[np.float64]) -> float:
    """By how much the values usually rise from row to row, over half of the rows."""
    half = len(values) // 2
    return float(np.median(values[half:] - values[: len(values) - half])) / half


def _rises_of_blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.diff(np.minimum.reduceat(values, begins(len(values), min(_NUM_BLOCKS, len(values)))))
