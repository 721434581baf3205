"""Caches of input pipelines: how many there are in memory, what they hold, and what they hold once they are full."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from kerasmemwatch.attribution.events.chunk_addresses import chunk_bytes
from kerasmemwatch.attribution.live.iterator_buffers import pipeline_nodes
from kerasmemwatch.compat.tensorflow import CACHE_FILENAME, DATASET_INPUTS

__all__ = ["cache_sizes", "cached_bytes"]

_MAX_DATASETS = 64
# The part of a cache that keeps elements (tensorflow/core/kernels/data/cache_dataset_ops.cc).
_KEEPS = "MemoryCacheImpl"


def cache_sizes(dataset: Any) -> tuple[int | None, ...]:
    """Bytes that each in-memory ``cache()`` of a dataset holds once all elements have passed; ``None`` if unknown.

    It may hold a little more: the allocator gives a free chunk whole unless it is twice as large as what is asked for.

    Args:
        dataset: A ``tf.data.Dataset``; anything else has no cache.
    """
    return tuple(map(_full_bytes, filter(_is_in_memory, _with_inputs(dataset))))


def cached_bytes(iterator: Any) -> int | None:
    """Bytes that an iterator has put into its pipeline's in-memory caches; ``None`` if it has not begun, or has ended.

    Args:
        iterator: TensorFlow's ``OwnedIterator``.
    """
    held = [max(0, int(node.buffered_bytes)) for node in pipeline_nodes(iterator).values() if node.name == _KEEPS]
    return sum(held) if held else None


def _with_inputs(dataset: Any) -> Iterator[Any]:
    waiting, seen = [dataset], 0
    while waiting and seen < _MAX_DATASETS:
        each, seen = waiting.pop(), seen + 1
        yield each
        waiting += DATASET_INPUTS.of(each, list)()


def _is_in_memory(dataset: Any) -> bool:
    filename = CACHE_FILENAME.of(dataset) if type(dataset).__name__ == "CacheDataset" else None
    return filename is not None and filename.numpy() == b""


def _full_bytes(dataset: Any) -> int | None:
    count = int(dataset.cardinality())
    if count < 0:  # infinite or unknown
        return None
    sizes = [_tensor_bytes(spec) for spec in _tensors(dataset.element_spec)]
    return None if None in sizes else count * sum(size for size in sizes if size is not None)


def _tensors(spec: Any) -> Iterator[Any]:
    if isinstance(spec, Mapping):
        spec = tuple(spec.values())
    if isinstance(spec, (tuple, list)):
        for part in spec:
            yield from _tensors(part)
    else:
        yield spec


def _tensor_bytes(spec: Any) -> int | None:
    shape = getattr(spec, "shape", None)
    if shape is None or not shape.is_fully_defined() or spec.dtype.size == 0:
        return None
    return chunk_bytes(math.prod(shape.as_list()) * spec.dtype.size)
