"""The shuffle buffer of a running input pipeline: what it holds, and how soon other elements have replaced all."""

from __future__ import annotations

from typing import Any

from kerasmemwatch.attribution.live.iterator_buffers import pipeline_nodes

__all__ = ["shuffle_buffer"]

# Those parts of a pipeline that shuffle, and the last of all (tensorflow/core/kernels/data/shuffle_dataset_op.cc).
_SHUFFLES, _LAST = ("Shuffle", "ShuffleAndRepeat"), "Root"


def shuffle_buffer(iterator: Any) -> tuple[int, float] | None:
    """What the largest shuffle buffer of an iterator holds, and in how many steps as many elements pass.

    Args:
        iterator: TensorFlow's ``OwnedIterator``.

    Returns:
        Bytes, and a number of steps; ``None`` without such a buffer, or if no step was taken yet.
    """
    nodes = list(pipeline_nodes(iterator).values())
    steps = max((int(node.num_elements) for node in nodes if node.name == _LAST), default=0)
    found = [node for node in nodes if node.name in _SHUFFLES and node.num_elements and node.buffered_bytes > 0]
    if not found or not steps:
        return None
    largest = max(found, key=lambda node: int(node.buffered_bytes))
    return int(largest.buffered_bytes), int(largest.buffered_elements) * steps / int(largest.num_elements)
