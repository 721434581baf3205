"""What the input pipelines hold ready: TensorFlow's own account of the buffers of each iterator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.compat.tensorflow import EAGER_TENSOR, ITERATOR_RESOURCE, MODEL_PROTO

__all__ = ["not_repeated", "pipeline_nodes", "waiting_bytes"]


def waiting_bytes(iterators: Iterable[Any]) -> int:
    """Bytes, as allocated, of the batches that wait in the buffers of iterators.

    As ``tf.raw_ops.IteratorGetModelProto`` tells (``buffered_bytes`` of each node of the pipeline); an iterator that
    has not begun, or whose dataset is not modelled (``options.autotune.enabled`` is off), counts as empty.

    Args:
        iterators: TensorFlow's ``OwnedIterator``s.

    Example:
        >>> waiting_bytes([])
        0
    """
    return sum(map(_buffered, iterators))


def not_repeated(waiting: int, sources: Iterable[int], batch: Iterable[BatchPart]) -> int:
    """What waits in buffers of its own: ``from_tensors(batch).repeat()`` gives the same tensors again and again.

    Args:
        waiting: As ``waiting_bytes`` tells.
        sources: Bytes of the tensors that datasets hold.
        batch: The tensors of a batch.

    Example:
        >>> not_repeated(2560, [1536], [BatchPart(1536, False)]), not_repeated(4608, [1536], [BatchPart(1536, False)])
        (0, 3072)
    """
    sizes = {part.bytes for part in batch if not part.per_row}
    repeated = sum(size for size in sources if size in sizes)
    # A chunk may be up to twice what was asked for.
    return 0 if waiting < 2 * repeated else waiting - repeated


def pipeline_nodes(iterator: Any) -> Mapping[int, Any]:
    """TensorFlow's account of an iterator: by number, each node of the pipeline that runs; empty if there is none."""
    import tensorflow as tf

    resource = ITERATOR_RESOURCE.of(iterator)
    # One within a function that was traced, which an exception may keep alive, holds no batches.
    if not EAGER_TENSOR.is_that_of(resource):
        return {}
    # Without a model there is an error; and as with all that is private, it may one day be another.
    with suppress(Exception), tf.init_scope():
        proto = tf.raw_ops.IteratorGetModelProto(iterator=resource)
        nodes: Mapping[int, Any] = MODEL_PROTO.get().FromString(proto.numpy()).nodes
        return nodes
    return {}


def _buffered(iterator: Any) -> int:
    return sum(max(0, int(node.buffered_bytes)) for node in pipeline_nodes(iterator).values())
