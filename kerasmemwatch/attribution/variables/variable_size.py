"""Identity and size of a Keras or TensorFlow variable, read without running an operation."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.compat.keras import VARIABLE_DTYPE, VARIABLE_SHAPE, VARIABLE_VALUE

__all__ = ["VariableSize", "components", "item_bytes", "stored", "variable_key", "variable_size"]

_BITS = re.compile(r"(?:q?u?int|b?float|complex)([0-9]+)(?:_\w+)?")


@dataclass(frozen=True)
class VariableSize:
    """Shape, type and size of a variable."""

    shape: tuple[int | None, ...]  # its dimensions, `None` where unknown; `(None,)` if even their number is
    dtype: str  # name of its storage type: `"float32"`
    bytes: int | None  # bytes of one replica; `None` if the shape or the size of an item is unknown
    replicas: int = 1  # number of copies, one per device, under a `tf.distribute` strategy


def item_bytes(dtype: str) -> int | None:
    """Return the size of one item.

    Types smaller than a byte take a whole one, as in TensorFlow (``tf.DType.size`` of int4 is 1).

    Returns:
        Bytes; ``None`` if items have no fixed size.

    Example:
        >>> [item_bytes(dtype) for dtype in ("bfloat16", "float8_e4m3fn", "bool", "int4", "string")]
        [2, 1, 1, 1, None]
    """
    if dtype == "bool":
        return 1
    match = _BITS.fullmatch(dtype)
    return math.ceil(int(match[1]) / 8) if match else None


def variable_key(variable: Any) -> int:
    """Return the id of a variable, the same for a Keras variable and the ``tf.Variable`` in it."""
    storage = stored(variable)
    # Only a tf.Variable is storage: under JAX two variables may share the same immutable array for a while.
    return id(storage) if isinstance(storage, _tensorflow_variables()) else id(variable)


def variable_size(variable: Any) -> VariableSize:
    """Read shape, dtype, bytes and number of replicas of a variable."""
    parts = components(variable)
    shape, dtype = _shape(variable, parts[0]), _dtype(variable)
    item = item_bytes(dtype)
    known = [size for size in shape if size is not None]
    complete = item is not None and len(known) == len(shape)
    return VariableSize(shape, dtype, math.prod(known) * (item or 0) if complete else None, len(parts))


def stored(variable: Any) -> Any:
    """Return the object in which a Keras variable stores its value; any other variable is returned itself."""
    if isinstance(variable, _tensorflow_variables()):
        return variable
    # Not `.value`, which computes a placeholder for uninitialized variables, and casts under autocast.
    storage = VARIABLE_VALUE.of(variable)
    return variable if storage is None else storage


def components(variable: Any) -> Sequence[Any]:
    """Return the copies of a variable, one per device, under a ``tf.distribute`` strategy; else the variable itself."""
    storage = stored(variable)
    copies = getattr(storage, "values", None)
    return copies if isinstance(copies, (list, tuple)) and copies else (storage,)


def _tensorflow_variables() -> tuple[type, ...]:
    variable = getattr(sys.modules.get("tensorflow"), "Variable", None)
    return (variable,) if isinstance(variable, type) else ()


def _shape(variable: Any, component: Any) -> tuple[int | None, ...]:
    own = VARIABLE_SHAPE.of(variable)
    shape = own if isinstance(own, tuple) else component.shape
    if getattr(shape, "rank", 0) is None:
        return (None,)
    return tuple(None if size is None else int(size) for size in shape)


def _dtype(variable: Any) -> str:
    # Not a Keras variable's `.dtype`, which is the compute dtype inside an autocast scope.
    own = VARIABLE_DTYPE.of(variable)
    dtype = own if isinstance(own, str) else variable.dtype
    return str(getattr(dtype, "name", dtype)).removesuffix("_ref")
