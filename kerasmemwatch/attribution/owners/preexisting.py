"""Buffers that were alive before a step, named by Python objects or by their death within the step. Pure.

A chunk may be up to twice as large as the request, and the sizes of chunks from before the step are unknown. So bytes
in use beyond the named buffers count as rounding, as far as there is room for it between them. Bytes beyond the
maximum rounding count as ``unattributed``.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.chunk_addresses import ChunkPlaces, chunk_bytes
from kerasmemwatch.attribution.events.pairing import Allocations
from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer, Sighting
from kerasmemwatch.attribution.owners.batches_ahead import batch_ahead
from kerasmemwatch.attribution.owners.variable_moves import VariablePlaces, variable_places
from kerasmemwatch.attribution.owners.variable_parts import Lasting, Part
from kerasmemwatch.records.owners import EARLIER_MODELS, INPUT_PIPELINE, KEPT_TAPES

__all__ = ["baseline_parts"]

# Categories of what owners held at the start.
_HELD = {INPUT_PIPELINE: "inputs", KEPT_TAPES: "activations", EARLIER_MODELS: "other"}
# What is left after all else is theirs.
_LAST = (INPUT_PIPELINE, EARLIER_MODELS)


def baseline_parts(
    events: AllocationEvents,
    rows: Allocations,
    known: Sequence[KnownBuffer],
    assigned: Mapping[str, KnownBuffer],
    batch: Sequence[BatchPart] = (),
    held: Mapping[str, int] | None = None,
    sightings: Sequence[Sighting] = (),
    earlier: Sequence[KnownBuffer] = (),
) -> tuple[Part, ...]:
    """Name the buffers that were alive before the step, and what variables became in it.

    Args:
        events: The allocator's events.
        rows: The same, paired.
        known: Buffers that are alive after the step, and those that input pipelines held when it began.
        assigned: By name of an operation that assigns, or whose result is assigned, the variable's buffer.
        batch: The tensors of a batch.
        held: By owner (the input pipeline, tapes of earlier steps, constants of earlier models), the bytes that it is
            known to have held when the step began, at unknown addresses: they are among otherwise unexplained bytes.
        sightings: Addresses of variables seen within the step.
        earlier: Eager tensors that were alive before the step. They name the buffers that died in it.

    Returns:
        Parts of allocations' lives in which they are something else: a variable, or a buffer that died in the step.
        Row -1 means that there is no event.
    """
    places = variable_places(events, rows, known, assigned, sightings)
    left_of = dict(held or {})
    kept = [buffer for buffer in known if buffer.named == INPUT_PIPELINE and not buffer.address]
    died = tuple(_died(events, rows, {part.row for part in places.parts}, batch, left_of, kept, earlier))
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
    earlier: Iterable[KnownBuffer],
) -> Iterator[Part]:
    """Yield older non-variables that died in the step, and subtract them from what their owner held or kept."""
    requested = events.requested_bytes[rows.event]
    batches = {int(size) for size in requested[events.from_input_pipeline[rows.event] & (rows.birth >= 0)].tolist()}
    tensors = {(buffer.address, buffer.bytes): buffer for buffer in earlier}
    for row in np.flatnonzero(rows.birth < 0).tolist():
        size, death = int(requested[row]), int(rows.death[row])
        if row in named:
            continue
        tensor = tensors.get((int(events.address[rows.event[row]]), size))
        if tensor is not None:
            yield Part(row, -1, death, tensor)
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
    """Yield the other buffers that were alive throughout the step.

    A tensor belongs to its maker in the step, as does a buffer that it is a part of. A tensor that shares a variable's
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
    """Yield buffers that lived throughout the step, as far as the bytes in use leave room for them."""
    left = events.in_use_before_bytes - int(events.reserved_bytes[rows.event][rows.birth < 0].sum())
    buffers = [each.buffer for each in lasting]
    known = [buffer.address for buffer in buffers if buffer.address and (buffer.key or buffer.constant)]
    chunks = np.concatenate([events.address, np.array(known, np.uint64)])
    places = ChunkPlaces(chunks, [buffer.address for buffer in buffers if buffer.address])
    tapes = _held(KEPT_TAPES, held.get(KEPT_TAPES, 0))
    numbers = set[int]()
    # Some of the tensors are held by tapes, so the remaining bytes may be too few for them: the largest come first.
    rounding = _Rounding(places)
    elsewhere = sum(held.get(owner, 0) for owner in _LAST)
    for each in sorted([tapes, *lasting], key=lambda each: (_doubt(each.buffer, places), -each.buffer.bytes)):
        buffer = each.buffer
        least = buffer.reserved or chunk_bytes(buffer.bytes)
        if each is tapes:
            # The allocator's own figure includes rounding.
            least = min(buffer.bytes, left)
            each = _held(KEPT_TAPES, least)
        elif each.is_number and buffer.address in numbers:
            yield each
            continue
        if 0 < least <= left and (least <= 2 * (left - elsewhere) or not _may_be_elsewhere(buffer, places)):
            left -= least
            if buffer.owner != KEPT_TAPES and not buffer.reserved:
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
    # Part of these bytes may be elsewhere.
    for owner in _LAST:
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
    """Bounds on how much larger chunks may be than the requests.

    Attributes:
        bounded: Bytes for chunks bounded by another buffer that begins before that.
        loose: Bytes for the others: they may be up to twice as large, but seldom are.
    """

    def __init__(self, places: ChunkPlaces) -> None:
        self.bounded, self.loose = 0, 0
        self._places = places

    def add(self, address: int, requested: int) -> None:
        """Add a chunk; an address of 0 is unknown."""
        most = chunk_bytes(requested) - chunk_bytes(1)
        room = self._places.room_behind(address, requested)
        if room is not None and room < most:
            self.bounded += room
        else:
            self.loose += most


def _may_be_elsewhere(buffer: KnownBuffer, places: ChunkPlaces) -> bool:
    """Whether a tensor may be an array of NumPy's, which a tensor shares if it is aligned.

    It counts if most of its bytes would have no other explanation.
    """
    return bool(buffer.address) and not (buffer.key or buffer.constant or places.begins(buffer.address))


def _doubt(buffer: KnownBuffer, places: ChunkPlaces) -> int:
    """Rank how unlikely a buffer is to be the allocator's: tensors of ``tf.numpy_function`` are NumPy's arrays."""
    if buffer.key:
        return 0
    if not buffer.address:
        return 1  # known to be nowhere else
    if buffer.named == INPUT_PIPELINE:
        return 2
    if buffer.constant:
        return 4  # alive at the first call of its function
    return 3 if places.may_begin(buffer.address) else 5
