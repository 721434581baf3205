"""Assembly of a traced step from a capture: owner and category of each allocation. Pure but for the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.pairing import Allocations, pair
from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer, Sighting
from kerasmemwatch.attribution.owners.allocation_owners import row_frames
from kerasmemwatch.attribution.owners.categories import CODES, PHASE_CODES, by_life
from kerasmemwatch.attribution.owners.device_owners import device_frames
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.preexisting import baseline_parts
from kerasmemwatch.attribution.owners.scratch import ops_at_work
from kerasmemwatch.attribution.owners.variable_parts import Part
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer, gradient_bytes, gradient_rows
from kerasmemwatch.records.owners import LOSS, METRICS, Frame
from kerasmemwatch.records.timeline import Timeline

__all__ = ["Evidence", "assemble", "in_order"]

_SCALAR_BYTES = 8


@dataclass(frozen=True)
class Evidence:
    """Knowledge of a step from the hooks and from Python."""

    device: str  # name of the device
    begun_ns: int  # UNIX time at which the step began
    owners: OpOwners = field(default_factory=lambda: OpOwners({}))  # owner of each operation
    log: Sequence[tuple[int, Frame]] = ()  # times, and the top of the stack from then on, on Python's thread
    # By name of an operation that assigns, or whose result is assigned, the variable's buffer.
    assigned: Mapping[str, KnownBuffer] = field(default_factory=dict)
    gradients: Sequence[GradientBuffer] = ()  # the gradients of variables
    known: Sequence[KnownBuffer] = ()  # variables and live tensors after the step
    earlier: Sequence[KnownBuffer] = ()  # eager tensors alive before the step, which may have died in it
    batch: Sequence[BatchPart] = ()  # the tensors of a batch
    calls: Sequence[tuple[int, int]] = ()  # times of the beginning and end of functions that Python's thread called
    # By owner, the bytes that it is known to have held when the step began, at unknown addresses.
    held: Mapping[str, int] = field(default_factory=dict)
    sightings: Sequence[Sighting] = ()  # addresses of variables seen within the step


class _Owners:
    """Numbers the owners of frames."""

    def __init__(self) -> None:
        self.codes: dict[tuple[str, str], int] = {}

    def code(self, owner: str, class_name: str) -> int:
        return self.codes.setdefault((owner, class_name), len(self.codes))


def assemble(events: AllocationEvents, evidence: Evidence) -> tuple[Timeline, dict[str, int]]:
    """Build the timeline of a step.

    Returns:
        The timeline; and by layer path the gradient bytes of its variables, each variable counted once.
    """
    rows = pair(events)
    parts = baseline_parts(
        events,
        rows,
        evidence.known,
        evidence.assigned,
        evidence.batch,
        evidence.held,
        evidence.sightings,
        evidence.earlier,
    )
    rows, renamed = _split(rows, [part for part in parts if part.row >= 0])
    owners = _Owners()
    made = rows.birth >= 0
    ops = ops_at_work(events, rows)
    told = device_frames(events, evidence.owners, evidence.batch)
    frames, which = row_frames(events, rows, ops, evidence.owners, evidence.log, evidence.calls, told)
    requested = events.requested_bytes[rows.event]
    owner = np.array([owners.code(frame.owner, frame.class_name) for frame in frames], np.int32)[which]
    phase = np.array([PHASE_CODES[frame.phase] for frame in frames], np.int8)[which]
    is_metric = np.array([frame.named == METRICS for frame in frames])[which]
    is_loss = np.array([frame.named == LOSS for frame in frames])[which]
    category = by_life(
        phase,
        rows.birth,
        rows.death,
        is_metric=is_metric,
        is_scalar_loss=is_loss & (requested <= _SCALAR_BYTES),
    )
    category[which == 0] = CODES["unattributed"]
    gradients = gradient_rows(
        events,
        rows,
        evidence.gradients,
        [frames[code].owner for code in which.tolist()],
        (phase == PHASE_CODES["backward"]) & ~np.isin(np.arange(len(rows.event)), list(renamed)),
    )
    for row, gradient in gradients.items():
        if phase[row] == PHASE_CODES["forward"]:
            continue  # for most of its life it is what it was made as
        owner[row], category[row] = owners.code(gradient.owner, gradient.class_name), CODES["gradients"]
    for index, buffer in renamed.items():
        owner[index], category[index] = owners.code(buffer.owner, buffer.class_name), CODES[buffer.category]
    lasting = [part for part in parts if part.row < 0]
    extra = [part.buffer for part in lasting]
    count = len(extra)
    phase[~made] = PHASE_CODES["between"]
    timeline = Timeline(
        device=evidence.device,
        requested_bytes=np.concatenate([requested, np.array([e.bytes for e in extra], np.int64)]),
        reserved_bytes=np.concatenate([events.reserved_bytes[rows.event], np.zeros(count, np.int64)]),
        birth=np.concatenate([rows.birth, np.array([part.begin for part in lasting], np.int64)]),
        death=np.concatenate([rows.death, np.array([part.end for part in lasting], np.int64)]),
        address=np.concatenate([events.address[rows.event], np.array([e.address for e in extra], np.uint64)]),
        owner=np.concatenate([owner, np.array([owners.code(e.owner, e.class_name) for e in extra], np.int32)]),
        category=np.concatenate([category, np.array([CODES[e.category] for e in extra], np.int8)]),
        phase=np.concatenate([phase, np.full(count, PHASE_CODES["between"], np.int8)]),
        op=np.concatenate([np.where(made, ops, 0), np.zeros(count, np.int32)]).astype(np.int32),
        time_ns=events.time_ns - evidence.begun_ns,
        in_use_bytes=events.in_use_bytes,
        in_use_before_bytes=events.in_use_before_bytes,
        owners=tuple(owner for owner, _ in owners.codes),
        classes=tuple(class_name for _, class_name in owners.codes),
        ops=events.ops,
    )
    return timeline, gradient_bytes(gradients, requested)


def _split(rows: Allocations, parts: Sequence[Part]) -> tuple[Allocations, dict[int, KnownBuffer]]:
    """Make a row of each part of an allocation's life that is something else, and return the buffers of these rows."""
    # All parts are one chunk to the allocator, so each row keeps the chunk.
    birth, death, event = rows.birth.tolist(), rows.death.tolist(), rows.event.tolist()
    renamed: dict[int, KnownBuffer] = {}
    rest: dict[int, int] = {}

    def cut(row: int, moment: int) -> int:
        """End a row at a moment and begin another there."""
        birth.append(moment)
        death.append(death[row])
        event.append(event[row])
        death[row] = moment
        return len(birth) - 1

    for part in sorted(parts, key=lambda part: part.begin):
        row = rest.get(part.row, part.row)
        if part.begin > birth[row]:
            row = cut(row, part.begin)
        if part.end < death[row]:
            rest[part.row] = cut(row, part.end)
        renamed[row] = part.buffer
    return Allocations(np.array(birth, np.int64), np.array(death, np.int64), np.array(event, np.int64)), renamed


def in_order(timeline: Timeline, paths: Sequence[str]) -> Timeline:
    """Number the owners in the model's order, others last, and drop other devices' operations."""
    rank = {path: index for index, path in enumerate(paths)}
    count = len(timeline.owners)
    order = sorted(range(count), key=lambda code: rank.get(timeline.owners[code], len(rank)))
    codes = np.empty(count, np.int32)
    codes[order] = np.arange(count, dtype=np.int32)
    ops, op = np.unique(timeline.op, return_inverse=True)
    return replace(
        timeline,
        op=op.astype(np.int32),
        ops=tuple(timeline.ops[code] for code in ops.tolist()),
        owner=codes[timeline.owner],
        owners=tuple(timeline.owners[code] for code in order),
        classes=tuple(timeline.classes[code] for code in order),
    )
