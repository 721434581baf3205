"""Addresses of variables during a step: an update may put a variable's value in another buffer. Pure.

Until the old buffer dies there are two. The variable is the old one until then, and the new one afterwards. Before
that, the new one is what its operation made it for. So no byte of a variable counts twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.pairing import Allocations
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer, Sighting
from kerasmemwatch.attribution.owners.op_owners import suffixes
from kerasmemwatch.attribution.owners.variable_parts import NUMBER_BYTES, Lasting, Part

__all__ = ["VariablePlaces", "variable_places"]


@dataclass(frozen=True)
class VariablePlaces:
    """Buffers of variables."""

    parts: tuple[Part, ...]  # allocations that hold a variable for a part of their life
    lasting: tuple[Lasting, ...]  # other buffers that hold a variable


def variable_places(
    events: AllocationEvents,
    rows: Allocations,
    known: Sequence[KnownBuffer],
    assigned: Mapping[str, KnownBuffer] | None = None,
    sightings: Iterable[Sighting] = (),
) -> VariablePlaces:
    """Follow each variable through a step.

    Args:
        known: Buffers that are alive after the step; those with a key are variables.
        assigned: By name of an operation that assigns, the variable's buffer.
    """
    moves, claims = _Moves(events, rows, assigned or {}, sightings), _Claims(len(events))
    late = list[KnownBuffer]()
    for variable in {buffer.key: buffer for buffer in known if buffer.key}.values():
        old, new = moves.old(variable), moves.new(variable)
        if old is None and new is not None and not variable.before:
            late.append(variable)
            continue
        found = moves.chain(variable, old, new)
        claims.parts += found
        if not found and not moves.is_within(variable):
            claims.lasting(variable.address, -1, None, variable)
        if found and old is None and variable.before:
            # Its old buffer is shared, and the other one still has it.
            claims.lasting(variable.before, -1, found[0].begin, variable)
        if found and new is None and variable.address:
            # It took over an existing buffer, such as a constant of the function.
            claims.lasting(variable.address, found[-1].end, None, variable)
    # Variables with an unknown old place come last, after all others have theirs.
    free = moves.free_strays({part.row for part in claims.parts})
    for variable in late:
        claims.parts += moves.chain(variable, moves.old_by_size(variable, free), moves.new(variable))
    return claims.places({buffer.address: buffer for buffer in known if buffer.address and not buffer.key})


class _Claims:
    """Claims of variables to buffers; of two that share a buffer, as after ``a.assign(b)``, one has it at a time."""

    def __init__(self, count: int) -> None:
        self.parts = list[Part]()
        self._count = count
        self._lasting: dict[tuple[int, int], list[Part]] = {}

    def lasting(self, address: int, begin: int, end: int | None, variable: KnownBuffer) -> None:
        """Claim a buffer without an event for a variable."""
        alone = 0 if address and variable.bytes > NUMBER_BYTES else variable.key
        part = Part(-1, begin, self._count if end is None else end, variable)
        # A variable that moves after the step is nowhere else within it.
        if part.begin < part.end:
            self._lasting.setdefault((address, alone), []).append(part)

    def places(self, others: Mapping[int, KnownBuffer]) -> VariablePlaces:
        """Settle the claims.

        Args:
            others: By address, buffers that are not variables.
        """
        by_row: dict[int, list[Part]] = {}
        for part in self.parts:
            by_row.setdefault(part.row, []).append(part)
        parts = list[Part]()
        for found in by_row.values():
            first, *rest = found
            is_number = first.buffer.bytes <= NUMBER_BYTES
            parts += [first, *(replace(part, row=-1) for part in rest)] if is_number else _in_turn(found)
        lasting = [
            self._filled(address, _in_turn(found), others.get(address)) for (address, _), found in self._lasting.items()
        ]
        return VariablePlaces(tuple(parts), tuple(lasting))

    def _filled(self, address: int, parts: Sequence[Part], other: KnownBuffer | None) -> Lasting:
        """Return a lasting buffer, which is ``other`` while it is no variable."""
        buffer = replace(parts[0].buffer, address=address)
        other = other or KnownBuffer("unattributed", "", "unattributed", buffer.bytes, address)
        ends = [-1, *(part.end for part in parts)]
        begins = [*(part.begin for part in parts), self._count]
        gaps = [Part(-1, end, begin, other) for end, begin in zip(ends, begins, strict=True) if end < begin]
        return Lasting(buffer, tuple(sorted([*parts, *gaps], key=lambda part: part.begin)))


def _in_turn(claims: Sequence[Part]) -> list[Part]:
    """Decide which claim has a buffer when: weights before others, then the longest claim."""
    ranked = sorted(claims, key=lambda part: (part.buffer.category != "weights", part.begin - part.end))
    moments = sorted({moment for part in claims for moment in (part.begin, part.end)})
    found = list[Part]()
    for begin, end in itertools.pairwise(moments):
        claim = next((part for part in ranked if part.begin <= begin and end <= part.end), None)
        if claim is not None and found and found[-1].end == begin and found[-1].buffer is claim.buffer:
            found[-1] = replace(found[-1], end=end)
        elif claim is not None:
            found.append(replace(claim, begin=begin, end=end))
    return found


class _Moves:
    """Allocations that may hold a variable."""

    def __init__(
        self,
        events: AllocationEvents,
        rows: Allocations,
        assigned: Mapping[str, KnownBuffer],
        sightings: Iterable[Sighting],
    ) -> None:
        self._rows, self._count = rows, len(events)
        self._requested = events.requested_bytes[rows.event]
        address = events.address[rows.event]
        died, outlived = rows.birth < 0, (rows.birth >= 0) & (rows.death == len(events))
        self._strays = {int(address[row]): row for row in np.flatnonzero(died).tolist()}
        self._survivors = {int(address[row]): row for row in np.flatnonzero(outlived).tolist()}
        self._named = _named(events, rows, assigned)
        sightings = list(sightings)
        self._seen = _seen(events, rows, sightings)
        # Places of the models' variables are known; the first sighting of others may precede the step.
        self._first = {each.key: each for each in reversed(sightings)}
        self._time_ns = events.time_ns

    def old(self, variable: KnownBuffer) -> int | None:
        """Return the allocation that held the variable before the step, and died in it."""
        row = self._strays.get(variable.before) if variable.before else self._first_stray(variable)
        return row if row is not None and self._fits(row, variable) else None

    def _first_stray(self, variable: KnownBuffer) -> int | None:
        """Return the allocation of its first sighting, if that is older than the step."""
        seen = self._first.get(variable.key)
        row = None if seen is None else self._strays.get(seen.address)
        if seen is None or row is None or self._time_ns[int(self._rows.death[row])] < seen.time_ns:
            return None
        return row

    def new(self, variable: KnownBuffer) -> int | None:
        """Return the allocation that was made in the step and holds the variable at its end."""
        if variable.address:
            row = self._survivors.get(variable.address)
            return row if row is not None and self._fits(row, variable) else None
        # Reading it gives a copy, as after a scatter: only the operation that made it identifies it.
        made = [row for row in self._made_for(variable) if self._rows.death[row] == self._count]
        return max(made, key=lambda row: int(self._rows.birth[row]), default=None)

    def is_within(self, variable: KnownBuffer) -> bool:
        """Whether it is part of a buffer made in the step, which belongs to another variable or to its maker."""
        return variable.address in self._survivors

    def free_strays(self, taken: Container[int]) -> dict[int, list[int]]:
        """By size, the allocations that died in the step and are not taken."""
        found: dict[int, list[int]] = {}
        for row in self._strays.values():
            if row not in taken:
                found.setdefault(int(self._requested[row]), []).append(row)
        return found

    def old_by_size(self, variable: KnownBuffer, free: Mapping[int, list[int]]) -> int | None:
        """Take the first unclaimed allocation of its size that died in the step, unless the step made the variable."""
        strays = [] if self._seen.get(variable.key) else free.get(variable.bytes)
        return strays.pop(0) if strays else None

    def chain(self, variable: KnownBuffer, old: int | None, new: int | None) -> list[Part]:
        """List the variable's allocations in order, from the old to the new."""
        birth, death = self._rows.birth, self._rows.death
        row = self._became_first(variable, new) if old is None else old
        begin = -1 if row is None else int(birth[row])
        found = list[Part]()
        while row is not None:
            end = int(death[row])
            if new is not None and row != new and end == self._count:
                # Another one shares the old buffer.
                end = int(birth[new])
            if begin < end:
                found.append(Part(row, begin, end, variable))
            row = None if row == new or end == self._count else self._next(variable, end, new)
            begin = end if row is None else max(end, int(birth[row]))
        return found

    def _became_first(self, variable: KnownBuffer, new: int | None) -> int | None:
        """Return the first allocation that it moved to."""
        seen = [row for row in self._seen.get(variable.key, ()) if self._fits(row, variable)]
        return min([*seen, *([] if new is None else [new])], key=lambda row: int(self._rows.birth[row]), default=None)

    def _next(self, variable: KnownBuffer, event: int, new: int | None) -> int | None:
        """Return its allocation at the event where its buffer dies, else the next one."""
        birth, death = self._rows.birth, self._rows.death
        ends = [] if new is None else [new]
        candidates = [*ends, *self._made_for(variable)]
        alive = [row for row in candidates if birth[row] <= event < death[row]]
        if alive:
            return max(alive, key=lambda row: int(death[row]))
        return min((row for row in candidates if birth[row] > event), key=lambda row: int(birth[row]), default=None)

    def _made_for(self, variable: KnownBuffer) -> list[int]:
        found = (*self._seen.get(variable.key, ()), *self._named.get(variable.key, ()))
        return [row for row in found if self._fits(row, variable)]

    def _fits(self, row: int, variable: KnownBuffer) -> bool:
        return int(self._requested[row]) == variable.bytes


