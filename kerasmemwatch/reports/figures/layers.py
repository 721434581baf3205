"""Figure of each layer over a whole step, as bars by category; training next to inference if both were traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.peak_place import numbered, step_shown, step_words, traced_words
from kerasmemwatch.analysis.steps.layer_table import layer_table
from kerasmemwatch.analysis.steps.live_set import highest_step
from kerasmemwatch.names import shortened
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.reports.figures.labels import ByteUnit, byte_unit, layer_label, plain
from kerasmemwatch.reports.figures.layout import Figure, bars, byte_axis, empty_figure, figure, named_axis, note
from kerasmemwatch.reports.figures.palette import CATEGORY_COLOURS, Theme, theme_named
from kerasmemwatch.reports.figures.peak import is_within
from kerasmemwatch.units import format_bytes

__all__ = ["layers", "step_of_stage"]

_MAX_BARS = 40
_BAR_HEIGHT = 22
# Height of two lines.
_HEADING_HEIGHT = 40
_INFERENCE = ("test", "predict")


@dataclass(frozen=True)
class _Panel:
    title: str
    detail: str
    rows: dict[Owner, LayerMemory]


def layers(report: Findings, *, theme: str = "light", layer: str | None = None, most: int = _MAX_BARS) -> Figure:
    """Draw ``report.layers``: each category's maximum over the step, largest layers first.

    If training and inference were both traced, there is a panel for each.

    Returns:
        A plotly figure as a JSON-able dict; ``customdata[0]`` of a bar is the layer's path.
    """
    colours = theme_named(theme)
    panels = _panels(report)
    ranked = _ranked(panels, layer)
    if not ranked:
        why = "No model was seen yet" if layer is None else f"Nothing is known of {shortened(layer, 60)}"
        return empty_figure(colours, "layers", f"{why}, so there are no layers to draw.")
    shown = ranked[:most]
    widths = [sum(_sizes(panel.rows[key]).values()) for panel in panels for key in shown if key in panel.rows]
    unit = byte_unit(float(max(widths, default=0)))
    data = [
        trace
        for index, panel in enumerate(panels)
        for trace in _bars(panel, shown, unit, colours, "" if index == 0 else str(index + 1), bool(report.traced))
    ]
    # A category is in the legend once, even if it is in several panels.
    named: set[str] = set()
    for trace in data:
        if trace.get("name"):
            trace["showlegend"] = trace["name"] not in named
            named.add(trace["name"])
    notes = _notes(report, panels, len(ranked) - len(shown), colours)
    places = [[0.0, 1.0]] if len(panels) == 1 else [[0.0, 0.48], [0.52, 1.0]]
    layout: Figure = {}
    for index, panel in enumerate(panels):
        suffix = "" if index == 0 else str(index + 1)
        title = plain(panel.title) if len(panels) == 1 else ""
        layout[f"xaxis{suffix}"] = byte_axis(colours, unit, title, domain=places[index], anchor=f"y{suffix}")
        if index:
            layout["xaxis2"]["matches"] = "x"
    labels = [layer_label(key.path, 28) for key in shown]
    layout["yaxis"] = named_axis(colours, labels)
    if len(panels) > 1:
        layout["yaxis2"] = named_axis(colours, labels, showticklabels=False, anchor="x2", matches="y")
    summary = f"The {len(shown)} largest of {len(ranked)} layers and other owners by category; " + "; ".join(
        f"{key.path} {format_bytes(panels[0].rows[key].total_bytes)}" for key in shown[:5] if key in panels[0].rows
    )
    height = max(260, 150 + _BAR_HEIGHT * len(shown))
    below = 62 + 15 * (notes[0]["text"].count("<br>") + 1) if notes else 48
    layout |= {
        "barmode": "stack",
        "bargap": 0.25,
        "hovermode": "closest",
        "height": height,
        "annotations": [*notes, *_headings(panels, places, colours)],
        "margin": {"l": 64, "r": 16, "t": 70, "b": below},
    }
    if len(panels) > 1:
        # Above the headings, whatever its number of lines: plotly then widens the margin.
        layout["height"] = height + _HEADING_HEIGHT
        layout["margin"]["t"] += _HEADING_HEIGHT
        y = 1.02 + _HEADING_HEIGHT / (height - 70 - below)
        layout["legend"] = {"orientation": "h", "x": 0, "xanchor": "left", "y": y, "yanchor": "bottom"}
    return figure(data, colours, "layers", summary, **layout)


def step_of_stage(steps: Sequence[TracedStep], stages: Sequence[str], device: str | None = None) -> TracedStep | None:
    """The traced step with the highest peak in the given stages, on the device if it has any; never a gap."""
    return highest_step([step for step in steps if step.stage in stages and step.after is None], device)


def _panels(report: Findings) -> list[_Panel]:
    shown = step_shown(report)
    first = [] if shown is None else [shown]  # one panel shows the same step as the report's table
    device = None if shown is None else shown.timeline.device
    training, inference = (
        step_of_stage(first, stages) or step_of_stage(report.steps, stages, device)
        for stages in (("train",), _INFERENCE)
    )
    if training is None or inference is None or (shown is not None and shown.after is not None):
        what = f"most over {traced_words(report)}" if report.traced else "variables"
        return [_Panel(what, "", _keyed(report.layers))]
    # The report's own table is completed with the model's inventory, so the other panel is too.
    held = [
        LayerMemory(row.path, row.class_name, row.weights_bytes, None, row.optimizer_bytes, other_bytes=0)
        for row in report.layers
    ]
    return [
        _Panel(kind, words, _keyed(report.layers if step is shown else layer_table(step, held)))
        for kind, words, step in (
            ("Training", numbered(training), training),
            ("Inference", _inference_words(report, inference), inference),
        )
    ]


def _inference_words(report: Findings, step: TracedStep) -> str:
    kind = step_words(report, step.stage, None)
    return f"{kind.removesuffix(' step')} {numbered(step)}"


def _headings(panels: Sequence[_Panel], places: Sequence[Sequence[float]], theme: Theme) -> list[Figure]:
    """Draw a heading above each panel."""
    style: Figure = {"xanchor": "left", "yanchor": "bottom", "align": "left", "font": {"size": 12, "color": theme.text}}
    return [
        {**note("", theme, x=place[0], y=1, **style), "text": f"<b>{plain(panel.title)}</b><br>{plain(panel.detail)}"}
        for panel, place in zip(panels, places, strict=True)
        if len(panels) > 1
    ]


def _keyed(rows: Sequence[LayerMemory]) -> dict[Owner, LayerMemory]:
    return {row.owner: row for row in rows}


def _ranked(panels: Sequence[_Panel], layer: str | None) -> list[Owner]:
    """Layers and owners with live or unknown bytes, largest first."""
    most: dict[Owner, int] = {}
    for panel in panels:
        for key, row in panel.rows.items():
            if layer is not None and not is_within(key.path, layer):
                continue
            sizes = _sizes(row)
            if any(sizes.values()) or row.weights_bytes is None:
                most[key] = max(most.get(key, 0), row.total_bytes or sum(sizes.values()))
    return sorted(most, key=lambda key: -most[key])


def _sizes(row: LayerMemory) -> dict[str, int]:
    return {name: getattr(row, f"{name}_bytes") or 0 for name in CATEGORIES}


def _bars(
    panel: _Panel, shown: Sequence[Owner], unit: ByteUnit, theme: Theme, suffix: str, is_traced: bool
) -> list[Figure]:
    traces: list[Figure] = []
    axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    rows = [(place, panel.rows[key]) for place, key in enumerate(shown) if key in panel.rows]
    for name in CATEGORIES:
        held = [(place, row, size) for place, row in rows if (size := _sizes(row)[name])]
        if not held:
            continue
        trace = bars(theme, name, CATEGORY_COLOURS[name], legendgroup=name, **axes)
        trace |= {
            "x": unit.of(size for *_, size in held),
            "y": [place for place, *_ in held],
            "hovertext": [_hover(row, name) for _, row, _ in held],
            "customdata": [[row.path] for _, row, _ in held],
        }
        traces.append(trace)
    known = [(place, row) for place, row in rows if row.total_bytes]
    if known:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "most at once",
                "legendgroup": "most at once",
                "x": unit.of(row.total_bytes for _, row in known),
                "y": [place for place, _ in known],
                "hovertext": [_hover(row, None) for _, row in known],
                "hoverinfo": "text",
                "customdata": [[row.path] for _, row in known],
                "marker": {"symbol": "line-ns-open", "size": 13, "color": theme.text, "line": {"width": 2}},
                **axes,
            }
        )
    unknown = [
        (place, row) for place, row in rows if row.weights_bytes is None or (is_traced and row.total_bytes is None)
    ]
    if unknown:
        traces.append(
            {
                "type": "scatter",
                "mode": "text",
                "showlegend": False,
                "x": unit.of(sum(_sizes(row).values()) for _, row in unknown),
                "y": [place for place, _ in unknown],
                "text": ["  partly unknown" if any(_sizes(row).values()) else "  unknown" for _, row in unknown],
                "textposition": "middle right",
                "textfont": {"size": 11, "color": theme.faint},
                "hoverinfo": "skip",
                "cliponaxis": False,
                **axes,
            }
        )
    return traces


def _hover(row: LayerMemory, category: str | None) -> str:
    lines = [layer_label(row.path, 70)]
    if row.class_name:
        lines.append(plain(row.class_name))
    for name in CATEGORIES:
        size = getattr(row, f"{name}_bytes")
        if size != 0:
            words = f"{name}: {format_bytes(size)}"
            lines.append(f"<b>{words}</b>" if name == category else words)
    lines.append(f"most at once: {format_bytes(row.total_bytes)}")
    lines.append(f"adds to the peak: {format_bytes(row.added_bytes)}")
    return "<br>".join(lines)


def _notes(report: Findings, panels: Sequence[_Panel], hidden: int, theme: Theme) -> list[Figure]:
    words = []
    if hidden:
        words.append(f"{hidden:,} smaller ones are not drawn; the table has all.")
    if report.traced is None and len(panels) == 1:
        words.append("No step was traced: activations, gradients and temporaries are unknown.")
    if not words:
        return []
    # At the right: the names at the left of a narrow figure leave less room than the text needs.
    place: Figure = {"x": 1, "y": 0, "yshift": -58, "xanchor": "right", "yanchor": "top", "align": "right"}
    return [note(" ".join(words), theme, **place)]
