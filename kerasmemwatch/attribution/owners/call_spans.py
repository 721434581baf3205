"""Operations that were calling compiled programs, in a step that is not compiled as a whole.

TensorFlow's executor calls such a program in one operation, but the program's allocations lack its name. A capture
has the span of the call, unless the capture ended first: a thread may have to wait after the program has run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.owners.op_owners import OpOwners

__all__ = ["CallSpan", "call_spans", "named_by_calls"]

_HOST_PLANE = "/host:CPU"
_CALL = "ExecutorState::ProcessAsync::Start"
_NAME_STAT = "name"


@dataclass(frozen=True)
class CallSpan:
    """One call of an operation."""

    op: str  # name of the operation
    thread: str  # name of the thread
    begin_ns: int  # time of its beginning, since the capture began
    end_ns: int  # time of its end


def call_spans(space: Any) -> Iterator[CallSpan]:
    """Find the operations that TensorFlow waited for, including calls of compiled programs.

    Calls that were still running when the capture ended are missing.
    """
    for plane in space.planes:
        calls = {key for key, event in plane.event_metadata.items() if event.name == _CALL}
        if plane.name != _HOST_PLANE or not calls:
            continue
        names = {key: stat.name for key, stat in plane.stat_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                if event.metadata_id in calls:
                    of_op = (stat for stat in event.stats if names[stat.metadata_id] == _NAME_STAT)
                    op = next((stat.str_value or names.get(stat.ref_value, "") for stat in of_op), "")
                    begin_ps = line.timestamp_ns * 1000 + event.offset_ps
                    yield CallSpan(op, line.name, begin_ps // 1000, (begin_ps + event.duration_ps) // 1000)


def named_by_calls(
    events: AllocationEvents,
    spans: Iterable[CallSpan],
    owners: OpOwners,
    runs: Iterable[tuple[str, Sequence[int]]] = (),
    calls: Mapping[str, str] | None = None,
) -> AllocationEvents:
    """Name nameless allocations after the layer's operation that was calling on their thread.

    Args:
        runs: For each run of a program, the program's name and its allocations.
        calls: By name of an operation that calls a function, the function's name; in the order of the graph.
    """
    ops, op = {name: code for code, name in enumerate(events.ops)}, events.op.copy()
    nameless = np.flatnonzero(events.births & (events.op == 0) & ~events.from_input_pipeline)
    times = events.time_ns[nameless] - events.began_ns
    ended = set()
    # The innermost of nested calls counts, which begins last.
    for span in sorted(spans, key=lambda span: span.begin_ns):
        ended.add(owners.exact(span.op))
        frame = owners.find(span.op) if span.thread in events.threads else None
        if frame is not None and frame.class_name:
            first, last = np.searchsorted(times, span.begin_ns), np.searchsorted(times, span.end_ns, side="right")
            within = nameless[first:last]
            mine = within[events.thread[within] == events.threads.index(span.thread)]
            op[mine] = ops.setdefault(span.op, len(ops))
    unnamed = [(program, births) for program, births in runs if not op[births].any()]
    for function, names in _by_function(calls or {}, ended).items():
        of_function = sorted((births for program, births in unnamed if _is_of(program, function)), key=min)
        # None of these calls is known to have ended. One alone made all runs. If there are as many runs as calls,
        # each made one; the graph's order is the likely one.
        if len(names) in (1, len(of_function)):
            for name, births in zip(cycle(names), of_function, strict=False):
                op[births] = ops.setdefault(name, len(ops))
    return replace(events, op=op, ops=tuple(ops))


def _by_function(calls: Mapping[str, str], ended: set[str | None]) -> dict[str, list[str]]:
    """Return the names of calls that are not known to have ended, by the function that they call."""
    found: dict[str, list[str]] = {}
    for name, function in calls.items():
        if name not in ended:
            found.setdefault(function, []).append(name)
    return found


def _is_of(program: str, function: str) -> bool:
    """Whether a program, ``"a_inference_gelu_12__.7"``, was compiled from a function, ``"__inference_gelu_12"``."""
    return program.startswith(f"a{function[1:]}__")
