"""Who is running: a stack of owners, pushed and popped by the hooks, and what was made while each was on top.

In a graph each operation is noted by name as it is made. In eager mode the times of pushes and pops are noted, and
an allocation on the same thread belongs to whoever was on top at that time.
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

# Some 100 MB. The oldest graphs are forgotten: those of models that a search has done with.
_MOST_OPS = 500_000

_LOSS_BACKWARD = Frame(LOSS, "", "backward")
_AFTER_BACKWARD, _AFTER_UPDATE = Frame(OPTIMIZER, "", "update"), Frame(METRICS, "", "update")


def _renamed(frame: Frame, paths: Mapping[str, str]) -> Frame:
    return frame._replace(owner=paths[frame.owner]) if frame.class_name and frame.owner in paths else frame


def _nothing() -> None:
    pass


class _Thread:
    """One thread's stack, and who is on top of it.

    Attributes:
        frames: Who has begun and not ended, the innermost last.
        base: Whose what is made outside of all of them is.
        own_code: Whose that will be, once a layer has been called.
        differentiated: Whose gradients a tape computed last.
        top: Who is on top.
        log: UNIX times in nanoseconds, and who is on top from then; ``None`` while no step is captured here.
    """

    __slots__ = ("base", "differentiated", "frames", "log", "own_code", "top")

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.base, self.own_code = BASE, AFTER_LAYERS
        self.differentiated = _LOSS_BACKWARD
        self.top = BASE
        self.log: list[tuple[int, Frame]] | None = None

    def changed(self) -> None:
        """Find who is on top now."""
        top = self.frames[-1] if self.frames else self.base
        if not top.owner:
            # Between two gradient functions a tape adds gradients up: those of whom it differentiated last.
            top = self.differentiated
        if top is not self.top:
            self.top = top
            if self.log is not None:
                self.log.append((time.time_ns(), top))


class _Local(threading.local):
    def __init__(self) -> None:
        self.thread = _Thread()


class OwnerStack:
    """A stack for each thread, and what happened while its frames were on top.

    Attributes:
        stage: The stage whose step is running.
        graphs: What the functions' graphs are made of, the newest last.
        eager_gradients: Of each gradient that was computed while a step was captured: a reference to its variable,
            where it lies, and the UNIX time in nanoseconds.
        outputs: By stage and owner, what is known of each tensor that a layer's call returns.
        arguments: Where the tensors lie that a captured step was called with.
        calls: UNIX times in nanoseconds at which functions began and ended while a step was captured.
        num_made: How many operations were ever noted.
        missing: By name of a hook that could not be installed, what follows from that.
        foreign: Says whether this thread runs another fit.
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
        """Who is on top on this thread."""
        return self._local.thread.top

    def begin(self, stage: str, own_code: Frame = AFTER_LAYERS) -> None:
        """A step begins on this thread.

        Args:
            stage: ``"train"``, ``"test"`` or ``"predict"``.
            own_code: Whose the operations are that the step makes outside of all layers, once one has been called.
        """
        self.stage = stage
        thread = self._local.thread
        thread.frames.clear()
        thread.base, thread.own_code = BASE, own_code
        thread.changed()

    @property
    def depth(self) -> int:
        """How many frames this thread's stack has."""
        return len(self._local.thread.frames)

    def leave_input(self) -> None:
        """What comes now, outside of all layers, is no longer the input pipeline's."""
        thread = self._local.thread
        if thread.base is BASE:
            thread.base = thread.own_code
            thread.changed()

    def differentiated_all(self) -> None:
        """A loop has its gradients: what it now does itself, outside of all layers, is its update."""
        thread = self._local.thread
        if not thread.frames:
            thread.base = _AFTER_BACKWARD
            thread.changed()

    def push(self, frame: Frame) -> None:
        """Somebody begins; each push has its ``pop``."""
        thread = self._local.thread
        thread.frames.append(frame)
        thread.changed()

    def pop(self) -> None:
        """Whoever is on top ends."""
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
        """The frame of a layer that is called now: backward if it recomputes for the backward pass."""
        backward = any(frame.phase == "backward" for frame in self._local.thread.frames)
        return Frame(owner, class_name, "backward" if backward else "forward")

    def parent(self) -> str:
        """Path of the innermost layer that is running, ``""`` if none is."""
        return next((frame.owner for frame in reversed(self._local.thread.frames) if frame.class_name), "")

    def rename(self, paths: Mapping[str, str]) -> None:
        """Paths of layers are others from now on: the new by the old."""
        if not paths:
            return
        for graph in self.graphs:
            graph.ops = {name: _renamed(frame, paths) for name, frame in graph.ops.items()}
        self.outputs = {(stage, paths.get(owner, owner)): specs for (stage, owner), specs in self.outputs.items()}
        log = None if self._timed is None else self._timed.log
        if log is not None:
            log[:] = [(time_ns, _renamed(frame, paths)) for time_ns, frame in log]

    # -- what was made -----------------------------------------------------------------------------------------

    def graph(self, graph: Any) -> TracedGraph:
        """What is noted about a graph."""
        found = self._by_graph.get(graph)
        if found is None:
            found = self._by_graph[graph] = TracedGraph(self.stage)
            self.graphs.append(found)
            while len(self.graphs) > 1 and self.num_operations > _MOST_OPS:
                self.graphs.popleft()
        return found

    def ops(self, stage: str) -> Mapping[str, Sequence[Frame]]:
        """Who made each operation, by name; of several graphs' the newest of the stage comes first."""
        found: dict[str, tuple[Frame, ...]] = {}
        # One for all operations of a frame: 100,000 new tuples would have Python collect garbage.
        alone: dict[Frame, tuple[Frame, ...]] = {}
        for graph in sorted(self.graphs, key=lambda graph: graph.stage == stage):
            for name, frame in graph.ops.copy().items():  # others may be made meanwhile, in another thread
                before = found.get(name)
                if before is None:
                    found[name] = alone.setdefault(frame, (frame,))
                elif before[0] != frame:
                    found[name] = (frame, *(other for other in before if other != frame))
        return found

    def made(self, graph: TracedGraph, name: str) -> None:
        """An operation was made by whoever is on top; not if another fit makes it, whose graph it is."""
        if self.foreign():
            return
        graph.ops[name] = self.top
        self.num_made += 1
        if self.num_made == self._most_made:
            self._too_many()

    def limit_made(self, most: int, too_many: Callable[[], None]) -> None:
        """Have something called as soon as so many operations were ever noted."""
        self._most_made, self._too_many = most, too_many

    @property
    def num_operations(self) -> int:
        """How many operations are noted, which tells whether there are new ones."""
        return sum(len(graph.ops) for graph in tuple(self.graphs))

    def merged(self, stage: str, name: str) -> dict[str, Any]:
        """Another of the graphs' tables, merged likewise."""
        found: dict[str, Any] = {}
        for graph in sorted(self.graphs, key=lambda graph: graph.stage == stage):
            found.update(getattr(graph, name))
        return found

    def differentiated(self) -> list[Any]:
        """The sources of gradients, as far as they are alive: variables, or whatever a tape watched."""
        of_graphs = [found[0] for graph in self.graphs for found in graph.gradients.values()]
        found = (reference() for reference in (*of_graphs, *(gradient[0] for gradient in self.eager_gradients)))
        return [source for source in found if source is not None]

    @property
    def is_timing(self) -> bool:
        """Whether a step is being captured."""
        return self._timed is not None

    def called(self, begin_ns: int, end_ns: int) -> None:
        """A function ran on this thread: its operations have names of their own, whoever is on top."""
        if self._timed is self._local.thread:
            self.calls.append((begin_ns, end_ns))
            self.leave_input()

    @contextmanager
    def timing(self) -> Iterator[list[tuple[int, Frame]]]:
        """Note the UNIX time in nanoseconds of each change of this thread's top, with who is on top from then."""
        thread = self._timed = self._local.thread
        log = thread.log = [(time.time_ns(), thread.top)]
        self.calls, self.arguments = [], set()
        try:
            yield log
        finally:
            self._timed = thread.log = None
