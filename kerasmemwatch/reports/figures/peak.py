"""Treemap (or icicle) of the live set at the peak: layers within layers, coloured by category."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kerasmemwatch.analysis.caveats import untraced
from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.peak_place import elsewhere, traced_words
from kerasmemwatch.analysis.steps.layer_tree import tree_lines
from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.names import shortened
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.reports.figures.labels import plain
from kerasmemwatch.reports.figures.layout import Figure, empty_figure, figure, note
from kerasmemwatch.reports.figures.palette import CATEGORY_COLOURS, Theme, text_on, theme_named
from kerasmemwatch.units import format_bytes, format_share

__all__ = ["is_within", "peak"]

SHAPES = ("treemap", "icicle")
_MAX_TILES = 600
_MANY = 300
_WIDE_PAD, _NARROW_PAD = {"t": 20, "l": 3, "r": 3, "b": 3}, {"t": 20, "l": 1, "r": 1, "b": 1}
_OTHERS = "others"


@dataclass
class _Node:
    """A rectangle; its bytes are the sum of the rectangles in it."""

    label: str
    parent: int
    size: int = 0
    path: str | None = None
    category: str | None = None
    detail: str = ""


def peak(report: Findings, *, theme: str = "light", shape: str = "treemap", layer: str | None = None) -> Figure:
    """Draw the live set of the traced peak as a treemap or icicle.

    Every byte of ``report.peak.by_layer`` is in exactly one innermost rectangle. If there are very many, the small
    ones are combined.

    Args:
        shape: ``"treemap"`` or ``"icicle"``.

    Returns:
        A plotly figure as a JSON-able dict; ``customdata[0]`` of a rectangle is the layer's path, unshortened.
    """
    colours = theme_named(theme)
    if shape not in SHAPES:
        raise InvalidArgumentError(f"Expected shape to be 'treemap' or 'icicle'. Received: shape={shape!r}.")
    rows = [row for row in report.peak.by_layer if layer is None or is_within(row.path, layer)]
    if report.traced is None:
        return empty_figure(colours, "peak", untraced(report))
    if not any(row.total_bytes for row in rows):
        nothing = "at the traced peak" if layer is None else f"by {shortened(layer, 60)} at the traced peak"
        return empty_figure(colours, "peak", f"Nothing was held {nothing}.")
    nodes = _nodes(rows, traced_words(report))
    total = nodes[0].size
    colour_of = [_colour(node, colours) for node in nodes]
    trace: Figure = {
        "type": shape,
        "ids": [str(index) for index in range(len(nodes))],
        "parents": ["", *(str(node.parent) for node in nodes[1:])],
        "labels": [node.label for node in nodes],
        "values": [node.size for node in nodes],
        "text": [f"{format_bytes(node.size)} ({_share(node, total)})" for node in nodes],
        "hovertext": [_hover(node, total) for node in nodes],
        "customdata": [[node.path, node.category] for node in nodes],
        "hoverinfo": "text",
        "textinfo": "label+text",
        "branchvalues": "total",
        "sort": True,
        # Plotly's default is too faint on some colours.
        "textfont": {"color": [text_on(colour) for colour in colour_of]},
        "marker": {
            "colors": colour_of,
            "line": {"color": colours.background, "width": 1},
        },
        "pathbar": {"visible": True, "textfont": {"color": colours.text}},
        "tiling": {"pad": 1} if shape == "icicle" else {"pad": 2 if len(nodes) <= _MANY else 0, "packing": "squarify"},
        "root": {"color": colours.branch},
    }
    if shape == "treemap":
        # With many rectangles, wide padding would take more room than they do.
        trace["marker"]["pad"] = dict(_WIDE_PAD if len(nodes) <= _MANY else _NARROW_PAD)
        # A category has the same colour at every depth.
        trace["marker"]["depthfade"] = False
    present = [name for name in CATEGORIES if any(node.category == name for node in nodes)]
    summary = (
        f"{format_bytes(total)} alive at the peak of {traced_words(report)}: "
        + ", ".join(f"{name} {format_bytes(sum(n.size for n in nodes if n.category == name))}" for name in present)
        + "."
    )
    other = elsewhere(report)
    legend = [_key(name, colours) for name in present]
    hidden = {"visible": False, "fixedrange": True}
    # Names without room are shown on hover.
    layout: Figure = {
        "uniformtext": {"minsize": 11, "mode": "hide"},
        "xaxis": hidden,
        "yaxis": hidden,
        "height": 520,
        "margin": {"l": 4, "r": 4, "t": 36, "b": 60 if other else 4},
    }
    if other:
        place: Figure = {"x": 0, "y": 0, "yshift": -6, "xanchor": "left", "yanchor": "top", "align": "left"}
        layout["annotations"] = [note(other, colours, **place)]
    return figure([trace, *legend], colours, "peak", f"{summary} {other}".rstrip(), **layout)


def is_within(path: str, layer: str) -> bool:
    """Whether a path is that of a layer or of one inside it."""
    return path == layer or path.startswith(f"{layer}/")


def _nodes(rows: Sequence[LayerMemory], root: str) -> list[_Node]:
    """The rectangles, each after its parent."""
    tiles = [
        (size, index, name)
        for index, row in enumerate(rows)
        for name in CATEGORIES
        if (size := getattr(row, f"{name}_bytes") or 0)
    ]
    tiles.sort(key=lambda tile: -tile[0])
    kept, rest = tiles[:_MAX_TILES], tiles[_MAX_TILES:]
    nodes = [_Node(plain(root), -1)]
    places = _places(nodes, [rows[index] for index in dict.fromkeys(index for _, index, _ in kept)])
    for size, index, name in kept:
        row = rows[index]
        nodes.append(_Node(name, places[row.owner], size, row.path, name, plain(row.class_name)))
    others: dict[tuple[int, str], _Node] = {}
    counts: dict[int, int] = {}
    for size, index, name in rest:
        place = _nearest(rows[index], places)
        node = others.get((place, name)) or _Node("", place, 0, None, name)
        others[place, name] = node
        node.size += size
        counts[id(node)] = counts.get(id(node), 0) + 1
    for node in others.values():
        node.label = f"{node.category} of {counts[id(node)]} {_OTHERS}"
        nodes.append(node)
    # A rectangle comes after its parent, so in reverse order each sum is complete when it is added.
    for node in reversed(nodes[1:]):
        nodes[node.parent].size += node.size
    return nodes


def _places(nodes: list[_Node], rows: Iterable[LayerMemory]) -> dict[Owner, int]:
    """Add a rectangle for each layer and owner, and for parents of several layers; return their indices."""
    rows = list(rows)
    classes = {row.path: row.class_name for row in rows if row.class_name}
    places: dict[Owner, int] = {}
    above = [0]
    for line in tree_lines([row.path for row in rows if row.class_name]):
        del above[line.depth + 1 :]
        label, detail = plain(shortened(line.label, 40)) or "(no name)", plain(classes.get(line.path, ""))
        nodes.append(_Node(label, above[-1], 0, line.path, None, detail))
        places[Owner.layer(line.path)] = len(nodes) - 1
        above.append(len(nodes) - 1)
    for row in rows:
        if not row.class_name:
            nodes.append(_Node(plain(shortened(row.path, 40)) or "(no name)", 0, 0, row.path))
            places[row.owner] = len(nodes) - 1
    return places


def _nearest(row: LayerMemory, places: dict[Owner, int]) -> int:
    """The rectangle that contains a row, if the row has none of its own."""
    owner = row.owner
    while owner not in places:
        if not owner.is_layer or "/" not in owner.path:
            return 0
        owner = Owner.layer(owner.path.rpartition("/")[0])
    return places[owner]


def _hover(node: _Node, total: int) -> str:
    lines = [plain(shortened(node.path, 90)) if node.path is not None else node.label]
    if node.detail:
        lines.append(node.detail)
    what = f"{node.category}: " if node.category else ""
    share = _share(node, total)
    lines.append(f"{what}{format_bytes(node.size)} ({node.size:,} bytes), {share} of the peak")
    return "<br>".join(lines)


def _share(node: _Node, total: int) -> str:
    return format_share(node.size / total).replace("<", "&lt;")


def _colour(node: _Node, theme: Theme) -> str:
    return CATEGORY_COLOURS[node.category] if node.category else theme.branch


def _key(name: str, theme: Theme) -> Figure:
    """Make a legend entry; trees have no legend of their own."""
    marker = {"color": CATEGORY_COLOURS[name], "symbol": "square", "size": 12}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [None],
        "y": [None],
        "hoverinfo": "skip",
        "marker": {**marker, "line": {"color": theme.outline, "width": 1}},
    }