def _named(events: AllocationEvents, rows: Allocations, assigned: Mapping[str, KnownBuffer]) -> dict[int, list[int]]:
    """By variable, the allocations of operations that assign to it."""
    of_op = dict[int, int]()
    for index, full in enumerate(events.ops):
        name = next((name for name in suffixes(full) if name in assigned), None)
        if name is not None:
            of_op[index] = assigned[name].key
    found: dict[int, list[int]] = {}
    if of_op:
        ops = events.op[rows.event]
        for row in np.flatnonzero(np.isin(ops, list(of_op)) & (rows.birth >= 0)).tolist():
            found.setdefault(of_op[int(ops[row])], []).append(row)
    return found


def _seen(events: AllocationEvents, rows: Allocations, sightings: Sequence[Sighting]) -> dict[int, list[int]]:
    """By variable, the allocations made in the step in which it was seen."""
    if not sightings:
        return {}
    by_address: dict[int, list[int]] = {}
    for row, address in enumerate(events.address[rows.event].tolist()):
        by_address.setdefault(address, []).append(row)
    found: dict[int, list[int]] = {}
    for key, address, time_ns in sightings:
        moment = int(np.searchsorted(events.time_ns, time_ns))
        alive = [row for row in by_address.get(address, ()) if 0 <= rows.birth[row] < moment <= rows.death[row]]
        if alive:
            row = max(alive, key=lambda row: int(rows.birth[row]))
            if row not in found.setdefault(key, []):
                found[key].append(row)
    return found
