"""Owners of a device's allocations other than its operations' outputs: trials, programs' blocks and copies. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.host_spans import AUTOTUNING, COPY, RUN
from kerasmemwatch.attribution.live.batch_spec import BatchPart, batch_sizes
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.records.owners import AUTOTUNING as AUTOTUNING_OWNER
from kerasmemwatch.records.owners import FUNCTIONS, INPUT_PIPELINE, Frame

__all__ = ["RECEIVED", "autotuned", "device_frames", "is_copy"]

# Not a phase of a model: a trial is neither kept for the backward pass nor a gradient.
_TRIAL = Frame(AUTOTUNING_OWNER, "", "between")
_BLOCK, _INPUT = Frame(FUNCTIONS, "", "update"), Frame(INPUT_PIPELINE, "", "input")
# TensorFlow's name for the copy of a tensor sent by another device of the process.
RECEIVED = "SameWorkerRecvDone"
_FETCHES = ("IteratorGetNext", "MultiDeviceIteratorGetNext")
# A kernel that tries algorithms gives each its own workspace.
_MIN_TRIED = 2


def device_frames(events: AllocationEvents, owners: OpOwners, batch: Sequence[BatchPart]) -> dict[int, Frame]:
    """Find the owners of allocations that have no operation's name.

    Returns:
        By event, the frame. A copy belongs to the owner of the operation whose result is copied. If that is unknown,
        a copy as large as a tensor of the batch is an input.
    """
    found = dict.fromkeys(np.flatnonzero(events.births & events.within(RUN)).tolist(), _BLOCK)
    found.update(_copies(events, owners, batch))
    found.update(dict.fromkeys(np.flatnonzero(autotuned(events)).tolist(), _TRIAL))
    return found


def autotuned(events: AllocationEvents) -> NDArray[np.bool_]:
    """``bool[num_events]``, whether the allocation was made to try algorithms.

    XLA tries them while it compiles a program. A convolution of a graph tries them in its first run: the library
    allocates workspaces directly, while the kernel allocates through its context.
    """
    tried = events.births & events.within(AUTOTUNING)
    # In host memory, libraries may allocate scratch memory at any time.
    if not len(events.of_kernel) or events.on_host:
        return tried
    named = np.flatnonzero(events.births & (events.op != 0))
    works = np.stack([events.op[named], events.run[named], events.thread[named]])
    _, work = np.unique(works, axis=1, return_inverse=True)
    work = work.reshape(-1)
    of_kernel = events.of_kernel[named]
    is_trial = (np.bincount(work, of_kernel) > 0) & (np.bincount(work, ~of_kernel) >= _MIN_TRIED)
    tried[named[is_trial[work] & ~of_kernel]] = True
    return tried


def is_copy(events: AllocationEvents) -> NDArray[np.bool_]:
    """``bool[num_events]``, whether the allocation holds a tensor that another device sent."""
    received = np.array([name == RECEIVED for name in events.ops] or [False])[events.op]
    found: NDArray[np.bool_] = events.births & (received | events.within(COPY))
    return found


def _copies(events: AllocationEvents, owners: OpOwners, batch: Sequence[BatchPart]) -> Iterator[tuple[int, Frame]]:
    sizes = batch_sizes(batch, events)
    for event in np.flatnonzero(is_copy(events)).tolist():
        span = int(events.span[event]) if len(events.span) else -1
        source = events.spans[span].name if span >= 0 and events.spans[span].kind == COPY else ""
        # A loop over several steps fetches the next batch after the metrics, so its place suggests the metrics.
        is_fetched = source.rpartition("/")[2].startswith(_FETCHES)
        frame = _INPUT if is_fetched else owners.find(source) if source else None
        if frame is not None and frame.owner:
            yield event, frame
        elif int(events.requested_bytes[event]) in sizes:
            yield event, _INPUT
