"""Operations that allocate scratch memory without a name in the allocator's events. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.host_spans import AUTOTUNING, RUN
from kerasmemwatch.attribution.events.pairing import Allocations
from kerasmemwatch.attribution.owners.device_owners import is_copy

__all__ = ["ops_at_work"]


def ops_at_work(events: AllocationEvents, rows: Allocations) -> NDArray[np.int32]:
    """Return the operation of each allocation: its own, else the one at work on one of TensorFlow's threads.

    An operation is at work on its thread from its first allocation until something other than its scratch memory is
    freed: an operation frees its inputs when it ends.

    Returns:
        ``int32[num_rows]``, index into the names of operations; 0 if unknown.
    """
    found = events.op[rows.event].copy()
    # Allocations for programs' blocks and copies are not scratch memory.
    spared = events.within(RUN) | events.within(AUTOTUNING)
    copies = is_copy(events)
    computes = np.array(["/" in name for name in events.threads] or [False], np.bool_)[events.thread]
    computes &= ~events.from_input_pipeline
    nameless = computes[rows.event] & (found == 0) & (rows.birth >= 0) & ~spared[rows.event]
    if not nameless.any():
        return found
    born = {int(rows.birth[row]): int(row) for row in np.flatnonzero(nameless)}
    freed = {int(rows.death[row]) for row in born.values()}
    at_work: dict[int, int] = {}
    births, ops, threads = events.births.tolist(), events.op.tolist(), events.thread.tolist()
    for event in np.flatnonzero(computes).tolist():
        thread = threads[event]
        if event in born:
            found[born[event]] = at_work.get(thread, 0)
        elif births[event]:
            at_work[thread] = 0 if copies[event] else ops[event]
        elif event not in freed:
            at_work[thread] = 0
    return found
