"""Eager tensors that are alive when a step of the user's own loop begins.

A loop's current batch is such a tensor. If it dies within the step, nothing leads to it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from kerasmemwatch.attribution.live.batch_spec import leaves
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer, as_input, eager_buffer
from kerasmemwatch.attribution.live.tensor_places import tensor_place

__all__ = ["earlier_tensors"]


def earlier_tensors(tensors: Iterable[Any], iterators: Iterable[Any]) -> list[KnownBuffer]:
    """Return the buffers of eager tensors; those that iterators may have returned are inputs.

    Args:
        tensors: Eager tensors that are alive.
        iterators: TensorFlow's ``OwnedIterator``s.

    Example:
        >>> earlier_tensors([], [])
        []
    """
    specs = [spec for iterator in iterators for spec in leaves(getattr(iterator, "element_spec", ()))]
    found = []
    for tensor in tensors:
        buffer = eager_buffer(tensor, tensor_place(tensor))
        if buffer is not None:
            found.append(as_input(buffer) if any(_may_be(spec, tensor) for spec in specs) else buffer)
    return found


def _may_be(spec: Any, tensor: Any) -> bool:
    """Whether a tensor is of the shape and type that an iterator returns."""
    with suppress(Exception):  # other kinds of specs have neither
        return bool(spec.dtype == tensor.dtype and spec.shape.is_compatible_with(tensor.shape))
    return False
