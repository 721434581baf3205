"""Expansion of a compiled step's timeline: logical buffers replace the block that holds them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.attribution.owners.categories import CODES, PHASE_CODES
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.xla.buffer_owners import XlaCategories
from kerasmemwatch.attribution.xla.program_memory import XlaBuffer, XlaModule, live_bytes
from kerasmemwatch.attribution.xla.program_runs import XlaRun
from kerasmemwatch.records.owners import Frame
from kerasmemwatch.records.timeline import Timeline
from kerasmemwatch.units import format_bytes

__all__ = ["CompiledRun", "compiled_runs", "expand", "unused_note"]

_NOBODY = "unattributed"


@dataclass(frozen=True)
class CompiledRun:
    """A run of a compiled program within a timeline."""

    module: XlaModule  # the program
    rows: Mapping[int, int]  # by index of the program's allocation, the timeline's row
    event: int  # the event after which its schedule begins
    end: int  # the event before which its schedule has ended


def compiled_runs(timeline: Timeline, runs: Sequence[XlaRun], modules: Mapping[int, XlaModule]) -> list[CompiledRun]:
    """Find the rows of compiled programs' allocations, without programs that a layer called.

    A program that a layer called is an operation among others: its blocks are temporaries of the layer, and its
    results' categories depend on their lifetimes. Its buffers' names are the same in all calls, so they identify none.

    Args:
        timeline: Made of the events in which the runs were found, in the same order.
    """
    row_of = {int(birth): row for row, birth in enumerate(timeline.birth.tolist()) if birth >= 0}
    found = []
    for run in runs:
        called = timeline.classes[timeline.owner[row_of[max(run.births.values())]]]
        if run.program_id in modules and not called:
            rows = {index: row_of[birth] for index, birth in run.births.items()}
            last = max(run.births.values())
            first_death = min(int(timeline.death[row]) for row in rows.values())
            found.append(CompiledRun(modules[run.program_id], rows, last, max(last + 1, first_death)))
    return found


def expand(
    timeline: Timeline,
    runs: Sequence[CompiledRun],
    owners: OpOwners,
    categories: XlaCategories,
) -> Timeline:
    """Replace blocks by their buffers.

    A schedule's positions become events between the block's birth and its death. The block keeps its row with its chunk
    and 0 requested bytes: its unused part at a moment is slack.
    """
    runs = sorted(runs, key=lambda run: run.event)
    shift = _Shift(runs)
    opened = _Opened(timeline)
    for number, run in enumerate(runs):
        begin = run.event + 1 + shift.before(number)
        for buffer, (found, category) in zip(run.module.buffers, categories.of_buffers(run.module), strict=True):
            row = run.rows.get(buffer.allocation_index)
            if row is None or buffer.alias_of is not None:
                continue
            if buffer.kind == "output":
                # The row of a result is its allocation's, which outlives the run. A result that no instruction makes is
                # the table of pointers to all results, and has no owner.
                if found.owner != _NOBODY or owners.find(buffer.op_name) is not None:
                    opened.rename(row, found, category)
                continue
            end = min(begin + buffer.last + 1, begin + run.module.length)
            opened.add(buffer, begin + buffer.first, end, found, category)
        for allocation in run.module.requests:
            if allocation.kind == "temp" and allocation.index in run.rows:
                opened.empty(run.rows[allocation.index])
    return opened.timeline(timeline, shift)


class _Shift:
    """New positions of a timeline's events after each run's schedule is inserted after the birth of its last block."""

    def __init__(self, runs: Sequence[CompiledRun]) -> None:
        self._starts = np.array([run.event for run in runs], np.int64)
        self._sums = np.concatenate([[0], np.cumsum([run.module.length for run in runs])]).astype(np.int64)

    def before(self, number: int) -> int:
        """Return the number of positions in the runs before one."""
        return int(self._sums[number])

    @property
    def total(self) -> int:
        """Number of positions in all runs."""
        return int(self._sums[-1])

    def moved(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the new numbers of events."""
        after: NDArray[np.int64] = index + self._sums[np.searchsorted(self._starts, index, side="left")]
        return after


