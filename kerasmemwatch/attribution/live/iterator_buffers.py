"""Batches that input pipelines hold ready, as TensorFlow reports the buffers of each iterator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.compat.tensorflow import EAGER_TENSOR, ITERATOR_RESOURCE, MODEL_PROTO, OWNED_ITERATOR

__all__ = ["not_repeated", "pipeline_nodes", "waiting_bytes"]


def waiting_bytes(iterators: Iterable[Any]) -> int:
    """Bytes, as allocated, of the batches that wait in the buffers of iterators.

    ``tf.raw_ops.IteratorGetModelProto`` reports them (``buffered_bytes`` of each node of the pipeline). An iterator
    that has not begun, or whose dataset is not modelled (``options.autotune.enabled`` is off), counts as empty.

    Args:
        iterators: TensorFlow's ``OwnedIterator``s.

    Example:
        >>> waiting_bytes([])
        0
    """
    return sum(map(_buffered, iterators))


def not_repeated(waiting: int, sources: Iterable[int], batch: Iterable[BatchPart]) -> int:
    """Bytes that wait in separate buffers: ``from_tensors(batch).repeat()`` returns the same tensors every time.

    Args:
        waiting: The result of ``waiting_bytes``.
        sources: Bytes of the tensors that datasets hold.
        batch: The tensors of a batch.

    Example:
        >>> not_repeated(2560, [1536], [BatchPart(1536, False)]), not_repeated(4608, [1536], [BatchPart(1536, False)])
        (0, 3072)
    """
    sizes = {part.bytes for part in batch if not part.per_row}
    repeated = sum(size for size in sources if size in sizes)
    # A chunk may be up to twice as large as the request.
    return 0 if waiting < 2 * repeated else waiting - repeated


def pipeline_nodes(iterator: Any) -> Mapping[int, Any]:
    """Return TensorFlow's nodes of an iterator's running pipeline, by number; empty without a pipeline."""
    if not OWNED_ITERATOR.is_that_of(iterator):  # loops may iterate over anything, where TensorFlow is not even there
        return {}
    import tensorflow as tf

    resource = ITERATOR_RESOURCE.of(iterator)
    # An iterator within a traced function, which an exception may keep alive, holds no batches.
    if not EAGER_TENSOR.is_that_of(resource):
        return {}
    # Without a model this raises an error. All of this is private, and may change.
    with suppress(Exception), tf.init_scope():
        proto = tf.raw_ops.IteratorGetModelProto(iterator=resource)
        nodes: Mapping[int, Any] = MODEL_PROTO.get().FromString(proto.numpy()).nodes
        return nodes
    return {}


def _buffered(iterator: Any) -> int:
    return sum(max(0, int(node.buffered_bytes)) for node in pipeline_nodes(iterator).values())
