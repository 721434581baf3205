"""The graphs of Keras' step functions, which TensorFlow would otherwise keep forever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kerasmemwatch.compat.keras import STEP_FUNCTIONS
from kerasmemwatch.compat.tensorflow import REGISTERED_GRADIENTS

__all__ = ["step_graphs_dropped"]

# Prefixes of the functions from which Keras' TensorFlow trainer makes a step, such as ``one_step_on_``.
_STEP = tuple(name.attribute.partition("_on_")[0] + "_on_" for name in STEP_FUNCTIONS)
_DEEPEST = 8


@contextmanager
def step_graphs_dropped() -> Iterator[None]:
    """Release the step functions made in the block, and with them the optimizer's variables.

    TensorFlow registers a function for every operation with a custom gradient and keeps it forever, along with the
    graph it was made in. An optimizer's update has such an operation (``all_reduce``), so every training function
    would stay alive. What users' ``tf.function``s registered is kept, because it is still needed.
    """
    registry = _registered_gradients()
    before = set(registry)
    try:
        yield
    finally:
        for name in [name for name in registry if name not in before]:
            graphs = list(_graphs(registry[name].get("type")))
            if graphs and all(str(graph.name).startswith(_STEP) for graph in graphs):
                del registry[name]


def _registered_gradients() -> dict[str, Any]:
    if not all(name.exists for name in (REGISTERED_GRADIENTS, *STEP_FUNCTIONS)):
        return {}
    found = REGISTERED_GRADIENTS.get()
    return found if isinstance(found, dict) else {}


def _graphs(function: Any, depth: int = 0) -> Iterator[Any]:
    """The graphs of the tensors that a function, or a function it calls, has captured."""
    for cell in getattr(function, "__closure__", None) or ():
        try:
            content = cell.cell_contents
        except ValueError:
            continue  # not filled yet
        if callable(content) and depth < _DEEPEST:
            yield from _graphs(content, depth + 1)
        elif isinstance(content, (list, tuple)):
            yield from (tensor.graph for tensor in content if _is_symbolic(tensor))


def _is_symbolic(value: Any) -> bool:
    import tensorflow as tf

    return tf.is_tensor(value) and not hasattr(value, "numpy") and hasattr(value, "graph")
