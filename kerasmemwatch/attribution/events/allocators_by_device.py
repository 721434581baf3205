"""Allocators of a capture by device, the one that represents the step first. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.allocator_names import HOST
from kerasmemwatch.probes.allocators import ONEDNN_THRESHOLD_BYTES

__all__ = ["by_device", "is_partial"]


def by_device(events: Iterable[AllocationEvents]) -> dict[str, AllocationEvents]:
    """Return the allocators by device: first the one that represents the step, then others with an allocation.

    GPUs come before the host: first the GPU with the most bytes in use. On the host, the busiest allocator comes first.
    """
    ranked = sorted(
        events,
        key=lambda each: (each.on_host, 0 if each.on_host else -int(each.in_use_bytes.max()), -len(each)),
    )
    found: dict[str, AllocationEvents] = {}
    for each in ranked:
        if not found or each.births.any():
            found[each.device if each.device not in found else f"{each.device} ({each.allocator})"] = each
    return found


def is_partial(events: AllocationEvents) -> bool:
    """Whether it reports large allocations only; one that reports all of them has some of a few bytes."""
    sizes = events.requested_bytes[events.births]
    return events.device == HOST and bool(sizes.size) and int(sizes.min()) >= ONEDNN_THRESHOLD_BYTES
