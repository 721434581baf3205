"""Events of a GPU's allocator for a compiled step, derived from XLA's plan of it. Pure.

XLA plans a program's memory ahead, and a capture holds that plan and the programs that ran. So where the allocator
reports nothing, the plan replaces it: for each run the batch, then the program's requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents, capture_start_ns
from kerasmemwatch.attribution.events.chunk_addresses import chunk_bytes
from kerasmemwatch.attribution.events.host_spans import RUN, Span, program_runs
from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.owners.device_owners import RECEIVED
from kerasmemwatch.attribution.xla.program_memory import XlaAllocation
from kerasmemwatch.attribution.xla.program_runs import module_names
from kerasmemwatch.records.timeline import Timeline

__all__ = ["nowhere", "planned_events"]

# Higher than any address of a GPU.
_FIRST_ADDRESS = 1 << 62


def planned_events(
    space: Any,
    device: str,
    programs: Mapping[int, Sequence[XlaAllocation]],
    known: Iterable[KnownBuffer],
    batch: Sequence[BatchPart],
) -> AllocationEvents | None:
    """Derive the events of a step.

    Args:
        known: Buffers on the GPU after the step, which are in use before it, too.
        batch: The tensors of a batch; those of unknown size are left out.

    Returns:
        The events; ``None`` if no program ran, or one without a plan.
    """
    named = module_names(space)
    by_name = {named[program_id]: asked for program_id, asked in programs.items() if program_id in named and asked}
    runs = program_runs(space)
    if not runs or any(name not in by_name for _, name in runs):
        return None
    lines = _Lines()
    before: list[tuple[int, int]] = []
    for number, (time_ns, name) in enumerate(runs):
        lines.at(time_ns)
        copies = [lines.born(part.bytes, op=RECEIVED) for part in batch if not part.per_row]
        asked = [request for request in by_name[name] if request.bytes]
        born = {request.index: lines.born(request.bytes, span=number) for request in asked}
        # The results of the previous run are no longer needed.
        lines.died(before)
        lines.died([born[request.index] for request in asked if request.kind == "temp"])
        lines.died(copies)
        before = [born[request.index] for request in asked if request.kind != "temp"]
    places = {buffer.address or -number: buffer.bytes for number, buffer in enumerate(known, 1)}
    in_use = sum(map(chunk_bytes, places.values()))
    spans = tuple(Span(RUN, name, number) for number, (_, name) in enumerate(runs))
    return lines.events(device, in_use, spans, capture_start_ns(space))


def nowhere(timeline: Timeline) -> Timeline:
    """Return a timeline of planned events without addresses, which only distinguished the events."""
    return replace(timeline, address=np.where(timeline.address >= _FIRST_ADDRESS, 0, timeline.address))


class _Lines:
    """Collects events in order."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int, int, int]] = []
        self._ops = [""]
        self._time_ns = self._count = 0

    def at(self, time_ns: int) -> None:
        """Set the time of the events that follow."""
        self._time_ns = max(self._time_ns, time_ns)

    def born(self, size: int, *, op: str = "", span: int = -1) -> tuple[int, int]:
        """Add an allocation, and return its address and size."""
        if op not in self._ops:
            self._ops.append(op)
        self._count += 1
        address = _FIRST_ADDRESS + (self._count << 40)
        self._add(1, address, size, self._ops.index(op), span)
        return address, size

    def died(self, born: Iterable[tuple[int, int]]) -> None:
        """Add the deaths of allocations."""
        for address, size in born:
            self._add(-1, address, size, 0, -1)

    def _add(self, kind: int, address: int, size: int, op: int, span: int) -> None:
        self._rows.append((kind, self._time_ns, address, size, op, span))
        self._time_ns += 1

    def events(self, device: str, in_use_before: int, spans: tuple[Span, ...], began_ns: int) -> AllocationEvents:
        """Return all events, as those of an allocator of the device."""
        kind, times, address, size, op, span = np.array(self._rows, np.int64).reshape(-1, 6).T
        reserved = np.array(list(map(chunk_bytes, size.tolist())), np.int64)
        return AllocationEvents(
            allocator=device.replace(":", "_"),
            births=kind > 0,
            time_ns=began_ns + times,
            address=address.astype(np.uint64),
            requested_bytes=size,
            reserved_bytes=reserved,
            in_use_bytes=in_use_before + np.cumsum(kind * reserved),
            op=op.astype(np.int32),
            run=np.zeros(len(kind), np.int64),
            thread=np.zeros(len(kind), np.int32),
            ops=tuple(self._ops),
            threads=("python",),
            began_ns=began_ns,
            of_kernel=np.zeros(len(kind), bool),
            span=span,
            spans=spans,
        )
