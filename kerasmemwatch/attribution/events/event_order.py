"""Order of an allocator's events, by its running total rather than by the threads' clocks. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_total"]

# Maximum reordering between threads, in events.
_MAX_AHEAD = 8


def by_total(changes: NDArray[np.int64], totals: NDArray[np.int64]) -> NDArray[np.intp]:
    """Correct the order of nearly simultaneous events of two threads, using the allocator's running total."""
    before = totals - changes
    order = np.arange(len(changes))
    # The first event continues no other's total.
    first = np.flatnonzero(~np.isin(before[: _MAX_AHEAD + 1], totals[: 2 * _MAX_AHEAD]))
    if len(first) == 1:
        order[: first[0] + 1] = np.roll(order[: first[0] + 1], 1)
    corrected = 0
    for wrong in np.flatnonzero(totals[order[:-1]] != before[order[1:]]).tolist():
        # Moving an event to the front leaves a new gap behind it.
        index, corrected = wrong, max(corrected, wrong + 1)
        while index < corrected:
            total = totals[order[index]]
            ahead = np.flatnonzero(before[order[index + 1 : index + 1 + _MAX_AHEAD]] == total)
            if len(ahead) and ahead[0]:
                stop = index + 2 + int(ahead[0])
                order[index + 1 : stop] = np.roll(order[index + 1 : stop], 1)
                corrected = max(corrected, min(stop, len(order) - 1))
            index += 1
    return order
