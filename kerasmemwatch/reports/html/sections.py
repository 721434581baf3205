"""The page's sections in order: figures and the table of layers; those of a traced step are per device."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.key_figures import Tile, verdict_tiles
from kerasmemwatch.analysis.layer_columns import layer_columns, layer_rows
from kerasmemwatch.analysis.peak_place import elsewhere, traced_words
from kerasmemwatch.names import printable
from kerasmemwatch.reports.figures.views import view_figure
from kerasmemwatch.reports.html.tables import table_html, to_csv

__all__ = ["sections", "theme_changes", "tile_list"]


class _Section(NamedTuple):
    name: str
    title: str
    help: str = ""
    by: str = ""

    @property
    def view(self) -> str:
        return "step" if self.by else self.name


_RUN = (_Section("overview", "Over the steps", "Vertical lines are epochs; a diamond is the run's peak."),)
# Sections of a traced step on one device.
_STEP = (
    _Section("peak", "Alive at the peak", "Each area is bytes; layers lie within layers. Click one to look into it."),
    _Section(
        "step",
        "Within the traced step, by category",
        "Bytes that the operations asked for; shaded: forward, backward and update.",
    ),
    _Section("step-layers", "Within the traced step, by layer", by="layer"),
    _Section(
        "allocations",
        "Single buffers",
        "Each rectangle is a buffer: how long it lived, and where it lay. Drag to zoom.",
    ),
    _Section(
        "layers",
        "Layers",
        "Of each category the most over the step; these moments differ, so a bar may be longer than the mark for the "
        "most at once.",
    ),
)
_GROWTH = (
    _Section(
        "growth",
        "Growth",
        "Each rate with an interval that holds the true one 95 times out of 100. "
        "Below: what the last traced step began with more than the first.",
    ),
)


def sections(report: Findings) -> Iterator[str]:
    """The sections of a report as HTML, in parts.

    If several devices held memory in a traced step, there is a device selector and a set of sections for each. All but
    the report's own device are hidden until chosen.
    """
    shown = [report, *(report.on_device(device) for device in report.devices[1:])]
    yield '<p class="help" id="script">The figures need JavaScript; the table and the text below do not.</p>'
    yield from _figures(report, _RUN)
    yield from _choice(report.devices)
    for index, each in enumerate(shown):
        yield from _of_device(index, len(shown), _figures(each, _STEP, index))
    yield from _figures(report, _GROWTH)
    for index, each in enumerate(shown):
        yield from _of_device(index, len(shown), _table(each, index))


def tile_list(tiles: Iterable[Tile]) -> Iterator[str]:
    """Tiles as HTML, in parts."""
    yield '<dl class="tiles">'
    for tile in tiles:
        yield (
            f'<div class="tile {tile.tone}"><dt>{escape(tile.label)}</dt><dd><strong>{escape(tile.value)}</strong>'
            f"<span>{escape(tile.detail)}</span></dd></div>"
        )
    yield "</dl>"


def _choice(devices: Sequence[str]) -> Iterator[str]:
    if len(devices) < 2:
        return
    yield '<p class="controls" id="devices" hidden><label>Device <select id="device">'
    for index, device in enumerate(devices):
        yield f'<option value="{index}">{escape(printable(device))}</option>'
    yield "</select></label></p>"


def _of_device(index: int, count: int, parts: Iterator[str]) -> Iterator[str]:
    """One device's sections, shown and hidden together if there are several devices."""
    if count < 2:
        yield from parts
        return
    yield f'<div data-device="{index}"{" hidden" if index else ""}>'
    yield from parts
    yield "</div>"


def _figures(report: Findings, wanted: Sequence[_Section], index: int = 0) -> Iterator[str]:
    """Figures; the ids of other devices' figures end in a number."""
    for section in wanted:
        if section.name in ("step-layers", "allocations") and not report.steps:
            continue  # the previous section says that no step was traced
        name = _numbered(section.name, index)
        options = {"by": section.by} if section.by else {}
        light, dark = (view_figure(report, section.view, theme=theme, **options) for theme in ("light", "dark"))
        summary = light["layout"]["meta"]["summary"]
        height = light["layout"]["height"]
        yield f'<section id="{name}"><h2>{section.title}</h2>'
        if section.name == "growth" and report.growth:
            yield from tile_list(verdict_tiles(report))
        yield f'<p class="help">{section.help}</p>' if section.help and light["data"] else ""
        yield (
            f'<div class="plot" role="img" aria-label="{escape(summary)}" data-figure="{name}-figure" '
            f'style="min-height:{int(height)}px"></div>'
        )
        value = {"figure": light, "dark": theme_changes(light, dark)}
        yield f'<script type="application/json" id="{name}-figure">{_inert_json(value)}</script></section>'


def _numbered(name: str, index: int) -> str:
    return f"{name}-{index}" if index else name


def theme_changes(light: Any, dark: Any, path: tuple[str | int, ...] = ()) -> list[list[Any]]:
    """Differences between a figure's light and dark theme, as ``[path, dark value]``."""
    if isinstance(light, dict) and isinstance(dark, dict) and light.keys() == dark.keys():
        return [change for key in light for change in theme_changes(light[key], dark[key], (*path, key))]
    if isinstance(light, list) and isinstance(dark, list) and len(light) == len(dark):
        if light == dark:
            return []
        pairs = enumerate(zip(light, dark, strict=True))
        return [change for index, pair in pairs for change in theme_changes(*pair, (*path, index))]
    return [] if light == dark else [[list(path), dark]]


def _inert_json(value: Any) -> str:
    """JSON without characters that are special in HTML; NaN is rejected, because it is not JSON."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _table(report: Findings, index: int) -> Iterator[str]:
    rows, columns = layer_rows(report), layer_columns(report)
    where = f" in {escape(traced_words(report))}" if report.traced else ""
    table, search, count = (_numbered(name, index) for name in ("table", "search", "count"))
    yield f'<section id="{table}" class="layers"><h2>Every layer{where}</h2>'
    yield f'<p class="help">{escape(words)}</p>' if (words := elsewhere(report)) else ""
    if not rows:
        yield '<p class="help">No model was seen.</p></section>'
        return
    csv = quote(to_csv(rows, columns).encode("utf-8", "replace"))
    yield (
        f'<p class="controls"><label>Search <input type="search" id="{search}" autocomplete="off"></label> '
        f'<a download="layers.csv" href="data:text/csv;charset=utf-8,{csv}">Download CSV</a> '
        f'<span id="{count}" role="status"></span></p>'
    )
    yield '<div class="scroll" tabindex="0" role="region" aria-label="Every layer">'
    yield from table_html(rows, columns)
    yield "</div></section>"
