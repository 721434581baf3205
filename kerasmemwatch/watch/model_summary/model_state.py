"""Saves everything in a model that running it may change, and restores it exactly.

Known limit: it does not see into plain Python objects that are neither containers nor Keras' or TensorFlow's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kerasmemwatch.compat.keras import TRACKER, VARIABLE_VALUE
from kerasmemwatch.compat.tensorflow import TRACKABLE_CONTAINER

__all__ = ["ModelState", "as_it_was"]

_CONTAINERS = (dict, list, set, deque)


class ModelState:
    """The current attributes, containers and variables that can be reached from some objects.

    Layers, optimizers, metrics, losses and modules are entered, so that what Keras does to build or compile one can be
    undone too. Variables are copied to host memory.
    """

    def __init__(self, start: Iterable[Any]) -> None:
        self._attributes: list[tuple[Any, dict[str, Any]]] = []
        self._contents: list[tuple[Any, Any]] = []
        self._values: list[tuple[Any, Any]] = []
        self._seen: dict[int, Any] = {}
        self._entered, self._variables = _classes()
        waiting = list(start)
        while waiting:
            value = waiting.pop()
            if id(value) not in self._seen:
                waiting += self._note(value)

    def restore(self) -> None:
        """Restore everything.

        Unchanged values are not touched. If one value cannot be restored, the others still are.

        Raises:
            ExceptionGroup: If a variable no longer accepts a value.
        """
        for value, attributes in self._attributes:
            if not _same(value.__dict__, attributes):
                # Through the dictionary: setting an attribute makes Keras track the value again.
                value.__dict__.clear()
                value.__dict__.update(attributes)
        for value, content in self._contents:
            if not _same(value, content):
                _fill(value, content)
        errors = []
        for variable, array in self._values:
            try:
                _assign(variable, array)
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("Variables could not be put back.", errors)

    def _note(self, value: Any) -> Iterable[Any]:
        """Save a value's current content, and return what it leads to."""
        if isinstance(value, self._variables):
            self._seen[id(value)] = value
            self._values += [(part, array) for part in _parts(value) if (array := _value(part)) is not None]
            return ()
        if isinstance(value, (tuple, frozenset)):
            self._seen[id(value)] = value
            return value
        if isinstance(value, self._entered) or TRACKER.is_that_of(value):
            self._seen[id(value)] = value
            attributes = dict(value.__dict__)
            self._attributes.append((value, attributes))
            # TensorFlow's wrapper of a dictionary has it here; its wrapper of a list has that as an attribute.
            wrapped = getattr(value, "__wrapped__", None)
            return [*attributes.values(), wrapped]
        if isinstance(value, _CONTAINERS):
            self._seen[id(value)] = value
            content = dict(value) if isinstance(value, dict) else list(value)
            self._contents.append((value, content))
            return content.values() if isinstance(content, dict) else content
        return ()


@contextmanager
def as_it_was(*start: Any) -> Iterator[None]:
    """Restore models on exit, whatever happens in the block."""
    state = ModelState(start)
    try:
        yield
    finally:
        state.restore()


def _classes() -> tuple[tuple[type, ...], tuple[type, ...]]:
    """Classes whose attributes are saved, and classes of variables."""
    import keras
    import tensorflow as tf

    # Layers are operations; a model's compiled loss and metrics are a loss and a metric. TensorFlow's random number
    # generators share a module's base class.
    trackable = tf.Module.__mro__[1]
    entered = (
        keras.Operation,
        keras.Optimizer,
        keras.Loss,
        keras.Metric,
        keras.random.SeedGenerator,
        trackable,
        *([TRACKABLE_CONTAINER.get()] if TRACKABLE_CONTAINER.exists else []),
    )
    return entered, (keras.Variable, tf.Variable)


def _parts(variable: Any) -> list[Any]:
    """The TensorFlow variables behind a Keras variable, one per replica."""
    stored = VARIABLE_VALUE.of(variable)
    stored = variable if stored is None else stored
    replicas = getattr(stored, "values", None)
    return list(replicas) if isinstance(replicas, (list, tuple)) and replicas else [stored]


def _value(variable: Any) -> Any:
    try:
        return variable.numpy().copy()
    except Exception:
        return None  # it has no value yet, or belongs to a graph


def _assign(variable: Any, array: Any) -> None:
    now = variable.numpy()
    # Compare bytes, because NaNs differ from themselves; objects (strings) have no bytes to compare.
    if array.dtype == object or now.shape != array.shape or now.tobytes() != array.tobytes():
        variable.assign(array)


def _same(value: Any, content: Any) -> bool:
    if len(value) != len(content):
        return False
    if isinstance(content, dict):
        missing = object()
        return all(value.get(key, missing) is item for key, item in content.items())
    return all(one is other for one, other in zip(value, content, strict=True))


def _fill(value: Any, content: Any) -> None:
    # Use the methods of Python's own classes: those of Keras' containers track what they are given again.
    if isinstance(value, dict):
        dict.clear(value)
        dict.update(value, content)
    elif isinstance(value, list):
        list.__setitem__(value, slice(None), content)
    elif isinstance(value, set):
        set.clear(value)
        set.update(value, content)
    else:
        deque.clear(value)
        deque.extend(value, content)
