"""Owners of the operations in a function's graph, and other records of the graph."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kerasmemwatch.records.owners import Frame

__all__ = ["Reference", "TracedGraph", "weak_reference"]

Reference = Callable[[], Any]


@dataclass
class TracedGraph:
    """Records of a function's graph; they keep neither the graph nor a variable alive."""

    stage: str  # the stage in which it was traced
    ops: dict[str, Frame] = field(default_factory=dict)  # by name of the operation, its owner
    # By name of an operation that assigns, a reference to the variable's handle.
    variables: dict[str, Reference] = field(default_factory=dict)
    # By name of a tensor, a reference to the variable whose gradient it is, whether that is sparse, and the operations
    # whose buffer it may share.
    gradients: dict[str, tuple[Reference, bool, tuple[str, ...]]] = field(default_factory=dict)
    # By name of an operation that calls a function, the function's name.
    calls: dict[str, str] = field(default_factory=dict)


def weak_reference(value: Any) -> Reference:
    """Return a weak reference to a value, or one to ``None`` if the value does not support that."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: None
