"""The verdict on one series."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from kerasmemwatch.leaks.verdicts.collector import (
    given_back,
    may_be_garbage,
    newest_collection,
    num_collections,
    room_is_used_again,
)
from kerasmemwatch.leaks.verdicts.floor import NUM_PARTS, floor_rises
from kerasmemwatch.leaks.verdicts.interval import slope
from kerasmemwatch.leaks.verdicts.judged_rows import JudgedRows, judged_rows
from kerasmemwatch.leaks.verdicts.jumps import only_jump, rows_since_full, without_one_jump
from kerasmemwatch.leaks.verdicts.series import Series
from kerasmemwatch.leaks.verdicts.signs import FEWEST_ROWS, Sign, least_rate, levelled, signs
from kerasmemwatch.leaks.verdicts.units_of_growth import in_unit
from kerasmemwatch.leaks.verdicts.words import Seen, explained
from kerasmemwatch.records.growth import Growth, Verdict
from kerasmemwatch.units import MIB

__all__ = ["judge"]

_FEWEST_WITHOUT_EPOCHS = 200
_WARM_UP_ROWS, _WARM_UP_SHARE = 20, 0.1
_SETTLED_SHARE = 0.4
# Growth of a device that is slower than so many times the least rate has to be seen so many rows before, too.
_FAST, _LASTS_ROWS = 3.0, 10
# Share of RSS's rate that the interval's lower end is at least.
_SURE_OF_HOST = 0.3
# What else training adds beside a cache, as a share of it.
_CACHE_OVERHEAD = 1.25
# Garbage in the heap is told from here on, because RSS may not show it: bytes.
_GARBAGE_TOLD = 8 * MIB


def judge(series: Series) -> Growth:
    """Judge whether a series grows.

    The first 20 rows, the first tenth and the first epoch are warm-up. Nothing is called growing before the first epoch
    has ended; without epochs, not before 200 rows.

    Args:
        series: Its rows so far, in order of time.

    Example:
        >>> import numpy as np
        >>> steps = np.arange(400)
        >>> judge(Series(steps, 1e6 + 4096.0 * steps)).verdict
        'growing'
    """
    found = _judged(series)
    if not found.is_growing or series.kind != "device" or _is_fast(found, series):
        return found
    # Batches that wait look like slow growth for a few rows, now and then; a leak lasts.
    num_rows = len(series.steps)
    before = _judged(series.until(num_rows - min(_LASTS_ROWS, max(1, num_rows // 10))))
    return found if before.is_growing else _doubted(found, Seen(is_new=True))


def _judged(series: Series) -> Growth:
    """The verdict of one look."""
    rows = judged_rows(series)
    start = max(_WARM_UP_ROWS, math.ceil(len(rows) * _WARM_UP_SHARE))
    if not rows.is_in_first_epoch:
        start = max(start, rows.first_epoch)
    if series.kind == "heap":
        rows = replace(rows, y=without_one_jump(rows.y, rows.first_epoch))
    count = max(0, len(rows) - start)
    found = Growth(series.name, "too short to tell", None, "step", None, None, series.limit, None, None, "", count)
    found = replace(found, label=series.label)
    has_epochs = rows.epochs is not None and rows.stage == "train"
    may_grow = not rows.is_in_first_epoch and (has_epochs or len(rows) >= _FEWEST_WITHOUT_EPOCHS)
    garbage = given_back(series, rows, start) if may_grow else None
    if garbage is not None:
        return _waiting(found, series, rows, garbage)
    level = levelled(rows, series.kind)
    seen = signs(rows, series.kind, start) if may_grow else []
    # RSS moves by itself: a rate of which so little is certain tells nothing.
    share = _SURE_OF_HOST if series.kind == "host" else 0.0
    if series.kind == "heap":
        grown = _may_grow(found, series, rows, seen)
    else:
        grown = _growing(found, series, level, seen, least_share=share) if seen else None
        if grown is None and may_grow:
            grown = _may_grow(found, series, level, signs(rows, series.kind, start, is_strict=False))
    if grown is not None:
        return grown
    if count >= FEWEST_ROWS:
        return _not_growing(found, series, rows, np.arange(start, len(rows)))
    ends = rows.epoch_ends
    if len(ends) >= NUM_PARTS:
        return _not_growing(replace(found, num_samples=len(ends)), series, rows, ends)
    return explained(found, Seen(rows.is_in_first_epoch, rows.stage, counted=_counted(rows)))


def _waiting(found: Growth, series: Series, rows: JudgedRows, sign: Sign) -> Growth:
    found = replace(in_unit(found, series, rows, sign), verdict="waits for the collector")
    found = explained(found, Seen(is_garbage=True))
    if series.kind != "heap" or float(np.ptp(rows.y[sign.at])) < _GARBAGE_TOLD:
        return found
    # Of a hint, only what has a step is told: here the first since the newest collection.
    return replace(found, since_step=int(series.steps[rows.rows[newest_collection(series, rows)]]))


def _growing(found: Growth, series: Series, rows: JudgedRows, seen: list[Sign], *, least_share: float) -> Growth | None:
    """The verdict on signs of growth; ``None`` if so much of the rate, in the unit that explains it, is not certain."""
    first = int(min(sign.at[0] for sign in seen))
    since = int(series.steps[rows.rows[first]])
    found = replace(in_unit(found, series, rows, seen[0]), num_samples=len(rows) - first)
    rise = (found.bytes_per_step or 0.0) * float(rows.x[-1] - rows.x[first])
    if _is_filling(series, rows, first, rise):
        return _filling(found, series, rows, Seen(total=rise))
    if _is_of_new_cache(series, rows, rise):
        return explained(replace(found, verdict="filling"), Seen(total=rise, filling_bytes=series.cache_bytes))
    if _is_of_shuffle(series, rows, first, rise):
        return _doubted(replace(found, since_step=since), Seen(shuffle=series.shuffle))
    num_still = rows_since_full(rows.y[first:]) if series.kind == "device" else 0
    if num_still:
        rise = float(rows.y[-num_still:].min() - rows.y[first:].min())
        return explained(replace(found, verdict="settling"), Seen(total=rise, num_since=num_still))
    count = num_collections(series, rows, first)
    is_garbage = room_is_used_again(found, series, rows, first)
    if is_garbage or may_be_garbage(found, series, rows, first):
        found = replace(found, verdict="waits for the collector", since_step=since)
        return explained(found, Seen(num_collections=count, is_garbage=is_garbage))
    if found.interval is None or found.rate is None or found.interval[0] <= least_share * found.rate:
        return None
    found = replace(found, verdict="growing", since_step=since, met_at=_met_at(found, series, rows, first))
    newest = series.newest[0] if series.newest else None
    return explained(found, Seen(newest_bytes=newest, num_collections=count, counted=_counted(rows)))


def _may_grow(found: Growth, series: Series, rows: JudgedRows, seen: list[Sign]) -> Growth | None:
    """What clean runs do, too, so that only the live objects tell; ``since_step`` is known of no other such verdict."""
    grown = _growing(found, series, rows, seen, least_share=-math.inf) if seen else None
    if grown is None or not grown.is_growing:
        return None
    return _doubted(grown, Seen(is_in_jumps=True, counted=_counted(rows)))


def _doubted(grown: Growth, seen: Seen) -> Growth:
    return explained(replace(grown, verdict="too short to tell", met_at=None), seen)


def _is_fast(found: Growth, series: Series) -> bool:
    steps = (series.steps if series.train_steps is None else series.train_steps)[series.rows[-found.num_samples :]]
    return (found.bytes_per_step or 0.0) >= _FAST * least_rate("device", float(steps[-1] - steps[0]))


def _counted(rows: JudgedRows, *, at_ends: bool = False) -> str:
    """What the values that were looked at are."""
    return "readings" if rows.is_sparse else "epochs" if at_ends else "steps"


def _is_filling(series: Series, rows: JudgedRows, first: int, rise: float) -> bool:
    """Whether what is known to fill explains a rise since a row."""
    if series.filling is None:
        return False
    at = int(rows.rows[first]), int(rows.rows[-1])
    return series.filling.explains(rise, *at, is_device=series.kind == "device")


def _filling(found: Growth, series: Series, rows: JudgedRows, seen: Seen) -> Growth:
    assert series.filling is not None
    last = int(rows.rows[-1])
    found = replace(found, verdict="filling" if series.filling.rises_at(last) else "settling")
    return explained(found, replace(seen, filling=series.filling, held_bytes=float(series.filling.held[last])))


def _is_of_shuffle(series: Series, rows: JudgedRows, first: int, rise: float) -> bool:
    """Whether a device may rise because a shuffle buffer's elements replace each other."""
    if series.shuffle is None or series.kind != "device":
        return False
    at = int(series.steps[rows.rows[first]]), int(series.steps[rows.rows[-1]])
    return series.shuffle.explains(rise, *at)


