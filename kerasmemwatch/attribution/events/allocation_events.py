"""Allocator events of a capture, as arrays."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.attribution.events.allocator_names import HOST, PINNED, device_of
from kerasmemwatch.attribution.events.event_order import by_total
from kerasmemwatch.attribution.events.host_spans import Span, SpanReader

__all__ = ["AllocationEvents", "capture_start_ns", "read_events"]

_PIPELINE_THREADS = "tf_data"
# TensorFlow 2.19 writes this where there is no operation; later versions leave the stat out.
_NULL = "(null)"
_REGION_STAT = "region_type"
_KINDS = {"MemoryAllocation": 1, "MemoryDeallocation": -1}
_STATS = (
    "bytes_allocated",
    "requested_bytes",
    "allocation_bytes",
    "addr",
    "id",
    "allocator_name",
    "tf_op",
)


@dataclass(frozen=True, eq=False)
class AllocationEvents:
    """Births and deaths of one allocator, ordered by time."""

    allocator: str  # its name, `"cpu"` or `"GPU_0_bfc"`
    births: NDArray[np.bool_]  # `bool[num_events]`
    time_ns: NDArray[np.int64]  # `int64[num_events]`, UNIX time
    address: NDArray[np.uint64]  # `uint64[num_events]`
    requested_bytes: NDArray[np.int64]  # `int64[num_events]`
    reserved_bytes: NDArray[np.int64]  # `int64[num_events]`, size of the chunk
    in_use_bytes: NDArray[np.int64]  # `int64[num_events]`, the allocator's total after the event
    op: NDArray[np.int32]  # `int32[num_events]`, index into `ops`
    run: NDArray[np.int64]  # `int64[num_events]`, id of the function run that the operation belongs to; 0 if unknown
    thread: NDArray[np.int32]  # `int32[num_events]`, index into `threads`
    ops: tuple[str, ...]  # names of operations; the first is `""`
    threads: tuple[str, ...]  # names of threads; those that TensorFlow started end in `/number`
    began_ns: int = 0  # UNIX time of the capture's start
    # `bool[num_events]`, whether an operation's kernel requested it, as an output, a copy or scratch memory, rather
    # than a library that the kernel calls. Empty if unknown.
    of_kernel: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    # `int64[num_events]`, index into `spans`; -1 if it lies in no span. Empty if unknown.
    span: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    spans: tuple[Span, ...] = ()  # activities of the host

    def __len__(self) -> int:
        return len(self.births)

    @property
    def device(self) -> str:
        """Name of the allocator's device."""
        return device_of(self.allocator)

    @property
    def on_host(self) -> bool:
        """Whether this is host memory, where operations run on the CPU."""
        return self.device in (HOST, PINNED)

    @property
    def from_input_pipeline(self) -> NDArray[np.bool_]:
        """``bool[num_events]``, whether the event is on a thread of the input pipeline."""
        threads = np.array([name.startswith(_PIPELINE_THREADS) for name in self.threads] or [False])
        found: NDArray[np.bool_] = threads[self.thread]
        return found

    def within(self, kind: str) -> NDArray[np.bool_]:
        """``bool[num_events]``, whether the event lies in a span of this kind."""
        if not len(self.span):
            return np.zeros(len(self), bool)
        # Index -1 selects the last element.
        return np.array([*(span.kind == kind for span in self.spans), False])[self.span]

    @property
    def in_use_before_bytes(self) -> int:
        """Bytes in use before the first event."""
        if not len(self):
            return 0
        first = int(self.reserved_bytes[0])
        return int(self.in_use_bytes[0]) - (first if self.births[0] else -first)


def read_events(space: Any) -> dict[str, AllocationEvents]:
    """Read the events of each allocator."""
    table = _Table()
    for plane in space.planes:
        if plane.name == "/host:CPU":
            table.read(plane)
    return table.by_allocator(capture_start_ns(space))


class _Group:
    """Events of one kind whose stats have the same order; each is one row of integers."""

    def __init__(self, kind: int, stats: Any, names: dict[int, str]) -> None:
        self.kind = kind
        self.keys = tuple(stat.metadata_id for stat in stats)
        position = {names.get(key, ""): at for at, key in enumerate(self.keys)}
        self.has_op = "tf_op" in position
        self.of_kernel = _REGION_STAT in position
        # A missing stat reads the first position, and is set to 0 afterwards.
        self.positions = tuple(position.get(name, 0) for name in _STATS)
        self.missing = [index for index, name in enumerate(_STATS) if name not in position]
        self.rows = array("q")

    def columns(self) -> list[NDArray[np.int64]]:
        """Return the event's time, thread and number, then its stats."""
        rows = np.frombuffer(self.rows, np.int64).reshape(-1, 3 + len(_STATS)).T.copy()
        for index in self.missing:
            rows[3 + index] = 0
        return list(rows)


