"""The table of layers as HTML and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from html import escape

from kerasmemwatch.analysis.layer_columns import LayerColumn, LayerRow, cell_words
from kerasmemwatch.names import printable

__all__ = ["table_html", "to_csv"]


def table_html(rows: Sequence[LayerRow], columns: Sequence[LayerColumn]) -> Iterator[str]:
    """The rows as an HTML table, in parts; names are escaped."""
    yield "<table><thead><tr>"
    for column in columns:
        button = f'<button type="button">{escape(column.label)}</button>'
        yield f'<th scope="col" title="{escape(column.help)}">{button}</th>'
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = (_cell(row.cell(column), column.kind) for column in columns[1:])
        yield f'<tr><th scope="row">{escape(printable(row.layer.path))}</th>{"".join(cells)}</tr>'
    yield "</tbody></table>"


def _cell(value: str | float | None, kind: str) -> str:
    words = escape(printable(cell_words(value, kind)))
    if value is None or isinstance(value, str):
        return f'<td class="unknown">{words}</td>' if value is None else f"<td>{words}</td>"
    exact = f' title="{value:,} bytes"' if kind == "bytes" else ""
    return f'<td data-value="{value!r}"{exact}>{words}</td>'


def to_csv(rows: Sequence[LayerRow], columns: Sequence[LayerColumn]) -> str:
    """The rows as CSV in bytes, with a line of headings; unknown values are empty.

    A name that a spreadsheet would treat as a formula is prefixed with an apostrophe.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([f"{column.label} (bytes)" if column.kind == "bytes" else column.label for column in columns])
    for row in rows:
        writer.writerow(["" if cell is None else _inert(cell) for cell in row.cells(columns)])
    return file.getvalue()


def _inert(cell: str | float) -> str | float:
    is_formula = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if is_formula else cell