def _is_of_new_cache(series: Series, rows: JudgedRows, rise: float) -> bool:
    """Whether most of a rise came in the first epoch of the newest of several fits, whose dataset has a cache."""
    if not series.caches or rows.calls is None or rows.epochs is None:
        return False
    begin = int(np.searchsorted(rows.calls, rows.calls[-1]))
    added = float(rows.y[-1] - rows.y[begin])
    size = series.cache_bytes
    is_first = rows.epochs[begin] == rows.epochs[-1]
    return bool(is_first) and added >= rise / 2 and (size is None or added <= _CACHE_OVERHEAD * size)


def _met_at(found: Growth, series: Series, rows: JudgedRows, first: int) -> int | None:
    newest, pace = series.newest, found.bytes_per_step
    if newest is None or series.limit is None or pace is None or pace <= 0:
        return None
    # Steps of every stage count towards the limit's step.
    steps = float(series.steps[rows.rows[-1]] - series.steps[rows.rows[first]])
    per_step = pace * float(rows.x[-1] - rows.x[first]) / steps
    return newest[1] + max(0, math.ceil((series.limit - newest[0]) / per_step))


def _not_growing(found: Growth, series: Series, rows: JudgedRows, at: np.ndarray) -> Growth:
    x, y = rows.x[at], rows.y[at]
    rate, low, high = slope(x, y)
    found = replace(found, rate=rate, bytes_per_step=rate, interval=(low, high))
    rises, span = floor_rises(y), max(1.0, float(x[-1] - x[0]) * (NUM_PARTS - 1) / NUM_PARTS)
    total, counted = float(rises.sum()), _counted(rows, at_ends=len(at) < len(rows) - at[0])
    seen = Seen(rows.is_in_first_epoch, rows.stage, total, total / span, counted=counted)
    least = least_rate(series.kind, span)
    if total < least * span:
        # A device's floor is exact; RSS moves by itself, so growth that would be found may hide in its interval.
        if series.kind == "host" and high > least:
            return explained(found, replace(seen, may_grow_by=high))
        return explained(replace(found, verdict="steady"), seen)
    jump = only_jump(y)
    if jump is not None:
        seen = replace(seen, jump_step=int(series.steps[rows.rows[at[jump]]]), num_since=len(at) - jump)
        verdict: Verdict = "steady" if len(at) - jump >= FEWEST_ROWS else "too short to tell"
    elif rises[-1] <= _SETTLED_SHARE * rises.mean():
        verdict = "settling"
    elif _is_filling(series, rows, int(at[0]), rate * float(x[-1] - x[0])):
        return _filling(found, series, rows, replace(seen, total=rate * float(x[-1] - x[0])))
    else:
        # It rose late or, in the first epoch, evenly: what fills then is not told from a leak, unless it is known.
        verdict = "filling" if rows.is_in_first_epoch and _fits(series, rows) else "too short to tell"
        seen = replace(seen, filling_bytes=series.cache_bytes, is_late=rises[-1] > total / 2)
    return explained(replace(found, verdict=verdict), seen)


def _fits(series: Series, rows: JudgedRows) -> bool:
    """Whether the dataset has caches that can hold what was added so far."""
    size = series.cache_bytes
    added = float(rows.y[-1] - rows.y[0])
    return bool(series.caches) and (size is None or added <= _CACHE_OVERHEAD * size)
