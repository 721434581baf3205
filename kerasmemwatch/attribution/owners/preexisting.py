"""What was alive before a step: each buffer named where Python or its death within the step can name it. Pure.

An allocator's chunk may be up to twice what was asked for, and nobody tells how large the chunks are that were taken
before the step. So what is in use beyond the named buffers counts as rounding as far as there is room for that between
them. If what is left is more than the rounding of the others can be, it counts as ``unattributed``.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.chunk_addresses import ChunkPlaces, chunk_bytes
from kerasmemwatch.attribution.events.pairing import Allocations
from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.live.live_buffers import EARLIER_MODELS, KnownBuffer, Sighting
from kerasmemwatch.attribution.live.persistent_tapes import KEPT_TAPES
from kerasmemwatch.attribution.owners.batches_ahead import batch_ahead
from kerasmemwatch.attribution.owners.variable_moves import VariablePlaces, variable_places
from kerasmemwatch.attribution.owners.variable_parts import Lasting, Part
from kerasmemwatch.records.owners import INPUT_PIPELINE

__all__ = ["baseline_parts"]

# The categories of what is held somewhere.
_HELD = {INPUT_PIPELINE: "inputs", KEPT_TAPES: "activations", EARLIER_MODELS: "other"}


def baseline_parts(
    events: AllocationEvents,
    rows: Allocations,
    known: Sequence[KnownBuffer],
    assigned: Mapping[str, KnownBuffer],
    batch: Sequence[BatchPart] = (),
    held: Mapping[str, int] | None = None,
    sightings: Sequence[Sighting] = (),
) -> tuple[Part, ...]:
    """Name what was alive before the step, and what a variable became in it.

    Args:
        events: The allocator's events.
        rows: They, paired.
        known: Buffers that are alive after the step, and what input pipelines kept as it began.
        assigned: By name of an operation that assigns, or whose result is assigned, the variable.
        batch: The tensors of a batch.
        held: By owner (the input pipeline, tapes of earlier steps, constants of earlier models), the bytes that it is
            known to have held when the step began, though not where: they are among what nothing else explains.
        sightings: Where variables were seen within the step.

    Returns:
        Allocations that are something else for a part of their life, or for all of it: a variable, or what died in
        the step. Those of row -1 have no event.
    """
    places = variable_places(events, rows, known, assigned, sightings)
    left_of = dict(held or {})
    kept = [buffer for buffer in known if buffer.owner == INPUT_PIPELINE and not buffer.address]
    died = tuple(_died(events, rows, {part.row for part in places.parts}, batch, left_of, kept))
    gone = {id(part.buffer) for part in died}
    known = [buffer for buffer in known if id(buffer) not in gone]
    lasting = [*places.lasting, *map(Lasting, _tensors(events, rows, known, places))]
    count = len(events)
    extra = _extra(events, rows, lasting, left_of, batch_ahead(events, rows, batch))
    return (
        *places.parts,
        *died,
        *(part for each in extra for part in each.parts or (Part(-1, -1, count, each.buffer),)),
    )


def _died(
    events: AllocationEvents,
    rows: Allocations,
    named: Container[int],
    batch: Sequence[BatchPart],
    left_of: dict[str, int],
    kept: list[KnownBuffer],
) -> Iterator[Part]:
    """What was alive before the step, died in it and is no variable; takes it off what its owner held or kept."""
    requested = events.requested_bytes[rows.event]
    batches = {int(size) for size in requested[events.piped[rows.event] & (rows.birth >= 0)].tolist()}
    for row in np.flatnonzero(rows.birth < 0).tolist():
        size, death = int(requested[row]), int(rows.death[row])
        if row in named:
            continue
        array = None if size in batches else next((each for each in kept if each.bytes == size), None)
        if array is not None:
            kept.remove(array)
            yield Part(row, -1, death, array)
        elif size in batches or any(part.rows(size) for part in batch):
            yield Part(row, -1, death, KnownBuffer(INPUT_PIPELINE, "", _HELD[INPUT_PIPELINE], size))
            left_of[INPUT_PIPELINE] = max(0, left_of.get(INPUT_PIPELINE, 0) - chunk_bytes(size))
        elif size <= left_of.get(KEPT_TAPES, 0):
            yield Part(row, -1, death, KnownBuffer(KEPT_TAPES, "", _HELD[KEPT_TAPES], size))
            left_of[KEPT_TAPES] -= size


def _tensors(
    events: AllocationEvents, rows: Allocations, known: Iterable[KnownBuffer], places: VariablePlaces
) -> Iterator[KnownBuffer]:
    """What else was alive all through the step.

    A tensor belongs to whoever made it in the step, as does a buffer that it is a part of; one that shares a variable's
    buffer is the variable.
    """
    made = (rows.birth >= 0) & (rows.death == len(events))
    others = {*events.address[rows.event[made]].tolist(), *(each.buffer.address for each in places.lasting)} - {0}
    return (buffer for buffer in known if not buffer.key and buffer.address not in others)


def _extra(
    events: AllocationEvents,
    rows: Allocations,
    lasting: Sequence[Lasting],
    held: Mapping[str, int],
    ahead: Sequence[int],
) -> Iterator[Lasting]:
    """What lived all through the step, as far as there is room for it in what was in use."""
    left = events.in_use_before_bytes - int(events.reserved_bytes[rows.event][rows.birth < 0].sum())
    buffers = [each.buffer for each in lasting]
    known = [buffer.address for buffer in buffers if buffer.address and (buffer.key or buffer.constant)]
    chunks = np.concatenate([events.address, np.array(known, np.uint64)])
    places = ChunkPlaces(chunks, [buffer.address for buffer in buffers if buffer.address])
    tapes = _held(KEPT_TAPES, held.get(KEPT_TAPES, 0))
    numbers = set[int]()
    # Among the tensors are some that tapes hold, so what is left for them may be too little: the largest come first.
    rounding = _Rounding(places)
    for each in sorted([tapes, *lasting], key=lambda each: (_doubt(each.buffer, places), -each.buffer.bytes)):
        buffer = each.buffer
        least = chunk_bytes(buffer.bytes)
        if each is tapes:
            # By the allocator's own figure: rounding is a part of it.
            least = min(buffer.bytes, left)
            each = _held(KEPT_TAPES, least)
        elif each.is_number and buffer.address in numbers:
            yield each
            continue
        if 0 < least <= left:
            left -= least
            if buffer.owner != KEPT_TAPES:
                rounding.add(buffer.address, buffer.bytes)
            if each.is_number and buffer.address:
                numbers.add(buffer.address)
            yield each
    left = max(0, left - rounding.bounded)
    batch_bytes = sum(map(chunk_bytes, ahead))
    if ahead and left >= batch_bytes:
        count, left = divmod(left, batch_bytes)
        rounding.add(0, count * batch_bytes)
        yield _held(INPUT_PIPELINE, count * sum(ahead))
    # Part of it may lie elsewhere.
    for owner in (INPUT_PIPELINE, EARLIER_MODELS):
        some = min(held.get(owner, 0), left - rounding.loose)
        if some > 0:
            left -= some
            rounding.add(0, some)
            yield _held(owner, some)
    if left > rounding.loose:
        yield Lasting(KnownBuffer("unattributed", "", "unattributed", left))


def _held(owner: str, size: int) -> Lasting:
    return Lasting(KnownBuffer(owner, "", _HELD[owner], size))


class _Rounding:
    """By how much chunks may be larger than what was asked for, at most.

    Attributes:
        bounded: Of those behind which another buffer begins before that.
        loose: Of the others: they may be up to twice as large, and seldom are.
    """

    def __init__(self, places: ChunkPlaces) -> None:
        self.bounded, self.loose = 0, 0
        self._places = places

    def add(self, address: int, requested: int) -> None:
        """One more chunk; an address of 0 is unknown."""
        most = chunk_bytes(requested) - chunk_bytes(1)
        room = self._places.room_behind(address, requested)
        if room is not None and room < most:
            self.bounded += room
        else:
            self.loose += most


def _doubt(buffer: KnownBuffer, places: ChunkPlaces) -> int:
    """How unlikely a buffer is to be the allocator's: tensors of ``tf.numpy_function`` lie in NumPy's arrays."""
    if buffer.key:
        return 0
    if not buffer.address:
        return 1  # known not to be anywhere else
    if buffer.owner == INPUT_PIPELINE:
        return 2
    if buffer.constant:
        return 4  # alive when its function was called first
    return 3 if places.may_begin(buffer.address) else 5
