"""Tensors of a batch: their sizes, which identify their allocations, and the batch's number of rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.compat.tensorflow import EAGER_TENSOR

__all__ = [
    "BatchPart",
    "Spec",
    "batch_parts",
    "batch_sizes",
    "eager_tensors",
    "fixed_rows",
    "leaves",
    "output_bytes",
    "row_bytes",
    "rows_by_outputs",
    "rows_in_batch",
    "tensor_specs",
]

Spec = tuple[tuple[int | None, ...], int]


class BatchPart(NamedTuple):
    """One tensor of a batch."""

    bytes: int  # its size, or the size of one row if the number of rows is not known beforehand
    per_row: bool  # whether `bytes` is the size of one row

    def rows(self, size: int) -> int:
        """Number of rows of a buffer of this size; 0 if it cannot be this tensor.

        Example:
            >>> BatchPart(12, True).rows(48), BatchPart(12, True).rows(50), BatchPart(12, False).rows(12)
            (4, 0, 1)
        """
        if self.per_row:
            return size // self.bytes if size % self.bytes == 0 else 0
        return int(size == self.bytes)


def batch_parts(arguments: Any) -> list[BatchPart]:
    """Return the tensors that a step function is called with, directly or by an iterator."""
    parts = []
    for item in leaves(arguments):
        spec = getattr(item, "element_spec", None)
        parts += [
            part for part in [_part(*found) for found in tensor_specs(item if spec is None else spec)] if part.bytes
        ]
    return parts


def fixed_rows(arguments: Any) -> int | None:
    """Return the rows of a batch whose tensors all have the same, known first dimension; else ``None``."""
    found = set()
    for item in leaves(arguments):
        spec = getattr(item, "element_spec", None)
        found |= {shape[0] for shape, _ in tensor_specs(item if spec is None else spec) if shape}
    return found.pop() if len(found) == 1 else None


def rows_in_batch(
    parts: Sequence[BatchPart], events: AllocationEvents, by_outputs: Mapping[int, int] = MappingProxyType({})
) -> int | None:
    """Find the rows of the step's batch: the number that fits most parts, in buffers of the pipeline or that died.

    Args:
        parts: The tensors of the batch.
        events: The step's events.
        by_outputs: By number of rows, how many layers' outputs it would fit; decides alone if the batch is unknown, or
            none of its numbers fits an output.
    """
    of_pipeline = events.from_input_pipeline & events.births
    sizes = set(np.unique(events.requested_bytes[~events.births | of_pipeline]).tolist())
    made = set(np.unique(events.requested_bytes[of_pipeline]).tolist())
    votes, sure = (
        Counter(rows for part in parts if part.per_row for rows in {part.rows(size) for size in among} if rows)
        for among in (sizes, made)  # what died may be a weight
    )
    # Small parts fit many sizes; the largest fits few.
    largest = max((part for part in parts if part.per_row), key=lambda part: part.bytes, default=None)
    candidates = {largest.rows(size) for size in sizes} - {0} if largest else set()
    found = max(
        candidates,
        key=lambda rows: (votes[rows] + by_outputs.get(rows, 0), by_outputs.get(rows, 0), sure[rows]),
        default=None,
    )
    highest = max(by_outputs.values(), default=0)
    best = [rows for rows, count in by_outputs.items() if count == highest]
    # What died may be a gradient of the step before, and its size that of many rows.
    if found is None or (highest > 1 and not by_outputs.get(found)):
        return best[0] if len(best) == 1 else found
    return found


def rows_by_outputs(outputs: Mapping[str, Iterable[Spec]], made: Mapping[str, Iterable[int]]) -> Counter[int]:
    """Count the layers' outputs that each number of rows would fit.

    Args:
        outputs: By layer path, a record of each tensor that the layer's call returns.
        made: By layer path, the sizes of its allocations.

    Example:
        >>> rows_by_outputs({"a": [((None, 3), 4)], "b": [((None,), 4)]}, {"a": [96, 100], "b": [32]})
        Counter({8: 2})
    """
    votes: Counter[int] = Counter()
    for path, specs in outputs.items():
        for shape, item in specs:
            row = _bytes((None, *shape[1:]), item, 1) if shape else None
            votes.update({size // row for size in made.get(path, ()) if row and size % row == 0 and size})
    return votes


def row_bytes(specs: Iterable[Spec]) -> int | None:
    """Bytes of tensors for one row of their batch; ``None`` if a size is unknown, or there is none.

    Example:
        >>> row_bytes([((None, 3), 4), ((8, 2), 4)])
        20
    """
    sizes = [_bytes((None, *shape[1:]), item, 1) for shape, item in specs if shape]
    return sum(size or 0 for size in sizes) if sizes and None not in sizes else None


def batch_sizes(parts: Sequence[BatchPart], events: AllocationEvents) -> list[int]:
    """Bytes of each tensor of the step's batch; without the number of rows, only of those that have a fixed size."""
    rows = rows_in_batch(parts, events) or 0
    return [size for size in (part.bytes * (rows if part.per_row else 1) for part in parts) if size]


def output_bytes(outputs: Mapping[str, Iterable[Spec]], rows: int | None) -> dict[str, int]:
    """Bytes of each layer's outputs, where known."""
    found = {}
    for path, specs in outputs.items():
        sizes = [_bytes(shape, item, rows) for shape, item in specs]
        if sizes and all(size is not None for size in sizes):
            found[path] = sum(size for size in sizes if size is not None)
    return found


def tensor_specs(value: Any) -> list[Spec]:
    """Return shape and item size of each tensor in a structure."""
    return [spec for spec in map(_spec, leaves(value)) if spec is not None]


def eager_tensors(value: Any) -> list[Any]:
    """Return the tensors in a structure that have a value."""
    return [tensor for tensor in leaves(value) if EAGER_TENSOR.is_that_of(tensor)]


def _spec(tensor: Any) -> Spec | None:
    """Return shape (``None`` where unknown) and bytes of an item."""
    shape, dtype = getattr(tensor, "shape", None), getattr(tensor, "dtype", None)
    try:
        dimensions = tuple(None if size is None else int(size) for size in shape)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        return None
    size = getattr(dtype, "size", None) or getattr(dtype, "itemsize", None)
    return (dimensions, int(size)) if size else None


def _bytes(shape: tuple[int | None, ...], item: int, rows: int | None) -> int | None:
    known = [size for size in shape if size is not None]
    if len(known) == len(shape):
        return math.prod(known) * item
    if shape[0] is None and len(known) == len(shape) - 1 and rows is not None:
        return math.prod(known) * item * rows
    return None


def _part(shape: tuple[int | None, ...], item: int) -> BatchPart:
    known = [size for size in shape if size is not None]
    return BatchPart(math.prod(known) * item, per_row=len(known) < len(shape))


def leaves(value: Any) -> Iterator[Any]:
    """Yield the items of nested dictionaries, lists and tuples."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        yield value
        return
    for item in value:
        yield from leaves(item)
