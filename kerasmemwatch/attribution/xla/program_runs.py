"""Compiled programs of a profiler capture, and their runs.

Captures need not mark the start of a run: a program requests its planned allocations one right after another. On a
GPU, the host marks the start and the program's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.host_spans import AUTOTUNING, RUN
from kerasmemwatch.attribution.xla.buffer_assignment import UnscheduledModuleError, open_module, requests
from kerasmemwatch.attribution.xla.hlo_proto import parse_hlo
from kerasmemwatch.attribution.xla.program_memory import XlaAllocation, XlaModule

__all__ = ["Programs", "XlaRun", "find_runs", "module_names"]

_METADATA_PLANE = "/host:metadata"
_HLO_STAT = "Hlo Proto"
_HOST_PLANE = "/host:CPU"
_INSTRUCTION_STAT = "program_id"
# Prefixes of the functions that TensorFlow compiles.
_FUNCTIONS = ("__inference_", "__forward_")


@dataclass(frozen=True)
class XlaRun:
    """One run of a program."""

    program_id: int  # id of the program
    births: Mapping[int, int]  # by index of each allocation that it requested, the allocation's event


class Programs:
    """Compiled programs of captures. Each is parsed once; if it ran, it is opened, which takes up to half a second."""

    def __init__(self) -> None:
        # By program id, its requests at each run, in order; empty for a program without a schedule.
        self.requests: dict[int, tuple[XlaAllocation, ...]] = {}
        self._modules: dict[int, XlaModule] = {}
        self._data: dict[int, bytes] = {}

    def read(self, space: Any) -> None:
        """Add the programs of a capture, including those that are loaded but do not run."""
        self._data = dict(_hlo_protos(space))
        for program_id, data in self._data.items():
            if program_id not in self.requests:
                self.requests[program_id] = requests(parse_hlo(data))

    def opened(self, program_ids: Iterable[int]) -> dict[int, XlaModule]:
        """Return programs of the last capture by id, opening each once; programs without a schedule are left out."""
        found = {}
        for program_id in program_ids:
            if program_id not in self._modules:
                try:
                    module = open_module(parse_hlo(self._data[program_id]))
                except UnscheduledModuleError:
                    continue
                self._modules[program_id] = replace(module, program_id=program_id)
            found[program_id] = self._modules[program_id]
        return found


def find_runs(
    space: Any, events: AllocationEvents, programs: Mapping[int, Sequence[XlaAllocation]], least_bytes: int = 0
) -> list[XlaRun]:
    """Find the runs of programs by their requests, in order of time.

    Args:
        space: An ``XSpace`` message, whose instructions distinguish programs with equal requests.
        least_bytes: The allocator does not report smaller allocations.
    """
    # Requests of 0 bytes do not reach the allocator.
    told = {
        program_id: [request for request in asked if request.bytes >= max(1, least_bytes)]
        for program_id, asked in programs.items()
    }
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for program_id, asked in told.items():
        alike[tuple(request.bytes for request in asked)].append(program_id)
    alike.pop((), None)
    found = sorted([*_spanned(space, events, alike), *_asked_for(events, alike)])
    instructions = _instructions(space) if found else {}
    runs = []
    for births, program_ids in found:
        which = _which(program_ids, instructions, int(events.time_ns[births[-1]]) - events.began_ns)
        if which is not None:
            runs.append(XlaRun(which, dict(zip((request.index for request in told[which]), births, strict=True))))
    return runs


def _spanned(
    space: Any, events: AllocationEvents, alike: Mapping[tuple[int, ...], list[int]]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield runs that the host marks, as on a GPU: the events, and the programs of the marked name."""
    births = np.flatnonzero(events.births & events.within(RUN))
    names = module_names(space) if len(births) else {}
    for span in np.unique(events.span[births]).tolist():
        mine = births[events.span[births] == span].tolist()
        asked = alike.get(tuple(events.requested_bytes[mine].tolist()), [])
        named = [program_id for program_id in asked if names.get(program_id) == events.spans[span].name]
        if asked:
            yield mine, named or asked


def _asked_for(
    events: AllocationEvents, alike: Mapping[tuple[int, ...], list[int]]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield events whose sizes equal the requests of some programs, and the programs."""
    by_first: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for sizes in sorted(alike, key=len, reverse=True):
        by_first[sizes[0]].append(sizes)
    # A program's allocations have no operation's name, and the input pipeline's functions are not compiled.
    nobodys = np.array([not name or name.startswith(_FUNCTIONS) for name in events.ops] or [False])
    told = events.within(RUN) | events.within(AUTOTUNING)
    births = np.flatnonzero(events.births & nobodys[events.op] & ~events.from_input_pipeline & ~told)
    for thread in np.unique(events.thread[births]).tolist():
        mine = births[events.thread[births] == thread].tolist()
        asked = events.requested_bytes[mine].tolist()
        at = 0
        while at < len(asked):
            sizes = next((s for s in by_first.get(asked[at], ()) if tuple(asked[at : at + len(s)]) == s), ())
            if sizes:
                yield mine[at : at + len(sizes)], alike[sizes]
            at += len(sizes) or 1


def _which(program_ids: Sequence[int], instructions: Mapping[int, NDArray[np.int64]], asked_ns: int) -> int | None:
    """Return the program whose instructions come next; without instructions the only one, ``None`` if several."""
    if not instructions:
        return program_ids[0] if len(program_ids) == 1 else None
    starts = []
    for program_id in program_ids:
        times = instructions.get(program_id, np.zeros(0, np.int64))
        after = int(np.searchsorted(times, asked_ns))
        starts += [(int(times[after]), program_id)] if after < len(times) else []
    return min(starts)[1] if starts else None


def _instructions(space: Any) -> dict[int, NDArray[np.int64]]:
    """By program id, the start times of its instructions: nanoseconds since the capture began, in order."""
    found: dict[int, list[int]] = defaultdict(list)
    for plane in space.planes:
        keys = {key for key, stat in plane.stat_metadata.items() if stat.name == _INSTRUCTION_STAT}
        # The stat has the same position in all events of a name. A loop may have a million instruction events.
        positions: dict[int, int | None] = {}
        for line in plane.lines if plane.name == _HOST_PLANE and keys else ():
            for event in line.events:
                name = event.metadata_id
                if name not in positions:
                    ids = [stat.metadata_id for stat in event.stats]
                    positions[name] = next((at for at, key in enumerate(ids) if key in keys), None)
                position = positions[name]
                for stat in () if position is None else event.stats[position : position + 1]:
                    if stat.metadata_id in keys:
                        program_id = int(stat.uint64_value or stat.int64_value)
                        found[program_id].append(line.timestamp_ns + event.offset_ps // 1000)
    return {program_id: np.sort(np.array(times, np.int64)) for program_id, times in found.items()}


def module_names(space: Any) -> dict[int, str]:
    """By program id, the name of its module: a capture has it as ``NAME(ID)``."""
    return {
        program_id: str(event.name).removesuffix(f"({program_id})")
        for plane in space.planes
        if plane.name == _METADATA_PLANE
        for program_id, event in plane.event_metadata.items()
    }


def _hlo_protos(space: Any) -> Iterator[tuple[int, bytes]]:
    for plane in space.planes:
        if plane.name == _METADATA_PLANE:
            keys = {key for key, stat in plane.stat_metadata.items() if stat.name == _HLO_STAT}
            for program_id, event in plane.event_metadata.items():
                yield from ((program_id, stat.bytes_value) for stat in event.stats if stat.metadata_id in keys)
