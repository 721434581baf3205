"""Who made what a device's allocator gives out beside its operations: trials, programs' blocks, and copies. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.host_spans import AUTOTUNING, COPY, RUN
from kerasmemwatch.attribution.live.batch_spec import BatchPart, batch_sizes
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.records.owners import FUNCTIONS, INPUT_PIPELINE, Frame
from kerasmemwatch.records.timeline import AUTOTUNING as AUTOTUNING_OWNER

__all__ = ["RECEIVED", "autotuned", "device_frames", "is_copy"]

# No phase of a model's: it is neither kept for the backward pass nor a gradient.
_TRIAL = Frame(AUTOTUNING_OWNER, "", "between")
_BLOCK, _INPUT = Frame(FUNCTIONS, "", "update"), Frame(INPUT_PIPELINE, "", "input")
# What TensorFlow calls the copy of a tensor that another device of the process sends.
RECEIVED = "SameWorkerRecvDone"
_FETCHES = ("IteratorGetNext", "MultiDeviceIteratorGetNext")
# A kernel that tries algorithms gives each a workspace of its own.
_FEWEST_TRIED = 2


def device_frames(events: AllocationEvents, owners: OpOwners, batch: Sequence[BatchPart]) -> dict[int, Frame]:
    """Tell who made allocations that no operation's name tells.

    Args:
        events: The allocator's events.
        owners: Who made each operation.
        batch: The tensors of a batch.

    Returns:
        By event, the frame. A copy belongs to whoever made the operation whose result is copied; where that is not
        known, it is an input if it is as large as a tensor of the batch.
    """
    found = dict.fromkeys(np.flatnonzero(events.births & events.within(RUN)).tolist(), _BLOCK)
    found.update(_copies(events, owners, batch))
    found.update(dict.fromkeys(np.flatnonzero(autotuned(events)).tolist(), _TRIAL))
    return found


def autotuned(events: AllocationEvents) -> NDArray[np.bool_]:
    """``bool[num_events]``, which allocations were made to try algorithms.

    XLA's are made while a program is compiled. A convolution of a graph tries its own in its first run: the library
    takes workspaces behind the back of a kernel that takes all it needs through its context.
    """
    tried = events.births & events.within(AUTOTUNING)
    # In host memory libraries take scratch memory of their own at any time.
    if not len(events.of_kernel) or events.on_host:
        return tried
    named = np.flatnonzero(events.births & (events.op != 0))
    works = np.stack([events.op[named], events.run[named], events.thread[named]])
    _, work = np.unique(works, axis=1, return_inverse=True)
    work = work.reshape(-1)
    of_kernel = events.of_kernel[named]
    is_trial = (np.bincount(work, of_kernel) > 0) & (np.bincount(work, ~of_kernel) >= _FEWEST_TRIED)
    tried[named[is_trial[work] & ~of_kernel]] = True
    return tried


def is_copy(events: AllocationEvents) -> NDArray[np.bool_]:
    """``bool[num_events]``, which allocations hold a tensor that another device sent."""
    received = np.array([name == RECEIVED for name in events.ops] or [False])[events.op]
    found: NDArray[np.bool_] = events.births & (received | events.within(COPY))
    return found


def _copies(events: AllocationEvents, owners: OpOwners, batch: Sequence[BatchPart]) -> Iterator[tuple[int, Frame]]:
    sizes = batch_sizes(batch, events)
    for event in np.flatnonzero(is_copy(events)).tolist():
        span = int(events.span[event]) if len(events.span) else -1
        source = events.spans[span].name if span >= 0 and events.spans[span].kind == COPY else ""
        # In a loop over several steps what comes next is fetched after the metrics, and is theirs by its place.
        is_fetched = source.rpartition("/")[2].startswith(_FETCHES)
        frame = _INPUT if is_fetched else owners.find(source) if source else None
        if frame is not None and frame.owner:
            yield event, frame
        elif int(events.requested_bytes[event]) in sizes:
            yield event, _INPUT
