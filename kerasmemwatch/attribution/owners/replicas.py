"""Gradients that one device has of variables with copies on several devices. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.owners.name_scopes import without_calls
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer

__all__ = ["gradients_on"]


def gradients_on(
    events: AllocationEvents,
    gradients: Iterable[GradientBuffer],
    known: Sequence[KnownBuffer],
    compiled: Iterable[str] = (),
) -> list[GradientBuffer]:
    """Select the gradients that may be on an allocator's device, each for the copy of its variable there.

    Args:
        gradients: Gradients of all devices. Each names any one copy of a distributed variable.
        compiled: Names of operations in programs that ran on the device.

    Returns:
        All gradients if each variable has one copy, except that host memory has no gradients of a GPU's variables.
    """
    device_of = {buffer.key: buffer.device for buffer in known if buffer.key}
    copies = _copies(known, events.device)
    mine = [
        replace(each, key=copies.get(each.key, each.key))
        for each in gradients
        if not events.on_host or each.key in copies or not device_of.get(each.key, "").startswith("GPU:")
    ]
    if not copies:
        return mine
    named = (events.ops[code] for code in np.unique(events.op[events.births]).tolist())
    ran = set(map(without_calls, (*named, *compiled)))
    of_key: dict[int, list[GradientBuffer]] = {}
    for each in dict.fromkeys(mine):
        of_key.setdefault(each.key, []).append(each)
    # Operations of other replicas did not run here.
    return [
        each
        for found in of_key.values()
        for each in [one for one in found if not one.ops or not ran.isdisjoint(one.ops)] or found[:1]
    ]


def _copies(known: Iterable[KnownBuffer], device: str) -> dict[int, int]:
    """By key of a variable's copy on another device of the same kind, the key of the copy on this one."""
    kind_of_device = device.partition(":")[0]
    alike: dict[tuple[str, str, str, int], dict[str, list[int]]] = {}
    for buffer in known:
        if buffer.key and buffer.device.partition(":")[0] == kind_of_device:
            kind = buffer.owner, buffer.class_name, buffer.category, buffer.bytes
            alike.setdefault(kind, {}).setdefault(buffer.device, []).append(buffer.key)
    return {
        other: here
        for keys in alike.values()
        for place, others in keys.items()
        if place != device
        for other, here in zip(others, keys.get(device, ()), strict=False)
    }
