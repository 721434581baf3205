"""Columns and cells of layer tables; text, HTML, CSV and the tab each show some of them, in this order."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.records.categories import OF_TRAINING
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.units import format_bytes, format_share

__all__ = [
    "CATEGORY_KEYS",
    "DETAILS",
    "LayerColumn",
    "LayerRow",
    "cell_words",
    "layer_columns",
    "layer_rows",
    "live_columns",
    "narrow_heading",
]


class LayerColumn(NamedTuple):
    """One column."""

    key: str  # the attribute of `LayerMemory` or `LayerRow` that it shows
    label: str  # its heading
    kind: str  # `"text"`, `"bytes"` or `"share"`
    help: str = ""  # what it means


# Categories that most layers have come first; each as it is hyphenated in a narrow column.
_CATEGORIES = {
    "weights": "weights",
    "gradients": "gradi-\nents",
    "optimizer": "opti-\nmizer",
    "activations": "activa-\ntions",
    "temporaries": "tempo-\nraries",
    "inputs": "inputs",
    "other": "other",
    "unattributed": "unattri-\nbuted",
}
_COLUMNS = (
    LayerColumn("path", "layer", "text", "Path from the model down; what is no layer is named too"),
    LayerColumn("class_name", "class", "text", "Class of the layer"),
    *(LayerColumn(f"{name}_bytes", name, "bytes", "The most over the step, by itself") for name in _CATEGORIES),
    LayerColumn("at_peak_bytes", "at the peak", "bytes", "What of all this was alive at the step's highest moment"),
    LayerColumn("share", "share", "share", "That, as a share of all that was alive then"),
    LayerColumn("added_bytes", "added", "bytes", "By how much the step's peak would fall without the layer"),
    LayerColumn("total_bytes", "most at once", "bytes", "The most that the layer itself had alive at one moment"),
    LayerColumn("output_bytes", "output", "bytes", "Size of what one call returns"),
    LayerColumn("forward_peak_bytes", "forward peak", "bytes", "The most alive of everything during its forward pass"),
    LayerColumn("backward_peak_bytes", "backward peak", "bytes", "The same of its backward pass"),
)
_PEAKS = ("forward_peak_bytes", "backward_peak_bytes")
# Columns that a table omits where there is little room.
DETAILS = frozenset({"inputs_bytes", "other_bytes", "unattributed_bytes", "output_bytes", *_PEAKS})
CATEGORY_KEYS = tuple(key for name in _CATEGORIES if (key := f"{name}_bytes") not in DETAILS)
_OF_TRAINING = (*(f"{name}_bytes" for name in OF_TRAINING), "backward_peak_bytes")


@dataclass(frozen=True)
class LayerRow:
    """One layer or other owner."""

    layer: LayerMemory  # its bytes
    at_peak_bytes: int | None  # what it held at the traced peak; `None` if unknown
    share: float | None  # that as a share of all live bytes

    def cell(self, column: LayerColumn) -> str | float | None:
        """The value in a column; ``None`` if unknown."""
        of_row = column.key in ("at_peak_bytes", "share")
        found: str | float | None = getattr(self if of_row else self.layer, column.key)
        return found

    def cells(self, columns: Sequence[LayerColumn]) -> list[str | float | None]:
        """The value in each column."""
        return [self.cell(column) for column in columns]


def layer_columns(report: Findings, without: Container[str] = DETAILS) -> list[LayerColumn]:
    """The columns of a report's table of layers.

    Columns that only training fills are omitted if the step shown did not train and has nothing in them.
    """
    is_training = report.traced is None or (report.traced.stage == "train" and report.traced.after is None)
    idle = {key for key in _OF_TRAINING if not is_training and not any(getattr(row, key) for row in report.layers)}
    return [column for column in _COLUMNS if column.key not in without and column.key not in idle]


def narrow_heading(column: LayerColumn) -> str:
    """A column's heading with line breaks; of several words the last goes on its own line.

    Example:
        >>> narrow_heading(LayerColumn("total_bytes", "most at once", "bytes")).splitlines()
        ['most at', 'once']
    """
    name = column.key.removesuffix("_bytes")
    return _CATEGORIES.get(name) or "\n".join(column.label.rsplit(" ", 1))


def live_columns(report: Findings) -> list[LayerColumn]:
    """The columns of a live-set table, in which each category means what was alive at the traced peak."""
    shown = layer_columns(report, {"added_bytes", "total_bytes", "output_bytes", *_PEAKS})
    # In a row of the live set, the total is the sum at that moment.
    keys = {"at_peak_bytes": "total_bytes"}
    return [column._replace(key=keys.get(column.key, column.key), help="") for column in shown]


def layer_rows(report: Findings, layers: Sequence[LayerMemory] | None = None) -> list[LayerRow]:
    """A row for each layer and owner, in order, with what each held at the traced peak."""
    shown = report.layers if layers is None else layers
    if report.traced is None:
        return [LayerRow(layer, None, None) for layer in shown]
    at_peak = {row.owner: row.total_bytes for row in report.peak.by_layer}
    requested = report.peak.requested_bytes
    rows = []
    for layer in shown:
        held = at_peak.get(layer.owner, 0)
        # A layer without a peak of its own did not run.
        ran = replace(layer, **{key: getattr(layer, key) or 0 for key in _PEAKS})  # type: ignore[arg-type]
        rows.append(LayerRow(ran, held, held / requested if held is not None and requested else None))
    return rows


def cell_words(value: str | float | None, kind: str, divisor: int | None = None) -> str:
    """A cell as text: ``"unknown"`` for ``None``, a dash for 0.

    Args:
        divisor: Bytes of the table's unit; ``None`` if each cell chooses its own.

    Example:
        >>> [cell_words(size, "bytes") for size in (None, 0, 2048)], cell_words(2048, "bytes", 1024)
        (['unknown', '-', '2.0 KiB'], '2.0')
    """
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    if not value:
        return "-"
    if kind == "share":
        return format_share(value)
    if divisor is None:
        return format_bytes(value)
    if divisor == 1:
        return str(value)
    return f"{value / divisor:.1f}" if value >= 0.05 * divisor else "<0.1"
