"""Batches that wait on a device for later steps, inferred from the allocator's events. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.pairing import Allocations
from kerasmemwatch.attribution.live.batch_spec import BatchPart, batch_sizes
from kerasmemwatch.attribution.owners.device_owners import is_copy
from kerasmemwatch.records.owners import INPUT_PIPELINE
from kerasmemwatch.records.timeline import Timeline
from kerasmemwatch.units import format_bytes

__all__ = ["ahead_note", "batch_ahead"]


def batch_ahead(events: AllocationEvents, rows: Allocations, batch: Sequence[BatchPart]) -> list[int]:
    """Bytes of a batch's tensors if the step uses one that was on its device before; empty if it is copied there.

    TensorFlow reports how many batches wait in host memory, so only other devices are checked.
    """
    sizes = batch_sizes(batch, events)
    if events.on_host or not sizes:
        return []
    requested = events.requested_bytes[rows.event]
    died = Counter(requested[rows.birth < 0].tolist())
    used_at_once = is_copy(events)[rows.event] & (rows.birth >= 0) & (rows.death < len(events))
    if Counter(sizes) - died or np.isin(requested[used_at_once], sizes).any():
        return []
    return sizes


def ahead_note(timeline: Timeline) -> str:
    """Note that says which bytes of a timeline count as batches waiting on its device; empty without any."""
    whole = (timeline.birth < 0) & (timeline.death >= timeline.num_events) & (timeline.address == 0)
    size = int(timeline.requested_bytes[whole & timeline.is_of(INPUT_PIPELINE)].sum())
    if not size or timeline.device.startswith("CPU"):
        return ""
    return (
        f"{format_bytes(size)} on {timeline.device} are taken for batches that wait there: "
        "the step used a batch that was there before it, and nothing else explains these bytes."
    )
