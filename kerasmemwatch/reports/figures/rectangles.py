"""Layout of a window's largest buffers as rectangles of address or slot against time, with a sum of the rest."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.records.timeline import Timeline

__all__ = ["Rectangles", "allocation_rectangles"]

MOST_RECTANGLES = 1000
_Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rectangles:
    """The buffers of a window; a moment is numbered by the events before it."""

    window: tuple[int, int]  # the first moment, and the first after the window
    index: _Integers  # `int64[num_rectangles]`, index of each allocation in the timeline, largest first
    begin: _Integers  # `int64[num_rectangles]`, the first moment at which it is alive
    end: _Integers  # `int64[num_rectangles]`, the first moment at which it is no longer alive
    # `int64[num_rectangles]`, its lower edge in bytes: its address with unused stretches removed, or a free slot if
    # the address is unknown.
    low: _Integers
    high: _Integers  # `int64[num_rectangles]`, its upper edge: `low` plus its requested bytes
    rest_at: _Integers  # `int64[num_columns + 1]`, where the columns of the rest begin, and the end of the last
    rest_bytes: _Integers  # `int64[num_columns]`, the most bytes of all other buffers alive at once, by column
    num_rest: int  # number of other buffers alive in the window


def allocation_rectangles(
    timeline: Timeline,
    window: tuple[int, int] | None = None,
    pixels: int = 1000,
    *,
    most: int = MOST_RECTANGLES,
    mine: NDArray[np.bool_] | None = None,
) -> Rectangles:
    """Lay out the buffers that live in a window.

    Args:
        window: The first moment and the first after it; all of the step if ``None``.
        pixels: Width of the drawing, and so the maximum number of columns of the rest.
        mine: ``bool[num_allocations]``, which ones to draw; all if ``None``.
    """
    last = timeline.num_events + 1
    first, stop = (0, last) if window is None else (int(window[0]), int(window[1]))
    first = min(max(first, 0), last - 1)
    stop = min(max(stop, first + 1), last)
    begin, end, sizes = timeline.birth + 1, timeline.death + 1, timeline.requested_bytes
    lives = (begin < stop) & (end > first) & (begin < end) & (sizes > 0)
    living = np.flatnonzero(lives if mine is None else lives & mine)
    if len(living) > most:
        largest = np.argpartition(-sizes[living], most - 1)[:most]
        chosen, is_rest = living[largest], np.ones(len(living), bool)
        is_rest[largest] = False
        rest = living[is_rest]
    else:
        chosen, rest = living, living[:0]
    chosen = chosen[np.lexsort((chosen, -sizes[chosen]))]
    low = _places(timeline.address[chosen], sizes[chosen], begin[chosen], end[chosen])
    rest_at, rest_bytes = _rest(begin[rest], end[rest], sizes[rest], (first, stop), max(1, pixels))
    return Rectangles(
        (first, stop), chosen, begin[chosen], end[chosen], low, low + sizes[chosen], rest_at, rest_bytes, len(rest)
    )


def _places(addresses: NDArray[np.uint64], sizes: _Integers, begin: _Integers, end: _Integers) -> _Integers:
    """The lower edge of each: slots for those without an address at the bottom, addresses above."""
    low = np.zeros(len(sizes), np.int64)
    unknown = np.flatnonzero(addresses == 0)
    low[unknown] = slots(sizes[unknown], begin[unknown], end[unknown])
    floor = int((low[unknown] + sizes[unknown]).max(initial=0))
    known = np.flatnonzero(addresses != 0)
    low[known] = floor + _compact(addresses[known].astype(np.int64), sizes[known])
    return low


def _compact(addresses: _Integers, sizes: _Integers) -> _Integers:
    """Addresses counted from 0, with unused stretches removed."""
    if not len(addresses):
        return addresses
    order = np.argsort(addresses, kind="stable")
    starts, ends = addresses[order], addresses[order] + sizes[order]
    reached = np.maximum.accumulate(ends)
    gap = np.append(0, np.maximum(starts[1:] - reached[:-1], 0))
    compact = np.empty_like(addresses)
    compact[order] = starts - starts[0] - np.cumsum(gap)
    return compact


def slots(sizes: _Integers, begin: _Integers, end: _Integers) -> _Integers:
    """Lay out buffers so that no two alive at once overlap: each, in order of birth, in the first gap that fits it."""
    low = np.zeros(len(sizes), np.int64)
    free: list[tuple[int, int]] = [(0, 1 << 62)]  # gaps as (low, high), in order
    births = np.lexsort((-sizes, begin)).tolist()
    deaths = np.argsort(end, kind="stable").tolist()
    next_death = 0
    for index in births:
        while next_death < len(deaths) and end[deaths[next_death]] <= begin[index]:
            dead = deaths[next_death]
            _give_back(free, int(low[dead]), int(low[dead] + sizes[dead]))
            next_death += 1
        size = int(sizes[index])
        place = next(number for number, (start, stop) in enumerate(free) if stop - start >= size)
        start, stop = free[place]
        low[index] = start
        free[place : place + 1] = [(start + size, stop)] if stop - start > size else []
    return low


def _give_back(free: list[tuple[int, int]], low: int, high: int) -> None:
    place = bisect_left(free, (low, high))
    if place < len(free) and free[place][0] == high:
        high = free.pop(place)[1]
    if place and free[place - 1][1] == low:
        place -= 1
        low = free.pop(place)[0]
    free.insert(place, (low, high))


def _rest(
    begin: _Integers, end: _Integers, sizes: _Integers, window: tuple[int, int], columns: int
) -> tuple[_Integers, _Integers]:
    """The most bytes alive at once in each column of the window."""
    first, stop = window
    change = np.zeros(stop - first + 1, np.int64)
    np.add.at(change, np.maximum(begin - first, 0), sizes)
    np.subtract.at(change, np.minimum(end - first, stop - first), sizes)
    alive = np.cumsum(change[:-1])
    edges = np.unique(np.linspace(0, stop - first, min(columns, stop - first) + 1).astype(np.int64))
    return first + edges, np.maximum.reduceat(alive, edges[:-1])
