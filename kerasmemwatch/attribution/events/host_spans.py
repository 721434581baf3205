"""Spans of a capture that say why the host allocated memory of a GPU, in more detail than the allocations do."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AUTOTUNING", "COPY", "RUN", "Span", "SpanReader", "kind_of", "program_runs"]

# Kinds of spans: compiling and trying out a program, running one, or copying a tensor to the device.
AUTOTUNING, RUN, COPY = "autotuning", "run", "copy"
# The last kind that contains a moment counts: runs and copies during a trial belong to the trial.
_KINDS = (COPY, RUN, AUTOTUNING)
_BLOCKS, _EXECUTION, _MODULE_STAT = "Build buffer allocations", "GpuExecutable::ExecuteThunks", "module_name"
# All names so far of XLA's passes that run what they compile; and the span of all passes over a program.
_TRIALS = re.compile(r".*autotuner|.*algorithm-picker|HLO Transforms:.*", re.DOTALL)
# The operation that sends a tensor to another device: graphs call it "IteratorGetNext/_1:_Send", their optimizer
# "_send_model/Const_0:_Send"; in eager code the name has only the devices.
_SENT = re.compile(r"(?:_send_(.+)_\d+|(.+?)(?:/_\d+)?):_(?:Host)?Send", re.DOTALL)
_SENT_EAGERLY = "_Send input "


class Span(NamedTuple):
    """One activity of the host."""

    kind: str  # `AUTOTUNING`, `RUN` or `COPY`
    name: str  # name of the program that runs, or of the operation whose result is copied; `""` if unknown
    number: int  # distinguishes spans


class SpanReader:
    """Collects the spans of a capture's threads."""

    def __init__(self) -> None:
        self.spans: list[Span] = []  # all spans
        self._by_thread: dict[int, dict[str, list[tuple[int, int, int]]]] = {}

    def read(self, plane: Any, threads: Mapping[str, int]) -> None:
        """Collect the spans of a plane."""
        kinds = {key: found for key, value in plane.event_metadata.items() if (found := kind_of(value.name))}
        executions = {key for key, value in plane.event_metadata.items() if value.name == _EXECUTION}
        if kinds:
            for line in plane.lines:
                self._read_line(plane, line, threads[line.name], kinds, executions)

    def of(self, thread: int, times_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the span that contains each moment on a thread, as an index into ``spans``; -1 for none.

        Args:
            times_ps: Picoseconds since the session began.
        """
        found = np.full(len(times_ps), -1, np.int64)
        for kind in _KINDS:
            spans = sorted(self._by_thread.get(thread, {}).get(kind, ()))
            if spans:
                begins, ends, numbers = np.array(spans, np.int64).T
                # The outermost of nested spans counts.
                at = np.searchsorted(begins, times_ps, side="right") - 1
                inside = (at >= 0) & (times_ps <= np.maximum.accumulate(ends)[at])
                found[inside] = numbers[at[inside]]
        return found

    def runs(self) -> list[tuple[int, str]]:
        """List the runs of programs, except trials, in order: nanoseconds since the session began, and name."""
        found = []
        for thread, spans in self._by_thread.items():
            for begin, _, number in spans.get(RUN, ()):
                inner = int(self.of(thread, np.array([begin], np.int64))[0])
                if self.spans[inner].kind == RUN:
                    found.append((begin // 1000, self.spans[number].name))
        return sorted(found)

    def _read_line(
        self, plane: Any, line: Any, thread: int, kinds: Mapping[int, tuple[str, str]], executions: set[int]
    ) -> None:
        begun_ps = line.timestamp_ns * 1000
        found, modules = [], []
        for event in line.events:
            if event.metadata_id in kinds:
                begin = begun_ps + event.offset_ps
                found.append((begin, begin + event.duration_ps, *kinds[event.metadata_id]))
            elif event.metadata_id in executions:
                modules.append((begun_ps + event.offset_ps, _module(plane, event)))
        modules.sort()
        for begin, end, kind, name in found:
            number = len(self.spans)
            self.spans.append(Span(kind, _next(modules, end) if kind == RUN else name, number))
            self._by_thread.setdefault(thread, {}).setdefault(kind, []).append((begin, end, number))


def program_runs(space: Any) -> list[tuple[int, str]]:
    """List the GPU runs of compiled programs, except trials: nanoseconds since the capture began, and name."""
    reader = SpanReader()
    for plane in space.planes:
        if plane.name == "/host:CPU":
            reader.read(plane, {line.name: number for number, line in enumerate(plane.lines)})
    return reader.runs()


def kind_of(name: str) -> tuple[str, str] | None:
    """Return the kind of a span with this name, and the name of the copied operation; ``None`` for other spans."""
    if name == _BLOCKS:
        return RUN, ""
    if _TRIALS.fullmatch(name):
        return AUTOTUNING, ""
    sent = _SENT.fullmatch(name)
    if sent:
        return COPY, sent[1] or sent[2]
    return (COPY, "") if name.startswith(_SENT_EAGERLY) else None


def _module(plane: Any, event: Any) -> str:
    for stat in event.stats:
        if plane.stat_metadata[stat.metadata_id].name == _MODULE_STAT:
            return str(stat.str_value or plane.stat_metadata[stat.ref_value].name)
    return ""


def _next(modules: Sequence[tuple[int, str]], time_ps: int) -> str:
    """Return the program whose execution begins next; ``""`` if none does."""
    at = bisect_left(modules, (time_ps, ""))
    return modules[at][1] if at < len(modules) else ""
