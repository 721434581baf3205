"""Signs of growth in a series: at the ends of steps, of epochs and of calls, each with a least rate of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.leaks.verdicts.floor import EVEN_SHARE, NUM_PARTS, falls_back, floor_rise, is_rising, windows
from kerasmemwatch.leaks.verdicts.interval import slope
from kerasmemwatch.leaks.verdicts.judged_rows import JudgedRows, ends_of, with_full_pipeline
from kerasmemwatch.leaks.verdicts.jumps import has_stopped, is_in_few_jumps, usual_rise, without_shifts
from kerasmemwatch.leaks.verdicts.series import Kind
from kerasmemwatch.leaks.verdicts.sure_rise import adds_each_time, rises_regularly, rises_surely
from kerasmemwatch.leaks.verdicts.within_epochs import is_still_within, repeats, rises_alike

__all__ = ["FEWEST_ROWS", "Sign", "least_rate", "levelled", "signs"]

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

FEWEST_ROWS = 40
_FEWEST_WITHOUT_EPOCHS = 400
_USUAL_STEPS = 200
# A rise over fewer ends than these has to be large or, on a device, surer. So much of the rate has to be certain.
_MANY_ENDS = 8
_SURE_OF_FEW_ENDS, _SURE_OF_ENDS = 0.8, 0.65
_LONG_STEPS = 195  # 200, less what a window loses
# Share of the rate that is certain if the rate is low, or if no epochs tell what is drained.
_SURE = 0.5
# A buffer that fills looks like growth, but leaves more than this share of the steps unchanged. If so many are, this
# share of the rate has to be certain.
_SHARE_STILL, _SURE_OF_FILLING = 0.1, 0.75
# Rows scatter between these percentiles. Ends that rise by nearly the same are this share of their rise off a line.
_MOST_ROWS, _NEARLY = (10, 90), 0.05
# Share of the least rate that is enough over 200 steps or more if the rate's interval is narrow, too.
_NARROW_SHARE = 0.6
# Share of the least rate that is enough where most rows rise alike and the rate's interval is narrow.
_SURE_OF_MEDIANS = 0.75
# RSS that rises in jumps may do so in clean runs, too: unless it rises so many times as fast as the least rate, most
# blocks of rows have to rise by so much of it.
_FAST, _USUAL = 4.0, 0.5
# The number of batches that wait may differ from epoch to epoch, so that the levels of two epochs tell nothing.
_FEWEST_EPOCHS = 3
# How many times faster it rose before if it settles.
_SETTLES = 2.0


@dataclass(frozen=True)
class _Least:
    """The slowest growth that is told from what clean runs do; bytes.

    Attributes:
        per_step: A step, over 200 steps; over fewer the same in all, over more less a step.
        far: A step, over however many.
        per_step_at_ends: A step, if looked at where epochs or calls end: buffers are drained there.
        per_end: An epoch or call.
        per_end_of_few: The same if few have ended.
    """

    per_step: float
    far: float
    per_step_at_ends: float
    per_end: float
    per_end_of_few: float


# Clean runs' bytes in use jitter by whole batches, but their floor is still. RSS only ever rises, ever more slowly.
_LEAST: dict[Kind, _Least] = {
    "device": _Least(512.0, 256.0, 128.0, 2048.0, 10_240.0),
    "host": _Least(49_152.0, 16_384.0, 16_384.0, 524_288.0, 16_777_216.0),
    "heap": _Least(8_192.0, 2_048.0, 1_024.0, 65_536.0, 65_536.0),
}


@dataclass(frozen=True, eq=False)
class Sign:
    """Rows whose floor rises: ``int[num_points]``, in order; ``at_ends`` if they are those of epochs or calls."""

    at: Indices
    at_ends: bool


def least_rate(kind: Kind, num_steps: float) -> float:
    """The slowest growth that is told from what clean runs do within so many steps, bytes a step."""
    least = _LEAST[kind]
    ratio = _USUAL_STEPS / max(1.0, num_steps)
    return max(least.far, least.per_step * (ratio if ratio > 1 else math.sqrt(ratio)))


def signs(rows: JudgedRows, kind: Kind, start: int, *, is_strict: bool = True) -> list[Sign]:
    """Where the floor rises: over the longest window of steps first, then at the ends of epochs and of calls.

    Args:
        start: The first row after warm-up.
        is_strict: Whether jumps of RSS and a few ends of epochs, which clean runs have too, are no signs.
    """
    found = []
    after = np.arange(start, len(rows))
    level = levelled(rows, kind)
    # Without epochs nothing tells when buffers are drained, and a deep one may fill for hundreds of steps.
    fewest = _FEWEST_WITHOUT_EPOCHS if rows.epochs is None else FEWEST_ROWS
    for window in windows(len(after) if len(after) >= FEWEST_ROWS else 0, fewest):
        at = after[window]
        settles_or_repeats = _was_faster(rows.y[after], window.start) or repeats(rows, at) or falls_back(rows.y, at[0])
        rising = None if settles_or_repeats else _rising(level, at, kind, is_strict=is_strict)
        if rising is not None:
            found.append(Sign(rising, at_ends=False))
            break
    # The first epoch's end is a fair start, as buffers are full by then; a first call still traces functions.
    epochs = rows.epoch_ends
    # What the first validation or checkpoint adds stays, and what is counted exactly is still otherwise.
    later = epochs[1:] if kind != "host" else epochs[:0]
    for ends in (epochs, later, ends_of(rows.calls, rows.x)[1:]):
        if len(ends) >= NUM_PARTS and _rises_at(level, ends, kind, is_strict=is_strict):
            found.append(Sign(ends, at_ends=True))
    return found


def levelled(rows: JudgedRows, kind: Kind) -> JudgedRows:
    """The same rows; of a device, without the shifts of its level where one of a few calls begins."""
    return replace(rows, y=without_shifts(rows.y, rows.calls)) if kind == "device" else rows


def _rises_at(rows: JudgedRows, ends: Indices, kind: Kind, *, is_strict: bool) -> bool:
    """Whether the values at the ends of epochs or calls rise."""
    x, y, least = np.arange(len(ends), dtype=float), rows.y[ends], _LEAST[kind]
    is_few = len(ends) < _MANY_ENDS
    if kind == "host" and not is_few and is_in_few_jumps(y):
        return False
    steps = float(rows.x[ends[-1]] - rows.x[ends[0]]) / (len(ends) - 1)
    if kind == "heap":
        return rises_regularly(y, max(least.per_end, least.per_step_at_ends * steps))
    is_doubted = is_few and is_strict
    slowest = max(least.per_end_of_few if is_doubted else least.per_end, least.per_step_at_ends * steps)
    is_sure = not is_strict or _is_sure(x, y, _SURE_OF_FEW_ENDS if is_doubted else _SURE_OF_ENDS, slowest)
    if not (is_sure and is_rising(x, y, slowest) and _is_of_all_rows(rows, ends)):
        return False
    return kind != "device" or not is_strict or len(ends) > NUM_PARTS or _is_no_chance(rows, ends)


def _is_no_chance(rows: JudgedRows, ends: Indices) -> bool:
    """Whether four ends rise by nearly the same each, or by more in all than the rows between them scatter.

    What waits at the end of an epoch differs, too, and four values rise by chance once in 24 times.
    """
    x, y = (values[ends[0] : ends[-1] + 1] for values in (rows.x, rows.y))
    rise = float(y[-1] - y[0])
    rest = y - rise * (x - x[0]) / (x[-1] - x[0])
    low, high = np.percentile(rest, _MOST_ROWS)
    return bool(rise >= min(high - low, np.ptp(rest[ends - ends[0]]) / _NEARLY))


def _is_of_all_rows(rows: JudgedRows, ends: Indices) -> bool:
    """Whether all rows rise with the ends: those of a sawtooth may be at ever later points of its teeth."""
    first, last = (rows.y[ends[number] + 1 : ends[number + 1] + 1].min() for number in (0, -2))
    rise = float(rows.y[ends[-1]] - rows.y[ends[1]])
    return bool(last - first >= EVEN_SHARE * rise)


def _rising(rows: JudgedRows, at: Indices, kind: Kind, *, is_strict: bool) -> Indices | None:
    """Those rows of a window that rise: all or, of a device, those with a full pipeline; ``None`` for none."""
    if kind != "device":
        return at if _rises(rows, at, kind, is_strict=is_strict) else None
    full = with_full_pipeline(rows, at)
    has_enough = rows.epochs is not None and len(np.unique(rows.epochs[full])) >= _FEWEST_EPOCHS
    for some in (at, full) if has_enough else (at,):
        if len(some) >= FEWEST_ROWS and _rises(rows, some, kind, is_strict=is_strict):
            return None if is_strict and is_still_within(rows, at) else some
    return rises_alike(rows, at, least_rate(kind, float(rows.x[at[-1]] - rows.x[at[0]])))


def _rises(rows: JudgedRows, at: Indices, kind: Kind, *, is_strict: bool) -> bool:
    """Whether the floor rises within a window, or what noise hides does."""
    x, y = rows.x[at], rows.y[at]
    span = float(x[-1] - x[0])
    usual = least_rate(kind, span)
    slower = usual * (_NARROW_SHARE if span >= _LONG_STEPS else 1.0)
    # What may as well not grow is not called growing, even if its floor rises.
    is_slow = not is_rising(x, y, usual)
    least_sure = _SURE if rows.epochs is None or is_slow else 0.0
    if kind == "device" and is_strict and rows.epochs is None and _may_be_filling(y):
        least_sure = _SURE_OF_FILLING
    if kind != "device" and has_stopped(y):
        return False
    if kind != "device" and is_strict and not is_rising(x, y, _FAST * usual) and usual_rise(y) < _USUAL * usual * span:
        return False
    if is_rising(x, y, slower) and _is_sure(x, y, least_sure, slower if is_strict and kind != "heap" else 0.0):
        return True
    if kind != "device":
        return False
    is_sure = rows.epochs is not None and rises_surely(x, y, _SURE_OF_MEDIANS * usual) and _ends_agree(rows, at)
    are_neighbours = len(at) == at[-1] - at[0] + 1
    return is_sure or (are_neighbours and adds_each_time(x, y, _NARROW_SHARE * usual))


def _ends_agree(rows: JudgedRows, at: Indices) -> bool:
    """Whether the ends of epochs within a window surely rise, too, if there are enough: less waits there."""
    ends = rows.epoch_ends
    ends = ends[(ends >= at[0]) & (ends <= at[-1])]
    return len(ends) < NUM_PARTS or _is_sure(rows.x[ends], rows.y[ends])


def _may_be_filling(y: Floats) -> bool:
    """Whether a buffer may be filling: there are only a few hundred steps, and many of them change nothing."""
    return len(y) < _FEWEST_WITHOUT_EPOCHS and float(np.mean(np.diff(y) == 0)) > _SHARE_STILL


def _was_faster(y: Floats, start: int) -> bool:
    """Whether the floor rose far more in the rows before a window than it does within it: it settles."""
    size = len(y) - start
    before = y[max(0, start - size) : start]
    if len(before) < FEWEST_ROWS:
        return False
    return floor_rise(before) > _SETTLES * floor_rise(y[start:]) * len(before) / size


def _is_sure(x: Floats, y: Floats, share: float = _SURE, least_rate: float = 0.0) -> bool:
    """Whether growth, and so much of the rate, is certain: few values may rise by chance."""
    rate, low, _ = slope(x, y)
    return low > 0 and low >= share * rate and rate >= least_rate