class _Opened:
    """Rows of a timeline while its blocks are opened: new owners of rows, and additional rows."""

    def __init__(self, timeline: Timeline) -> None:
        self._codes = {pair: code for code, pair in enumerate(zip(timeline.owners, timeline.classes, strict=True))}
        self._ops = {name: code for code, name in enumerate(timeline.ops)}
        self._requested, self._owner = timeline.requested_bytes.copy(), timeline.owner.copy()
        self._category, self._phase = timeline.category.copy(), timeline.phase.copy()
        self._added: list[tuple[int, ...]] = []

    def rename(self, row: int, frame: Frame, category: str) -> None:
        """Set the owner and category of a row."""
        self._owner[row] = self._code(frame)
        self._category[row], self._phase[row] = CODES[category], PHASE_CODES[frame.phase]

    def add(self, buffer: XlaBuffer, birth: int, death: int, frame: Frame, category: str) -> None:
        """Add a buffer of a block, alive from one event to another."""
        op = self._ops.setdefault(buffer.op_name, len(self._ops))
        kinds = int(CODES[category]), int(PHASE_CODES[frame.phase])
        self._added.append((buffer.bytes, birth, death, self._code(frame), *kinds, op))

    def empty(self, row: int) -> None:
        """Reduce a block to its chunk."""
        self._requested[row], self._category[row] = 0, CODES["temporaries"]

    def timeline(self, before: Timeline, shift: _Shift) -> Timeline:
        """Return the timeline with these changes."""
        new = np.array(self._added, np.int64).reshape(-1, 7).T
        count = before.num_events + shift.total
        time_ns, source = _times(before, shift, count)
        zeros = np.zeros(new.shape[1], np.int64)
        return replace(
            before,
            requested_bytes=np.concatenate([self._requested, new[0]]),
            reserved_bytes=np.concatenate([before.reserved_bytes, zeros]),
            birth=np.concatenate([np.where(before.birth < 0, -1, shift.moved(before.birth)), new[1]]),
            death=np.concatenate([_deaths(before, shift, count), new[2]]),
            address=np.concatenate([before.address, zeros.astype(np.uint64)]),
            owner=np.concatenate([self._owner, new[3]]).astype(np.int32),
            category=np.concatenate([self._category, new[4]]).astype(np.int8),
            phase=np.concatenate([self._phase, new[5]]).astype(np.int8),
            op=np.concatenate([before.op, new[6]]).astype(np.int32),
            time_ns=time_ns,
            in_use_bytes=before.in_use_bytes[source],
            owners=tuple(name for name, _ in self._codes),
            classes=tuple(name for _, name in self._codes),
            ops=tuple(self._ops),
        )

    def _code(self, frame: Frame) -> int:
        return self._codes.setdefault((frame.owner, frame.class_name), len(self._codes))


def _times(before: Timeline, shift: _Shift, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each event's time, and its old event or the last one before it; a schedule's times are evenly spaced."""
    known = shift.moved(np.arange(before.num_events, dtype=np.int64))
    source = np.zeros(count, np.int64)
    source[known] = np.arange(before.num_events)
    times = np.interp(np.arange(count), known, before.time_ns)
    times[known] = before.time_ns
    return times.astype(np.int64), np.maximum.accumulate(source)


def _deaths(timeline: Timeline, shift: _Shift, count: int) -> NDArray[np.int64]:
    survives = timeline.death >= timeline.num_events
    return np.where(survives, count, shift.moved(np.minimum(timeline.death, timeline.num_events - 1)))


def unused_note(runs: Sequence[CompiledRun]) -> str:
    """Note on the unused bytes of the largest block at its fullest; empty without one."""
    module = max((run.module for run in runs), key=lambda module: module.temp_bytes, default=None)
    block = max(module.requests, key=lambda request: request.bytes, default=None) if module is not None else None
    if module is None or block is None or not block.bytes:
        return ""
    unused = block.bytes - int(live_bytes(module, block.index).max())
    return (
        f"XLA works in one block of {format_bytes(block.bytes)}, planned ahead, of which "
        f"{format_bytes(unused)} is unused between its buffers when it is fullest."
    )