class _Table:
    """Events of a capture."""

    def __init__(self) -> None:
        self.ops: dict[str, int] = {"": 0}
        self.threads: dict[str, int] = {}
        self.columns: list[list[NDArray[np.int64]]] = []
        self.allocators: list[str] = []
        self.spans = SpanReader()
        self.count = 0

    def read(self, plane: Any) -> None:
        names = {key: value.name for key, value in plane.stat_metadata.items()}
        kinds = {key: _KINDS[value.name] for key, value in plane.event_metadata.items() if value.name in _KINDS}
        groups: dict[tuple[int, ...], _Group] = {}
        for line in plane.lines:
            thread = self.threads.setdefault(line.name, len(self.threads))
            begun_ps = line.timestamp_ns * 1000  # since the session began
            for event in line.events:
                if event.metadata_id in kinds:
                    self._read_event(event, begun_ps + event.offset_ps, thread, kinds, groups, names)
        for group in groups.values():
            self._add(group, names)
        self.spans.read(plane, self.threads)

    def _read_event(
        self,
        event: Any,
        time_ps: int,
        thread: int,
        kinds: dict[int, int],
        groups: dict[tuple[int, ...], _Group],
        names: dict[int, str],
    ) -> None:
        """Read stats by position, which takes half as long as comparing the name of each."""
        stats = event.stats
        key: tuple[int, ...] = (event.metadata_id, len(stats))
        group = groups.get(key)
        if group is None:
            group = groups[key] = _Group(kinds[event.metadata_id], stats, names)
        total, requested, reserved, addr, run, allocator, op = group.positions
        keys, first, last = group.keys, stats[total], stats[addr]
        if first.metadata_id != keys[total] or last.metadata_id != keys[addr]:
            key = (event.metadata_id, *(stat.metadata_id for stat in stats))
            group = groups.setdefault(key, _Group(kinds[event.metadata_id], stats, names))
            total, requested, reserved, addr, run, allocator, op = group.positions
            first, last = stats[total], stats[addr]
        group.rows.extend(
            (
                time_ps,
                thread,
                self.count,
                first.int64_value,
                stats[requested].int64_value,
                stats[reserved].int64_value,
                last.int64_value,
                stats[run].int64_value,
                stats[allocator].ref_value,
                stats[op].ref_value if group.has_op else 0,
            )
        )
        self.count += 1

    def _add(self, group: _Group, names: dict[int, str]) -> None:
        time_ps, thread, number, total, requested, reserved, addr, run, allocator, op = group.columns()
        kind = np.full(len(time_ps), group.kind, np.int64)
        found = [
            self._numbered(allocator, names, self._allocator),
            kind,
            time_ps,
            addr,
            requested,
            reserved,
            total,
            self._numbered(op, names, self._op),
            run,
            thread,
            number,
            np.full(len(time_ps), group.of_kernel, np.int64),
        ]
        self.columns.append(found)

    def _allocator(self, name: str) -> int:
        if name not in self.allocators:
            self.allocators.append(name)
        return self.allocators.index(name)

    def _op(self, name: str) -> int:
        name = "" if name == _NULL else name
        return self.ops.setdefault(name, len(self.ops))

    @staticmethod
    def _numbered(
        references: NDArray[np.int64], names: dict[int, str], number: Callable[[str], int]
    ) -> NDArray[np.int64]:
        codes, inverse = np.unique(references, return_inverse=True)
        return np.array([number(names.get(code, "")) for code in codes.tolist()], np.int64)[inverse]

    def by_allocator(self, started_ns: int) -> dict[str, AllocationEvents]:
        if not self.columns:
            return {}
        rows = [np.concatenate(parts) for parts in zip(*self.columns, strict=True)]
        rows.append(self._spans_of(rows[9], rows[2]))
        ops, threads, spans = tuple(self.ops), tuple(self.threads), tuple(self.spans.spans)
        found = {}
        for number, name in enumerate(self.allocators):
            mine = np.flatnonzero(rows[0] == number)
            found[name] = _in_order(name, started_ns, [row[mine] for row in rows], ops, threads, spans)
        return found

    def _spans_of(self, thread: NDArray[np.int64], time_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.full(len(thread), -1, np.int64)
        for number in np.unique(thread).tolist() if self.spans.spans else ():
            mine = thread == number
            found[mine] = self.spans.of(number, time_ps[mine])
        return found


def _in_order(
    name: str, started_ns: int, rows: list[Any], ops: tuple[str, ...], threads: tuple[str, ...], spans: tuple[Span, ...]
) -> AllocationEvents:
    _, kind, time_ps, address, requested, reserved, total, op, run, thread, number, of_kernel, span = rows
    order = np.lexsort((number, time_ps))
    order = order[by_total(np.where(kind > 0, reserved, -reserved)[order], total[order])]
    return AllocationEvents(
        allocator=name,
        births=kind[order] > 0,
        time_ns=started_ns + np.maximum.accumulate(time_ps[order]) // 1000,
        address=address[order].view(np.uint64),
        requested_bytes=requested[order],
        reserved_bytes=reserved[order],
        in_use_bytes=total[order],
        op=op[order].astype(np.int32),
        run=run[order],
        thread=thread[order].astype(np.int32),
        ops=ops,
        threads=threads,
        began_ns=started_ns,
        of_kernel=of_kernel[order] > 0,
        span=span[order],
        spans=spans,
    )


def capture_start_ns(space: Any) -> int:
    """Return the UNIX time of a capture's start; 0 if unknown."""
    for plane in space.planes:
        if plane.name == "Task Environment":
            names = {key: value.name for key, value in plane.stat_metadata.items()}
            for stat in plane.stats:
                if names.get(stat.metadata_id) == "profile_start_time":
                    return int(stat.uint64_value or stat.int64_value)
    return 0
