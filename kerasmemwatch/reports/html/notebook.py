"""A report for notebooks: an HTML fragment without scripts, in the notebook's own colours."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from kerasmemwatch.analysis.caveats import all_notes
from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.key_figures import headline
from kerasmemwatch.analysis.layer_columns import cell_words, layer_columns, layer_rows
from kerasmemwatch.analysis.peak_place import elsewhere, traced_words
from kerasmemwatch.names import printable
from kerasmemwatch.reports.text.report_text import plain_text

__all__ = ["mime_bundle", "report_html"]

_MOST_ROWS = 20
_LINE = "1px solid rgba(128,128,128,0.45)"
_TILE = f"flex:1 1 170px;border:{_LINE};border-radius:6px;padding:6px 10px;overflow-wrap:anywhere"


def report_html(report: Findings) -> str:
    """The report's figures, its largest layers and its notes. Names in them are escaped."""
    parts = [
        '<div style="max-width:1100px;text-align:left">',
        f"<p><b>Memory of run {escape(printable(report.run.name) or '(none yet)')}</b></p>",
        *(_figures(report) if report.samples.num_samples else _nothing()),
        *_layers(report),
        *_notes(report),
        "<p><small>More: <code>print(report)</code>, <code>report.plot()</code>, "
        "<code>report.to_html(path)</code></small></p></div>",
    ]
    return "".join(parts)


def mime_bundle(value: Any, include: Any = None, exclude: Any = None) -> dict[str, str]:
    """A value's text and HTML for a notebook, by MIME type; a recording shows its report."""
    report = value if isinstance(value, Findings) else getattr(value, "report", None)
    if isinstance(report, Findings):
        text, html = plain_text(report, blocks=True), report_html(report)
    else:
        text = str(value)
        html = f'<pre style="text-align:left;overflow-x:auto">{escape(text)}</pre>'
    found = {"text/plain": text, "text/html": html}
    return {
        name: data for name, data in found.items() if (not include or name in include) and name not in (exclude or ())
    }


def _nothing() -> Iterator[str]:
    yield "<p>Nothing was recorded. Train with <code>callbacks=[MemoryWatch()]</code>.</p>"


def _figures(report: Findings) -> Iterator[str]:
    yield '<div style="display:flex;flex-wrap:wrap;gap:8px">'
    for tile in headline(report):
        mark = "Warning: " if tile.tone == "warning" else ""
        yield (
            f'<div style="{_TILE}"><small>{escape(tile.label)}</small><br><b style="font-size:1.3em">'
            f"{escape(mark + tile.value)}</b><br><small>{escape(printable(tile.detail))}</small></div>"
        )
    yield "</div>"


def _layers(report: Findings) -> Iterator[str]:
    rows, columns = layer_rows(report), layer_columns(report)
    if not rows:
        return
    ranked = sorted(rows, key=lambda row: -((row.at_peak_bytes if report.traced else row.layer.weights_bytes) or 0))
    where = f" in {escape(traced_words(report))}" if report.traced else ""
    other = f"{escape(words)} " if (words := elsewhere(report)) else ""
    yield f'<p style="margin:10px 0 4px">{other}The largest layers and other owners{where}:</p>'
    yield '<div style="overflow-x:auto"><table style="border-collapse:collapse"><thead><tr>'
    for index, column in enumerate(columns):
        yield f'<th style="{_cell_style(index)}" title="{escape(column.help)}">{escape(column.label)}</th>'
    yield "</tr></thead><tbody>"
    for row in ranked[:_MOST_ROWS]:
        cells = [printable(cell_words(row.cell(column), column.kind)) for column in columns]
        yield "<tr>"
        yield from (f'<td style="{_cell_style(index)}">{escape(cell)}</td>' for index, cell in enumerate(cells))
        yield "</tr>"
    yield "</tbody></table></div>"
    if len(rows) > _MOST_ROWS:
        yield f"<p>and {len(rows) - _MOST_ROWS:,} more</p>"


def _cell_style(index: int) -> str:
    side = "left;min-width:130px;overflow-wrap:anywhere" if not index else "left" if index == 1 else "right"
    side += ";white-space:nowrap" if index else ""
    return f"padding:2px 8px;border-bottom:{_LINE};text-align:{side}"


def _notes(report: Findings) -> Iterator[str]:
    notes = all_notes(report)
    if notes:
        yield '<p style="margin:10px 0 4px"><b>Notes</b></p><ul>'
        yield from (f"<li>{escape(printable(note))}</li>" for note in notes)
        yield "</ul>"
