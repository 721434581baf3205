"""Stack of owners, pushed and popped by the hooks, and records of what was made while each was on top.

In a graph, each operation is recorded by name when it is made. In eager mode, the times of pushes and pops are
recorded, and an allocation on the same thread belongs to the owner on top at that time.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kerasmemwatch.attribution.hooks.graph_registry import Reference, TracedGraph
from kerasmemwatch.records.owners import AFTER_LAYERS, BASE, LOSS, METRICS, OPTIMIZER, Frame

__all__ = ["OwnerStack"]

# Some 100 MB. The oldest graphs are dropped: those of models that a search no longer needs.
_MAX_OPS = 500_000

_LOSS_BACKWARD = Frame(LOSS, "", "backward")
_AFTER_BACKWARD, _AFTER_UPDATE = Frame(OPTIMIZER, "", "update"), Frame(METRICS, "", "update")


def _renamed(frame: Frame, paths: Mapping[str, str]) -> Frame:
    return frame._replace(owner=paths[frame.owner]) if frame.class_name and frame.owner in paths else frame


def _nothing() -> None:
    pass


class _Thread:
    """One thread's stack of owners, and its top.

    Attributes:
        frames: Owners that have begun and not ended, the innermost last.
        base: Owner of allocations made while the stack is empty.
        own_code: The next ``base``, once a layer has been called.
        differentiated: Owner whose gradients a tape computed last.
        top: Owner on top.
        log: UNIX times in nanoseconds, and the top from then on; ``None`` while no step is captured on the thread.
    """

    __slots__ = ("base", "differentiated", "frames", "log", "own_code", "top")

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.base, self.own_code = BASE, AFTER_LAYERS
        self.differentiated = _LOSS_BACKWARD
        self.top = BASE
        self.log: list[tuple[int, Frame]] | None = None

    def changed(self) -> None:
        """Update the top."""
        top = self.frames[-1] if self.frames else self.base
        if not top.owner:
            # Between two gradient functions a tape adds up gradients of the last differentiated owner.
            top = self.differentiated
        if top is not self.top:
            self.top = top
            if self.log is not None:
                self.log.append((time.time_ns(), top))


class _Local(threading.local):
    def __init__(self) -> None:
        self.thread = _Thread()


class OwnerStack:
    """A stack per thread, and records of what happened while its frames were on top.

    Attributes:
        stage: Stage of the running step.
        graphs: Records of the functions' graphs, the newest last.
        eager_gradients: For each gradient computed while a step was captured: a reference to its variable, its address,
            and the UNIX time in nanoseconds.
        outputs: By stage and owner, a record of each tensor that a layer's call returns.
        arguments: Addresses of the tensors that a captured step was called with.
        calls: UNIX times in nanoseconds of the beginning and end of functions called while a step was captured.
        num_made: Number of operations recorded so far.
        missing: By name of a hook that could not be installed, the consequence.
        foreign: Returns whether this thread runs another fit.
    """

    def __init__(self) -> None:
        self.stage = "train"
        self.missing: dict[str, str] = {}
        self.foreign: Callable[[], object] = _nothing
        self.graphs: deque[TracedGraph] = deque()
        self._by_graph: weakref.WeakKeyDictionary[Any, TracedGraph] = weakref.WeakKeyDictionary()
        self._local = _Local()
        self.eager_gradients: list[tuple[Reference, int, int]] = []
        self.outputs: dict[tuple[str, str], list[Any]] = {}
        self.arguments: set[int] = set()
        self.calls: list[tuple[int, int]] = []
        self.num_made, self._most_made, self._too_many = 0, sys.maxsize, _nothing
        self._timed: _Thread | None = None

    @property
    def top(self) -> Frame:
        """Owner on top on this thread."""
        return self._local.thread.top

    def begin(self, stage: str, own_code: Frame = AFTER_LAYERS) -> None:
        """Begin a step on this thread.

        Args:
            own_code: Owner of the operations that the step makes outside of all layers, once a layer has been called.
        """
        self.stage = stage
        thread = self._local.thread
        thread.frames.clear()
        thread.base, thread.own_code = BASE, own_code
        thread.changed()

    @property
    def depth(self) -> int:
        """Number of frames on this thread's stack."""
        return len(self._local.thread.frames)

    def leave_input(self) -> None:
        """End the input phase: allocations outside of all layers no longer belong to the input pipeline."""
        thread = self._local.thread
        if thread.base is BASE:
            thread.base = thread.own_code
            thread.changed()

    def differentiated_all(self) -> None:
        """Begin the update: the loop has its gradients, and its own code outside of all layers now updates."""
        thread = self._local.thread
        if not thread.frames:
            thread.base = _AFTER_BACKWARD
            thread.changed()

    def push(self, frame: Frame) -> None:
        """Push an owner that begins; each push has its ``pop``."""
        thread = self._local.thread
        thread.frames.append(frame)
        thread.changed()

    def pop(self) -> None:
        """Pop the owner on top, which ends."""
        thread = self._local.thread
        ended = thread.frames.pop()
        if ended.phase == "backward":
            thread.differentiated = ended if ended.owner else _LOSS_BACKWARD
        if not thread.frames:
            if ended.phase == "update":
                thread.base = _AFTER_UPDATE
            elif ended.class_name and ended.phase == "forward":
                thread.base = thread.own_code
        thread.changed()

    def layer(self, owner: str, class_name: str) -> Frame:
        """Return the frame of a layer that is called now: backward if it recomputes for the backward pass."""
        backward = any(frame.phase == "backward" for frame in self._local.thread.frames)
        return Frame(owner, class_name, "backward" if backward else "forward")

    def parent(self) -> str:
        """Return the path of the innermost running layer, ``""`` if there is none."""
        return next((frame.owner for frame in reversed(self._local.thread.frames) if frame.class_name), "")

    def rename(self, paths: Mapping[str, str]) -> None:
        """Rename layers: new paths by old ones."""
        if not paths:
            return
        for graph in self.graphs:
            graph.ops = {name: _renamed(frame, paths) for name, frame in graph.ops.items()}
        self.outputs = {(stage, paths.get(owner, owner)): specs for (stage, owner), specs in self.outputs.items()}
        log = None if self._timed is None else self._timed.log
        if log is not None:
            log[:] = [(time_ns, _renamed(frame, paths)) for time_ns, frame in log]

    # -- records of what was made ------------------------------------------------------------------------------

    def graph(self, graph: Any) -> TracedGraph:
        """Return the records of a graph."""
        found = self._by_graph.get(graph)
        if found is None:
            found = self._by_graph[graph] = TracedGraph(self.stage)
            self.graphs.append(found)
            while len(self.graphs) > 1 and self.num_operations > _MAX_OPS:
                self.graphs.popleft()
        return found

    def ops(self, stage: str) -> Mapping[str, Sequence[Frame]]:
        """Return the owners of each operation by name; the stage's newest graph comes first."""
        found: dict[str, tuple[Frame, ...]] = {}
        # One tuple for all operations of a frame: 100,000 new tuples would trigger the garbage collector.
        alone: dict[Frame, tuple[Frame, ...]] = {}
        for graph in sorted(self.graphs, key=lambda graph: graph.stage == stage):
            for name, frame in graph.ops.copy().items():  # another thread may add operations meanwhile
                before = found.get(name)
                if before is None:
                    found[name] = alone.setdefault(frame, (frame,))
                elif before[0] != frame:
                    found[name] = (frame, *(other for other in before if other != frame))
        return found

    def made(self, graph: TracedGraph, name: str) -> None:
        """Record an operation as made by the owner on top, unless another fit makes it, which owns the graph."""
        if self.foreign():
            return
        graph.ops[name] = self.top
        self.num_made += 1
        if self.num_made == self._most_made:
            self._too_many()

    def limit_made(self, most: int, too_many: Callable[[], None]) -> None:
        """Call ``too_many`` as soon as this many operations were recorded."""
        self._most_made, self._too_many = most, too_many

    @property
    def num_operations(self) -> int:
        """Number of recorded operations, which shows whether there are new ones."""
        return sum(len(graph.ops) for graph in tuple(self.graphs))

    def merged(self, stage: str, name: str) -> dict[str, Any]:
        """Return another of the graphs' tables, merged likewise."""
        found: dict[str, Any] = {}
        for graph in sorted(self.graphs, key=lambda graph: graph.stage == stage):
            found.update(getattr(graph, name))
        return found

    def differentiated(self) -> list[Any]:
        """Return the sources of gradients that are alive: variables, or other values that a tape watched."""
        of_graphs = [found[0] for graph in self.graphs for found in graph.gradients.values()]
        found = (reference() for reference in (*of_graphs, *(gradient[0] for gradient in self.eager_gradients)))
        return [source for source in found if source is not None]

    @property
    def is_timing(self) -> bool:
        """Whether a step is being captured."""
        return self._timed is not None

    def called(self, begin_ns: int, end_ns: int) -> None:
        """Record a function's run on this thread: its operations have names of their own, whatever is on top."""
        if self._timed is self._local.thread:
            self.calls.append((begin_ns, end_ns))
            self.leave_input()

    @contextmanager
    def timing(self) -> Iterator[list[tuple[int, Frame]]]:
        """Record each change of this thread's top: UNIX time in nanoseconds, and the top from then on."""
        thread = self._timed = self._local.thread
        log = thread.log = [(time.time_ns(), thread.top)]
        self.calls, self.arguments = [], set()
        try:
            yield log
        finally:
            self._timed = thread.log = None
