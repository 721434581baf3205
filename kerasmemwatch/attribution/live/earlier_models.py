"""Memory that models of earlier fits still hold: live models that are not watched, and dead ones.

TensorFlow never releases the graphs that trained a model. Its registry of gradients keeps each graph with an
operation that has its own gradient, such as an optimizer's update, and the variables that the graph captured.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.attribution.events.chunk_addresses import chunk_bytes
from kerasmemwatch.attribution.live.live_buffers import (
    HANDLE_BYTES,
    KnownBuffer,
    handle_keys,
    live_buffers,
    tensor_bytes,
    tensor_kind,
)
from kerasmemwatch.attribution.live.tensor_places import Place, resource_place, tensor_place, unwatched
from kerasmemwatch.attribution.variables.live_objects import live_objects
from kerasmemwatch.compat.tensorflow import EAGER_TENSOR, HANDLE_DATA
from kerasmemwatch.records.owners import EARLIER_MODELS

__all__ = ["Unwatched", "unwatched_buffers"]

# By graph, the maximum bytes of its constants, which do not change.
_constants: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
# By graph that can no longer run, the buffers that it holds: none of them moves.
_settled: weakref.WeakKeyDictionary[Any, list[KnownBuffer]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Unwatched:
    """Live buffers other than the variables of watched models."""

    buffers: tuple[KnownBuffer, ...]  # those that Python can name, earlier models' first
    constant_bytes: int  # maximum bytes of the constants in earlier models' graphs, at unknown addresses


def unwatched_buffers(alive: defaultdict[str, list[Any]] | None, watched: set[int]) -> Unwatched:
    """Find all live buffers other than the variables of watched models."""
    kept = live_objects(tensor_kind) if alive is None else alive
    living = handle_keys(kept["variable"])
    found: dict[int, KnownBuffer] = {}
    earlier = set[int]()
    # Variables that a loop's own function keeps next to a watched model's belong to no earlier model.
    loops = living & set().union(*(_beside(graph, watched) for graph in kept["graph"]))
    with unwatched():
        for graph in kept["graph"]:
            buffers = _held(graph, watched | loops, living, found)
            if buffers:
                earlier.add(id(graph))
                found.update({buffer.key or buffer.address: buffer for buffer in buffers})
    dead = sum(buffer.key not in living for buffer in found.values() if buffer.key)
    places = {buffer.address for buffer in found.values()} - {0}
    others = live_buffers(kept, {*watched, *(buffer.key for buffer in found.values())} - {0})
    return Unwatched(
        (
            *(buffer for buffer in found.values() if buffer.bytes),
            *[KnownBuffer(EARLIER_MODELS, "", "other", HANDLE_BYTES)] * dead,
            *(buffer for buffer in others if buffer.address not in places),
        ),
        sum(_constant_bytes(graph) for graph in kept["graph"] if earlier.intersection(map(id, _around(graph)))),
    )


def _beside(graph: Any, watched: set[int]) -> set[int]:
    """Return keys of the variables that a graph captured, if some of them are watched."""
    keys = {id(handle) for handle in _handles(graph)}
    return keys if keys & watched else set()


def _handles(graph: Any) -> list[Any]:
    resource = sys.modules["tensorflow"].resource
    return [each for each in _captured(graph) if each.dtype == resource]


def _captured(graph: Any) -> list[Any]:
    return [outer for outer, _ in getattr(graph, "captures", None) or () if EAGER_TENSOR.is_that_of(outer)]


def _held(
    graph: Any, watched: Container[int], living: Container[int], found: Mapping[int, KnownBuffer]
) -> list[KnownBuffer]:
    """Return a graph's buffers of models that are not watched; empty if it has none of their variables."""
    settled = _settled.get(graph)
    if settled is not None:
        return settled
    handles = _handles(graph)
    others = [handle for handle in handles if id(handle) not in watched]
    # Several graphs share these, and each takes a while. An iterator's handle belongs to no variable.
    variables = (found.get(id(handle)) or _variable(handle) for handle in others)
    buffers = [buffer for buffer in variables if buffer.bytes]
    if buffers and len(others) == len(handles):
        places = ((tensor_bytes(each), tensor_place(each)) for each in _captured(graph))
        buffers += [_earlier(size, place) for size, place in places if place.address]
        if not any(id(handle) in living for handle in handles):
            _settled[graph] = buffers
    return buffers


def _variable(handle: Any) -> KnownBuffer:
    size, dtype = _stored(handle)
    return _earlier(size, resource_place(handle, dtype) if size else Place(), id(handle))


def _earlier(size: int, place: Place, key: int = 0) -> KnownBuffer:
    return KnownBuffer(EARLIER_MODELS, "", "other", size, place.address, key, device=place.device)


def _stored(handle: Any) -> tuple[int, Any]:
    """Return bytes and type of a handle's variable; 0 for other handles, such as an iterator's."""
    tensorflow = sys.modules["tensorflow"]
    for part in getattr(HANDLE_DATA.of(handle), "shape_and_type", None) or ():
        dtype = tensorflow.as_dtype(part.dtype)
        if not part.shape.unknown_rank:
            return math.prod(max(0, dim.size) for dim in part.shape.dim) * int(dtype.size or 0), dtype
    return 0, None


def _around(graph: Any) -> Iterator[Any]:
    """Yield a graph, and those that contain it."""
    while graph is not None:
        yield graph
        graph = getattr(graph, "outer_graph", None)


def _constant_bytes(graph: Any) -> int:
    known = _constants.get(graph)
    if known is None:
        known = _constants[graph] = sum(map(chunk_bytes, _constant_sizes(graph.get_operations())))
    return known


def _constant_sizes(operations: Iterable[Any]) -> Iterator[int]:
    for operation in operations:
        if operation.type == "Const":
            yield tensor_bytes(operation.outputs[0])
