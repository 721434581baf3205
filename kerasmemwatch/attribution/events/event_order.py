"""The order of an allocator's events, which its running total knows better than threads' clocks. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_total"]

# How far apart in time events may be that came one after the other.
_AHEAD = 8


def by_total(changes: NDArray[np.int64], totals: NDArray[np.int64]) -> NDArray[np.intp]:
    """Mend the order of events of two threads at nearly the same time: the allocator's running total knows better."""
    before = totals - changes
    order = np.arange(len(changes))
    # The first continues nobody's.
    first = np.flatnonzero(~np.isin(before[: _AHEAD + 1], totals[: 2 * _AHEAD]))
    if len(first) == 1:
        order[: first[0] + 1] = np.roll(order[: first[0] + 1], 1)
    mended = 0
    for wrong in np.flatnonzero(totals[order[:-1]] != before[order[1:]]).tolist():
        # An event that is put in front leaves a gap behind it, which was none before.
        index, mended = wrong, max(mended, wrong + 1)
        while index < mended:
            total = totals[order[index]]
            ahead = np.flatnonzero(before[order[index + 1 : index + 1 + _AHEAD]] == total)
            if len(ahead) and ahead[0]:
                stop = index + 2 + int(ahead[0])
                order[index + 1 : stop] = np.roll(order[index + 1 : stop], 1)
                mended = max(mended, min(stop, len(order) - 1))
            index += 1
    return order
