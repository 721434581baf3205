"""Text in figures: user names as inert text, and one unit of bytes per axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasmemwatch.names import printable, shortened
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.units import GIB, KIB, MIB, format_bytes

__all__ = ["ByteUnit", "byte_unit", "category_lines", "layer_label", "plain"]

# Plotly interprets some HTML and entities in every text, and TeX between dollars where MathJax is loaded (notebooks).
_MEANINGFUL = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "%": "&#37;", "{": "&#123;"})
_UNITS = (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB))


@dataclass(frozen=True)
class ByteUnit:
    """Unit of an axis: a power of two, so that division is exact."""

    name: str  # `"MiB"`
    size: int  # its bytes

    def of(self, values: Iterable[Any]) -> list[float | None]:
        """Bytes in this unit; ``None`` where unknown."""
        return [
            None if value is None or value != value else int(value) if self.size == 1 else value / self.size
            for value in (values.tolist() if isinstance(values, np.ndarray) else values)
        ]


def byte_unit(largest: float | None) -> ByteUnit:
    """Choose the largest unit that fits at least once."""
    if largest is None or largest != largest:
        return ByteUnit("bytes", 1)
    return next((ByteUnit(name, size) for name, size in _UNITS if abs(largest) >= size), ByteUnit("bytes", 1))


def plain(text: object) -> str:
    """Escape text so that plotly shows it literally: no markup, TeX, templates or control characters."""
    return printable(str(text)).translate(_MEANINGFUL)


def layer_label(path: str, most: int = 32) -> str:
    """A layer's path as a label."""
    return plain(shortened(path, most)) or "(no name)"


def category_lines(row: Any) -> list[str]:
    """A ``LayerMemory`` by category, for a label: unknown values are named; categories of 0 bytes are omitted."""
    sizes = {name: getattr(row, f"{name}_bytes") for name in CATEGORIES}
    # Without a trace, inputs and the rest are unknown for every layer; the figure says so once.
    return [f"{name} {format_bytes(size)}" for name, size in sizes.items() if size != 0]
