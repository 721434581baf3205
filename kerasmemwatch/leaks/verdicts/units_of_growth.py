"""The unit that explains growth: memory that rises only where a fit begins grows by the fit, not by the step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.leaks.verdicts.interval import slope
from kerasmemwatch.leaks.verdicts.judged_rows import JudgedRows
from kerasmemwatch.leaks.verdicts.series import Series
from kerasmemwatch.leaks.verdicts.signs import Sign
from kerasmemwatch.records.growth import Growth, Unit

__all__ = ["in_unit"]

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_FEWEST_UNITS = 3
# A staircase explains a series better if it leaves less than this share of what a line leaves.
_CLEARER = 0.9
# Calls of fewer rows, within which there is less than this share of the growth from one to the next.
_MOST_ROWS, _WITHIN = 8, 0.35
_CALLS: dict[str, Unit] = {"train": "fit", "test": "evaluate", "predict": "predict"}


def in_unit(found: Growth, series: Series, rows: JudgedRows, sign: Sign) -> Growth:
    """Add the rate of growth, in the unit that explains it best."""
    at = np.arange(sign.at[0], sign.at[-1] + 1)
    unit, numbers = _unit(rows, at)
    rate, low, high = 0.0, 0.0, 0.0
    if numbers is not None:
        ends = np.append(np.flatnonzero(np.diff(numbers)), len(numbers) - 1)
        rate, low, high = slope(numbers[ends].astype(float), rows.y[at][ends])
    if numbers is None or low <= 0:  # not even certain in this unit
        rate, low, high = slope(rows.x[sign.at], rows.y[sign.at])
        return replace(found, rate=rate, interval=(low, high), bytes_per_step=rate)
    # What trained, of all that the units hold.
    span = float(rows.x[at[-1]] - rows.x[at[0]])
    if _is_one_each(numbers):
        steps = span / float(numbers[-1])
    else:
        steps = (span + float(np.median(np.diff(rows.x[at])))) / float(numbers[-1] + 1)
    share = 1.0
    if unit == "fit":
        unit, share = _of_calls(series, rows, at)
    return replace(
        found,
        rate=rate * share,
        unit=unit,
        interval=(low * share, high * share),
        bytes_per_step=rate / steps,
        steps_per_unit=steps * share,
    )


def _unit(rows: JudgedRows, at: Indices) -> tuple[Unit, Indices | None]:
    x, y = rows.x[at], rows.y[at]
    least = _CLEARER * _left(x, y)
    best: tuple[Unit, Indices | None] = ("step", None)
    units: dict[Unit, Indices | None] = {"epoch": rows.epochs, "fit": rows.calls, "model": rows.models}
    # From the finest to the coarsest: of two that explain it equally well, the coarser one says more.
    for unit, all_numbers in units.items():
        numbers = None if all_numbers is None else all_numbers[at] - all_numbers[at[0]]
        if numbers is None or numbers[-1] + 1 < _FEWEST_UNITS:
            continue
        left = _left(numbers.astype(float), y)
        is_clear = unit != "epoch" and _rises_between(numbers, y)
        if left <= least * (1 + 1e-9) or _is_one_each(numbers) or is_clear:
            best, least = (unit, numbers), min(least, left)
    return best


def _is_one_each(numbers: Indices) -> bool:
    """Whether no two rows are of one unit, as where a series is read at some ends of epochs."""
    return bool(np.all(np.diff(numbers) > 0))


def _rises_between(numbers: Indices, y: Floats) -> bool:
    """Whether short calls rise from one to the next, and hardly within."""
    begins = np.append(0, np.flatnonzero(np.diff(numbers)) + 1)
    ends = np.append(begins[1:], len(numbers)) - 1
    if not 0 < np.median(ends - begins) < _MOST_ROWS:
        return False
    rate = slope(np.arange(len(ends), dtype=float), y[ends])[0]
    return float(np.median(y[ends] - y[begins])) < _WITHIN * rate


def _left(x: Floats, y: Floats) -> float:
    """The sum of squares that a line through the values leaves."""
    x, y = x - x.mean(), y - y.mean()
    square = float(x @ x)
    return max(0.0, float(y @ y) - (float(x @ y) ** 2 / square if square else 0.0))


def _of_calls(series: Series, rows: JudgedRows, at: Indices) -> tuple[Unit, float]:
    """The kind of call that memory rises in, and how many of the judged kind there are to one of it."""
    if series.calls is None or series.stages is None:
        return "fit", 1.0
    known = np.flatnonzero(~np.isnan(series.values) & ~np.isnan(series.calls))
    known = known[(known >= rows.rows[at[0]]) & (known <= rows.rows[at[-1]])]
    calls, values = series.calls[known], series.values[known]
    begins = np.append(0, np.flatnonzero(np.diff(calls)) + 1)
    ends = np.append(begins[1:] - 1, len(calls) - 1)
    rises, kinds = np.diff(values[ends]), series.stages[known[begins]][1:]
    risen = {kind: float(rises[kinds == kind].sum()) for kind in _CALLS}
    kind = max(risen, key=lambda one: risen[one])
    judged = series.stages[rows.rows[at[0]]]
    return _CALLS[kind], float(np.sum(kinds == judged)) / max(1.0, float(np.sum(kinds == kind)))
