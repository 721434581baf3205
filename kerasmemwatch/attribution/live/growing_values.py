"""Single objects whose value can grow: variables whose shape may change, and lookup tables that can be added to."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["GrowingValue", "can_grow", "growing_values"]

_VARIABLE, _TABLE = "growing variable", "growing table"


@dataclass(frozen=True, eq=False)
class GrowingValue:
    """What such an object holds now.

    Attributes:
        owner: The variable or table.
        kind: ``"growing variable"`` or ``"growing table"``.
        num_bytes: Bytes of its value; of a table those of keys and values, without what the table itself takes.
        like: What it holds, in words.
    """

    owner: Any
    kind: str
    num_bytes: int
    like: str


def can_grow(kind: type) -> bool:
    """Whether objects of a class may be such a variable or table."""
    return _kind(kind) != ""


def growing_values(objects: Iterable[Any]) -> Iterator[GrowingValue]:
    """What those of some objects hold whose value can grow.

    Args:
        objects: Objects of classes of which ``can_grow`` is true.
    """
    import tensorflow as tf

    for each in objects:
        with suppress(Exception), tf.init_scope():  # it may have been destroyed
            if _kind(type(each)) == _TABLE:
                yield _of_table(tf, each)
            elif not each.shape.is_fully_defined():
                shape = tf.raw_ops.VariableShape(input=each.handle).numpy().tolist()
                size = math.prod(shape) * each.dtype.size
                yield GrowingValue(each, _VARIABLE, size, f"{each.dtype.name}{shape}")


def _of_table(tf: Any, table: Any) -> GrowingValue:
    count, key, value = int(table.size()), table.key_dtype, table.value_dtype
    shape = table.lookup(tf.zeros((0,), key)).shape[1:].as_list()
    size = count * (key.size + math.prod(shape) * value.size)
    return GrowingValue(table, _TABLE, size, f"{count:,} keys, {key.name} to {value.name}{shape or ''}")


def _kind(kind: type) -> str:
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return ""
    if kind.__name__ == "ResourceVariable" and issubclass(kind, tensorflow.Variable):
        return _VARIABLE
    tables = tensorflow.lookup.experimental
    return _TABLE if kind in (tables.MutableHashTable, tables.DenseHashTable) else ""
