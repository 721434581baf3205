"""The table of layers: its columns, its rows as values, and the same as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.peak_place import columns_left_out
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.units import format_bytes

__all__ = ["COLUMNS", "LayerRow", "columns_of", "layer_rows", "table_html", "to_csv", "visible"]

_KINDS = ("weights", "gradients", "optimizer", "activations", "temporaries")
# Column of a row, and what it means.
COLUMNS = (
    ("layer", "Path from the model down; what is no layer is named too"),
    ("class", "Class of the layer"),
    *((kind, "The most over the step, by itself") for kind in _KINDS),
    ("at the peak", "What of all this was alive at the step's highest moment"),
    ("share", "That, as a share of all that was alive then"),
    ("added", "By how much the step's peak would fall without the layer"),
    ("most at once", "The most that the layer itself had alive at one moment"),
)


Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LayerRow:
    """One layer or other owner.

    Attributes:
        path: Its path.
        class_name: Its class, ``""`` for an owner that is no layer.
        sizes: Bytes in the order of ``columns_of`` from the third on, ``None`` where unknown; ``share`` is a fraction.
    """

    path: str
    class_name: str
    sizes: tuple[float | None, ...]


def columns_of(report: Findings) -> tuple[tuple[str, str], ...]:
    """The columns of a report's table: those of ``COLUMNS`` without what only training fills, if it shows none."""
    left_out = columns_left_out(report)
    return tuple(column for column in COLUMNS if f"{column[0]}_bytes" not in left_out)


def layer_rows(report: Findings) -> tuple[LayerRow, ...]:
    """The rows of ``report.layers``, in order, with what each held at the traced peak."""
    at_peak = {row.owner: row.total_bytes for row in report.peak.by_layer}
    return tuple(_row(layer, report, at_peak) for layer in report.layers)


def _row(layer: LayerMemory, report: Findings, at_peak: dict[Owner, int | None]) -> LayerRow:
    held: int | None = None
    share: float | None = None
    if report.traced is not None:
        held = at_peak.get(layer.owner, 0)
        requested = report.peak.requested_bytes
        share = held / requested if held is not None and requested else None
    left_out = columns_left_out(report)
    kinds = (getattr(layer, f"{kind}_bytes") for kind in _KINDS if f"{kind}_bytes" not in left_out)
    return LayerRow(layer.path, layer.class_name, (*kinds, held, share, layer.added_bytes, layer.total_bytes))


def table_html(rows: tuple[LayerRow, ...], columns: Columns = COLUMNS) -> Iterator[str]:
    """The rows as an HTML table, in parts; names are text."""
    yield "<table><thead><tr>"
    for name, meaning in columns:
        yield f'<th scope="col" title="{escape(meaning)}"><button type="button">{escape(name)}</button></th>'
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = (_cell(name, size) for (name, _), size in zip(columns[2:], row.sizes, strict=True))
        names = f'<th scope="row">{escape(visible(row.path))}</th><td>{escape(visible(row.class_name))}</td>'
        yield f"<tr>{names}{''.join(cells)}</tr>"
    yield "</tbody></table>"


def visible(name: str) -> str:
    """A name without control characters, which have no place in HTML."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in name)


def _cell(name: str, size: float | None) -> str:
    if size is None:
        return '<td class="unknown">unknown</td>'
    if name == "share":
        return f'<td data-value="{size!r}">{f"{size:.1%}" if size else "-"}</td>'
    words = format_bytes(size) if size else "-"
    return f'<td data-value="{int(size)}" title="{int(size):,} bytes">{words}</td>'


def to_csv(rows: tuple[LayerRow, ...], columns: Columns = COLUMNS) -> str:
    """The rows in bytes, unknown ones empty, with a line of headings.

    A name that a spreadsheet would take for a formula has an apostrophe before it.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([name if name in ("layer", "class", "share") else f"{name} (bytes)" for name, _ in columns])
    for row in rows:
        names = (
            f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name for name in (row.path, row.class_name)
        )
        writer.writerow([*names, *("" if size is None else size for size in row.sizes)])
    return file.getvalue()
