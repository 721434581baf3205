"""Arrays that a running input pipeline keeps, besides the waiting batches.

When an iterator is made, TensorFlow computes the results of a dataset's function that depend on constants alone
(``tf.range(9)``), and keeps them as long as the iterator. A ``flat_map`` keeps its current element. Keras' pipeline for
arrays has both: the indices of all samples, and their order.
"""

from __future__ import annotations

import weakref
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kerasmemwatch.attribution.events.chunk_addresses import chunk_bytes
from kerasmemwatch.attribution.live.iterator_buffers import pipeline_nodes
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer, tensor_bytes
from kerasmemwatch.compat.tensorflow import DATASET_FUNCTIONS, DATASET_INPUTS, ITERATOR_DATASET
from kerasmemwatch.records.owners import INPUT_PIPELINE

__all__ = ["kept_arrays"]

# tensorflow/core/common_runtime/constant_folding.cc: larger results are computed again each time.
_MAX_FOLDED_BYTES = 10 << 20
# One chunk. Smaller constants are ignored: TensorFlow merges equal ones, and there are many.
_SMALL_BYTES = 256
# Operations that return a buffer, or a part of it.
_VIEWS = frozenset(
    {"Bitcast", "EnsureShape", "ExpandDims", "Identity", "Reshape", "Slice", "Squeeze", "StopGradient", "StridedSlice"}
)
# Their results are in NumPy's memory.
_OF_PYTHON = frozenset({"EagerPyFunc", "PyFunc", "PyFuncStateless"})


class _Arrays(NamedTuple):
    """Arrays that a dataset's function makes."""

    constants: tuple[int, ...]  # bytes of each array that depends on constants alone
    results: tuple[int, ...]  # bytes of each array of known size that it returns and makes anew for each element


_of_graph: weakref.WeakKeyDictionary[Any, _Arrays] = weakref.WeakKeyDictionary()


def kept_arrays(iterators: Iterable[Any]) -> list[KnownBuffer]:
    """Return the arrays that iterators keep, at unknown addresses.

    Args:
        iterators: TensorFlow's ``OwnedIterator``s.

    Example:
        >>> kept_arrays([])
        []
    """
    found = list[KnownBuffer]()
    for iterator in iterators:
        nodes = pipeline_nodes(iterator)
        # All of this is private, and may change.
        with suppress(Exception):
            datasets = list(_with_inputs(ITERATOR_DATASET.of(iterator))) if nodes else []
            sizes = [size for dataset in datasets for arrays in _made(dataset) for size in arrays.constants]
            sizes += [size for dataset in datasets for size in _element(dataset) if _is_open(nodes, size)]
            found += _with_chunks(sizes, nodes)
    return found


def _with_chunks(sizes: Sequence[int], nodes: Mapping[int, Any]) -> Iterator[KnownBuffer]:
    """Yield arrays, with the chunk of each that a ``flat_map`` iterates: TensorFlow tells how large it is.

    What is made anew for each element comes last in ``sizes``. If there is any, it is what is iterated.
    """
    chunks = [size for size in _iterated(nodes) if size % chunk_bytes(1) == 0]
    for size in reversed(sizes):
        chunk = next((chunk for chunk in chunks if _fits(size, chunk)), 0)
        if chunk:
            chunks.remove(chunk)
        yield KnownBuffer(INPUT_PIPELINE, "", "inputs", size, reserved=int(chunk))


def _with_inputs(dataset: Any) -> Iterator[Any]:
    yield dataset
    for each in DATASET_INPUTS.of(dataset)():
        yield from _with_inputs(each)


def _made(dataset: Any) -> list[_Arrays]:
    return [_arrays(wrapper.function.graph) for wrapper in DATASET_FUNCTIONS.of(dataset)()]


def _arrays(graph: Any) -> _Arrays:
    found = _of_graph.get(graph)
    if found is None:
        folded, operations = _folded(graph), graph.get_operations()
        used = [tensor for op in operations if op.name not in folded for tensor in op.inputs]
        constants = {id(tensor): tensor for tensor in [*used, *graph.outputs] if tensor.op.name in folded}
        is_python = any(op.type in _OF_PYTHON for op in operations)
        results = [] if is_python else [tensor for tensor in graph.outputs if _is_made_anew(tensor, folded)]
        found = _of_graph[graph] = _Arrays(_large(constants.values()), _large(results))
    return found


def _large(tensors: Iterable[Any]) -> tuple[int, ...]:
    return tuple(size for size in map(tensor_bytes, tensors) if size > _SMALL_BYTES)


def _folded(graph: Any) -> set[str]:
    """Names of the operations that run once, because they depend on constants alone."""
    found = set[str]()
    for op in graph.get_operations():
        is_pure = op.inputs and not op.op_def.is_stateful and not op.control_inputs
        if op.type == "Const" or (
            is_pure
            and all(tensor.op.name in found for tensor in op.inputs)
            and all(0 < tensor_bytes(tensor) <= _MAX_FOLDED_BYTES for tensor in op.outputs)
        ):
            found.add(op.name)
    return found


def _is_made_anew(tensor: Any, folded: Container[str]) -> bool:
    """Whether a buffer is neither a constant, nor an argument of the function, nor a part of either."""
    while tensor.op.type in _VIEWS:
        tensor = tensor.op.inputs[0]
    return tensor.op.type != "Placeholder" and tensor.op.name not in folded


def _element(dataset: Any) -> tuple[int, ...]:
    """Return the element that a ``flat_map`` iterates, if it is made for that."""
    if not type(dataset).__name__.endswith("FlatMapDataset"):
        return ()
    [source] = DATASET_INPUTS.of(dataset)()
    while type(source).__name__.endswith("PrefetchDataset"):
        [source] = DATASET_INPUTS.of(source)()
    return tuple(size for arrays in _made(source) for size in arrays.results)


def _is_open(nodes: Mapping[int, Any], size: int) -> bool:
    """Whether a ``flat_map`` iterates an element of this size: then its second input is the element's dataset."""
    return any(_fits(size, chunk) for chunk in _iterated(nodes))


def _iterated(nodes: Mapping[int, Any]) -> list[float]:
    """Bytes of the chunks of elements that ``flat_map``s iterate, on average over those so far."""
    sources = (nodes[node.inputs[0]] for node in nodes.values() if node.name == "FlatMap" and len(node.inputs) > 1)
    return [source.bytes_produced / source.num_elements for source in sources if source.num_elements]


def _fits(size: int, chunk: float) -> bool:
    """Whether a request may have got this chunk, which may be up to twice as large."""
    return size <= chunk < 2 * chunk_bytes(size)
