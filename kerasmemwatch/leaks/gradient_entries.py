"""Entries of TensorFlow's gradient registry, made to last no longer than the graphs that need them.

The registry has a function for every operation with a gradient of its own, such as the ``all_reduce`` in an optimizer's
update. It keeps that function forever, the function keeps its graph, and the graph keeps the variables of its model.
An entry that is *bound* refers to its function weakly. The graphs with the operation, and those around them, hold the
function instead, so every gradient that can still be taken is the same as before.
"""

from __future__ import annotations

import sys
import weakref
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.attribution.variables.live_objects import live_objects
from kerasmemwatch.compat.tensorflow import (
    ENTRY_ATTRIBUTE,
    ENTRY_FUNCTION,
    ENTRY_OPERATION,
    ENTRY_TENSORS,
    FUNC_GRAPH,
    REGISTERED_GRADIENTS,
)

__all__ = ["Entries", "bind", "bound_entries", "newest_entry"]

# TensorFlow's key for an entry's function.
_FUNCTION = "type"
# Attribute of a graph with the functions that its operations need.
_KEPT = "kerasmemwatch_gradients"
# Attribute of a function that stands for another.
_MARK = "kerasmemwatch_bound"


@dataclass(frozen=True)
class Entries:
    """Entries that were bound, and the graphs they had kept."""

    names: frozenset[str]
    graphs: tuple[weakref.ref[Any], ...]


def _bound(registry: dict[str, Any], name: str, function: Any) -> Callable[..., Any]:
    """Make what stands in the registry for a function that lasts as long as its graphs."""
    reference = weakref.ref(function, lambda _: registry.pop(name, None))

    # A function rather than an object: TensorFlow traces it when a model is saved.
    def bound_gradient(operation: Any, *gradients: Any) -> Any:
        found = reference()
        if found is None:
            raise LookupError(f"The graph that {name} belongs to is gone; kerasmemwatch has released it.")
        return found(operation, *gradients)

    setattr(bound_gradient, _MARK, True)
    return bound_gradient


def bind(handles: Collection[int] | None = None) -> Entries:
    """Bind the entries of all graphs, or of the graphs that captured given variables.

    Args:
        handles: Ids of the variables' resource handles; ``None`` for all graphs.

    Returns:
        The entries bound by this call.
    """
    registry = _registry()
    pending = {name: made for name, *made in _unbound(registry) if _has_captured(made[1], handles)}
    if not pending:
        return Entries(frozenset(), ())
    # Objects that `gc.freeze` has frozen are not among the live ones.
    users = _users(pending, [*live_objects(_kind)["graph"], *(graph for _, graph in pending.values())])
    for name, graphs in users.items():
        function = pending[name][0]
        for graph in graphs:
            setattr(graph, _KEPT, (*getattr(graph, _KEPT, ()), function))
        registry[name][_FUNCTION] = _bound(registry, name, function)
    every = {id(graph): graph for graphs in users.values() for graph in graphs}
    return Entries(frozenset(users), tuple(map(weakref.ref, every.values())))


def bound_entries() -> set[str]:
    """Return the names of the entries that are bound and whose graphs are alive."""
    return {name for name, entry in list(_registry().items()) if hasattr(entry.get(_FUNCTION), _MARK)}


def newest_entry() -> str | None:
    """Return the name of the entry that was registered last; a cheap way to see that there are new ones."""
    return next(reversed(_registry()), None)


def _registry() -> dict[str, Any]:
    found = REGISTERED_GRADIENTS.if_loaded()
    usable = ENTRY_FUNCTION.exists and ENTRY_TENSORS.exists if isinstance(found, dict) else False
    return found if usable else {}


def _unbound(registry: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, function and graph of the entries made while a function was traced."""
    for name, entry in list(registry.items()):
        function = entry.get(_FUNCTION)
        inner = _cell(function, ENTRY_FUNCTION.attribute)
        if inner is not None:
            # Of several graphs, the first is where the operation was made, or one that it captured from.
            for graph in _graphs(_cell(inner, ENTRY_TENSORS.attribute)):
                yield name, function, graph
                break


def _cell(function: Any, name: str) -> Any:
    """Return a variable that a function has from the one around it; ``None`` without."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    if name not in names:
        return None
    try:
        return function.__closure__[names.index(name)].cell_contents
    except ValueError:
        return None  # not filled yet


def _graphs(tensors: Any) -> Iterator[Any]:
    nest = sys.modules["tensorflow"].nest
    for tensor in nest.flatten(tensors, expand_composites=True):
        graph = None if hasattr(tensor, "numpy") else getattr(tensor, "graph", None)
        if FUNC_GRAPH.is_that_of(graph):
            yield graph


def _around(graph: Any) -> Iterator[Any]:
    """Yield a function's graph, and those of the functions around it."""
    while FUNC_GRAPH.is_that_of(graph):
        yield graph
        graph = graph.outer_graph


def _has_captured(graph: Any, handles: Collection[int] | None) -> bool:
    if handles is None:
        return True
    return any(id(outer) in handles for each in _around(graph) for outer, _ in each.captures)


def _users(names: Collection[str], graphs: Iterable[Any]) -> dict[str, Sequence[Any]]:
    """Find the graphs that need entries, with the graphs around them, by the entries' names.

    An entry that no graph needs is left out: only TensorFlow may know who does.
    """
    found: defaultdict[str, dict[int, Any]] = defaultdict(dict)
    for graph in graphs:
        for name in _needed(graph.get_operations()).intersection(names):
            found[name].update((id(each), each) for each in _around(graph))
    return {name: list(users.values()) for name, users in found.items()}


def _kind(kind: type) -> str:
    return "graph" if FUNC_GRAPH.names(kind) else ""


def _needed(operations: Iterable[Any]) -> set[str]:
    """Return the names of the entries that operations look up for their gradient."""
    found = set()
    for operation in operations:
        if operation.type == ENTRY_OPERATION:
            try:
                name = operation.get_attr(ENTRY_ATTRIBUTE)
            except ValueError:
                continue  # an operation without a gradient of its own
            found.add(name.decode() if isinstance(name, bytes) else str(name))
    return found
