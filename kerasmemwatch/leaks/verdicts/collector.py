"""Whether what grows is garbage that waits for Python's full collection."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.leaks.verdicts.floor import is_rising
from kerasmemwatch.leaks.verdicts.judged_rows import JudgedRows
from kerasmemwatch.leaks.verdicts.series import Kind, Series
from kerasmemwatch.leaks.verdicts.signs import Sign
from kerasmemwatch.records.growth import Growth

__all__ = ["given_back", "may_be_garbage", "newest_collection", "num_collections", "room_is_used_again"]

# What collections give back, as a share of what had grown, so that garbage explains the growth.
_GIVEN_BACK = 0.75
_FEWEST_BETWEEN = 10
# If full collections are never further apart than this share of the rows, garbage is too little to explain growth.
_LONGEST_WAIT = 0.1
# Memory that grew by less than this share of its pace since a collection uses what that freed.
_USED_AGAIN, _ROWS_COMPARED, _FEWEST_SINCE = 0.5, 20, 40
# What a collection gives back is garbage worth a word from here on: bytes.
_WORTH_A_WORD: dict[Kind, float] = {"device": 131_072.0, "host": 8_388_608.0, "heap": 131_072.0}
_FEWEST_CALLS = 8
# The cycles that each fit, evaluate or predict leaves hold less than this: bytes.
_GARBAGE_OF_A_CALL: dict[Kind, float] = {"device": 4096.0, "host": 262_144.0, "heap": 262_144.0}


def num_collections(series: Series, rows: JudgedRows, first: int) -> int | None:
    """How many full collections ran since a row; ``None`` if they were not counted."""
    if series.collections is None:
        return None
    counts = series.collections[rows.rows[first:]]
    return None if np.isnan(counts).any() else int(counts[-1] - counts[0])


def may_be_garbage(growth: Growth, series: Series, rows: JudgedRows, first: int) -> bool:
    """Whether each call leaves as little as the cycles of a call hold, and no two collections can be compared yet."""
    if num_collections(series, rows, first) is None or growth.bytes_per_step is None or rows.calls is None:
        return False
    num_calls = int(rows.calls[-1] - rows.calls[first]) + 1
    per_call = growth.bytes_per_step * float(rows.x[-1] - rows.x[first]) / num_calls
    is_little = num_calls >= _FEWEST_CALLS and per_call < _GARBAGE_OF_A_CALL[series.kind]
    return is_little and len(_events(series, rows, first)) < 2


def room_is_used_again(growth: Growth, series: Series, rows: JudgedRows, first: int) -> bool:
    """Whether nothing grew since full collections: RSS keeps what is freed, and new garbage takes its place."""
    if not num_collections(series, rows, first) or growth.bytes_per_step is None:
        return False
    events = _events(series, rows, first)
    waits = np.diff([first, *events, len(rows)])
    if waits.max() <= _LONGEST_WAIT * (len(rows) - first):
        return False
    events = events[(events - first >= _ROWS_COMPARED) & (len(rows) - events >= _FEWEST_SINCE)]
    if not len(events) or (series.kind == "device" and not _falls_at(rows, events)):
        return False
    # After the first and the last one or, of only one, before it and now.
    begin, end = int(events[0]), int(events[-1])
    if begin == end:
        begin, end = begin - _ROWS_COMPARED, len(rows) - _ROWS_COMPARED
    rise = rows.y[end : end + _ROWS_COMPARED].min() - rows.y[begin : begin + _ROWS_COMPARED].min()
    return bool(rise < _USED_AGAIN * growth.bytes_per_step * float(rows.x[end] - rows.x[begin]))


def _falls_at(rows: JudgedRows, events: NDArray[np.intp]) -> bool:
    """Whether a device's floor fell at a collection: it counts at once what is freed, so a level is no garbage."""
    floors = (
        (rows.y[each - _ROWS_COMPARED : each].min(), rows.y[each : each + _ROWS_COMPARED].min()) for each in events
    )
    return any(after < before for before, after in floors)


def _events(series: Series, rows: JudgedRows, first: int) -> NDArray[np.intp]:
    """The rows since ``first`` before which a full collection ran."""
    assert series.collections is not None
    return first + 1 + np.flatnonzero(np.diff(series.collections[rows.rows[first:]]) > 0)


def newest_collection(series: Series, rows: JudgedRows) -> int:
    """The first row after the newest full collection; the first of all if none ran."""
    events = _events(series, rows, 0)
    return int(events[-1]) if len(events) else 0


def given_back(series: Series, rows: JudgedRows, first: int) -> Sign | None:
    """The longest rise between two full collections, if they give back what grew; ``None`` if they don't.

    Of the heap it is the largest.

    Args:
        first: The first row after warm-up.
    """
    if first >= len(rows) or not num_collections(series, rows, first) or series.collections is None:
        return None
    events = _events(series, rows, first)
    edges: NDArray[np.intp] = np.concatenate([[first], events, [len(rows)]])
    spans = list(pairwise(edges))
    # Floors, as any single row may have one more batch that waits.
    begins = [float(rows.y[begin : min(begin + _ROWS_COMPARED, end)].min()) for begin, end in spans]
    ends = [float(rows.y[max(end - _ROWS_COMPARED, begin) : end].min()) for begin, end in spans]
    grown = [max(0.0, ends[index] - begins[index]) for index in range(len(events))]
    given = [max(0.0, ends[index] - begins[index + 1]) for index in range(len(events)) if grown[index]]
    # RSS and devices move by themselves, so the span with most rows tells best. The heap is exact.
    longest = int(np.argmax(grown)) if series.kind == "heap" else int(np.argmax(np.diff(edges)))
    rise = np.arange(edges[longest], edges[longest + 1])
    if max(grown) < _WORTH_A_WORD[series.kind] or len(rise) < _FEWEST_BETWEEN:
        return None
    if not is_rising(rows.x[rise], rows.y[rise], 0.0):
        return None
    return Sign(rise, at_ends=False) if sum(given) >= _GIVEN_BACK * sum(grown) else None
