"""Graphs that gain operations, and the user's line that adds them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.compat.tensorflow import GRAPH_KEY, GRAPH_SIZE
from kerasmemwatch.leaks.evidence.places import Place
from kerasmemwatch.leaks.evidence.roots import is_user_file

__all__ = ["GraphSizes", "GrownGraph", "graph_kinds", "graph_sizes", "grown_graph", "line_of"]

_NEWEST = 60


@dataclass(frozen=True)
class GraphSizes:
    """Number of operations of each live graph.

    Attributes:
        step: When they were counted.
        operations: How many, by a key that no other graph gets.
    """

    step: int
    operations: Mapping[str, int]


@dataclass(frozen=True)
class GrownGraph:
    """The graph that gained most operations since their sizes were taken.

    Attributes:
        class_name: Its class.
        num_operations: How many it has.
        more: How many of them are new.
        steps: In how many steps.
        place: The user's line that made most of the newest, if found.
    """

    class_name: str
    num_operations: int
    more: int
    steps: int
    place: Place | None = None


def graph_kinds(kinds: Iterable[type]) -> list[type]:
    """Those classes that are TensorFlow's ``Graph``, or inherit from it."""
    base = getattr(sys.modules.get("tensorflow"), "Graph", None)
    return [kind for kind in kinds if base in kind.__mro__]


def graph_sizes(graphs: Iterable[Any], step: int) -> GraphSizes:
    """Count the operations of graphs; of none in a TensorFlow that does not tell them."""
    if GRAPH_SIZE.is_missing or GRAPH_KEY.is_missing:
        return GraphSizes(step, {})
    return GraphSizes(step, {str(GRAPH_KEY.of(graph, id(graph))): int(graph.num_operations()) for graph in graphs})


def grown_graph(graphs: Sequence[Any], now: GraphSizes, before: GraphSizes) -> GrownGraph | None:
    """The graph that gained most operations; ``None`` if none did."""
    rises = [size - before.operations.get(key, size) for key, size in now.operations.items()]
    most = max(rises, default=0)
    if not most > 0:
        return None
    graph = graphs[rises.index(most)]
    operations = graph.get_operations()
    lines = Counter(filter(None, map(line_of, operations[-_NEWEST:])))
    place = lines.most_common(1)[0][0] if lines else None
    return GrownGraph(type(graph).__name__, len(operations), most, now.step - before.step, place)


def line_of(operation: Any) -> Place | None:
    """The innermost line of the user's that made an operation."""
    for line in reversed(list(getattr(operation, "traceback", None) or ())):
        if is_user_file(line.filename):
            return Place.read(line.filename, line.lineno)
    return None
