"""Figure of a traced step's single buffers: one rectangle each, showing lifetime and address."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.peak_place import numbered
from kerasmemwatch.names import shortened
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep
from kerasmemwatch.reports.figures.labels import ByteUnit, byte_unit, layer_label, plain
from kerasmemwatch.reports.figures.layout import Figure, axis, byte_axis, empty_figure, figure
from kerasmemwatch.reports.figures.moments import positions
from kerasmemwatch.reports.figures.palette import CATEGORY_COLOURS, OTHERS_COLOUR, Theme, theme_named
from kerasmemwatch.reports.figures.rectangles import MOST_RECTANGLES, Rectangles, allocation_rectangles
from kerasmemwatch.reports.figures.step_timeline import owners_within, phase_marks
from kerasmemwatch.units import format_bytes

__all__ = ["allocations"]


def allocations(
    step: TracedStep | None,
    *,
    theme: str = "light",
    x: str = "event",
    window: tuple[float, float] | None = None,
    layer: str | None = None,
    pixels: int = 1000,
    most: int = MOST_RECTANGLES,
) -> Figure:
    """Draw the largest buffers of a window as rectangles, and below them the sum of all others.

    Args:
        x: ``"event"`` or ``"time"``, as in ``step_timeline``.
        window: What to draw, in units of the x axis; all of the step if ``None``.
        pixels: Width of the drawing.
    """
    colours = theme_named(theme)
    if step is None:
        return empty_figure(colours, "allocations", "No step was traced; the notes say why.")
    timeline = step.timeline
    # A moment lasts until the next event; the last one is drawn one event long.
    at = np.append(positions(timeline, x), 0.0)
    at[-1] = at[-2] + (1.0 if x == "event" else 1e-3)
    asked = None
    if window is not None:
        first = int(np.searchsorted(at[:-1], min(window), "right")) - 1
        asked = (first, int(np.searchsorted(at[:-1], max(window), "left")))
    found = allocation_rectangles(timeline, asked, pixels, most=most, mine=owners_within(timeline, layer))
    if not len(found.index):
        return empty_figure(colours, "allocations", f"No buffer lives in this part of {numbered(step)}.")
    view = (float(at[found.window[0]]), float(at[found.window[1]])) if window is None else (min(window), max(window))
    unit = byte_unit(float(found.high.max()))
    data = list(_bars(timeline, found, at, unit, colours))
    layout: Figure = {
        "yaxis": byte_axis(colours, unit, "address, unused left out", domain=[0.0, 1.0]),
        "xaxis": axis(colours, _TITLES[x], range=list(view), anchor="y"),
    }
    if found.num_rest:
        rest_unit = byte_unit(float(found.rest_bytes.max()))
        data.append(_rest(found, at, rest_unit, colours))
        layout["yaxis"]["domain"] = [0.32, 1.0]
        layout["yaxis2"] = byte_axis(colours, rest_unit, "others", domain=[0.0, 0.22])
        layout["xaxis"]["anchor"] = "y2"
    shapes, annotations = phase_marks(timeline, at[:-1], view, colours)
    rest = f", and {found.num_rest:,} smaller ones together" if found.num_rest else ""
    summary = f"The {len(found.index):,} largest buffers in this part of {numbered(step)} as rectangles{rest}."
    layout |= {"barmode": "overlay", "bargap": 0, "hovermode": "closest", "height": 520, "shapes": shapes}
    layout |= {
        "annotations": annotations,
        "margin": {"l": 64, "r": 16, "t": 60, "b": 48},
        "legend": {"orientation": "h", "x": 0, "yref": "container", "y": 0, "yanchor": "bottom"},
    }
    return figure(data, colours, "allocations", summary, **layout)


_TITLES = {"event": "births and deaths of buffers", "time": "ms since the step began"}


def _bars(
    timeline: Timeline, found: Rectangles, at: NDArray[np.float64], unit: ByteUnit, theme: Theme
) -> Iterator[Figure]:
    """A trace of horizontal bars for each category."""
    begin, end = at[np.maximum(found.begin, 0)], at[np.minimum(found.end, len(at) - 1)]
    category = timeline.category[found.index]
    for code, name in enumerate(CATEGORIES):
        chosen = np.flatnonzero(category == code)
        if not len(chosen):
            continue
        indices = found.index[chosen].tolist()
        low, high = found.low[chosen], found.high[chosen]
        yield {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "base": begin[chosen].tolist(),
            "x": (end - begin)[chosen].tolist(),
            "y": unit.of((low + high) / 2),
            "width": unit.of(high - low),
            "marker": {"color": CATEGORY_COLOURS[name], "line": {"width": 0.5, "color": theme.background}},
            "hovertext": [_hover(timeline, index) for index in indices],
            "hoverinfo": "text",
            "customdata": [[timeline.owners[timeline.owner[index]]] for index in indices],
        }


def _hover(timeline: Timeline, index: int) -> str:
    op = timeline.ops[timeline.op[index]]
    size = int(timeline.requested_bytes[index])
    lines = [
        f"{format_bytes(size)} ({size:,} bytes), {CATEGORIES[timeline.category[index]]}",
        layer_label(timeline.owners[timeline.owner[index]], 70),
        plain(shortened(op, 70)) if op else "operation unknown",
        "alive before the step" if timeline.birth[index] < 0 else f"born in {PHASES[timeline.phase[index]]}",
    ]
    if timeline.address[index]:
        lines.append(f"at 0x{int(timeline.address[index]):x}")
    return "<br>".join(lines)


def _rest(found: Rectangles, at: NDArray[np.float64], unit: ByteUnit, theme: Theme) -> Figure:
    highest = [*found.rest_bytes.tolist(), int(found.rest_bytes[-1])]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{found.num_rest:,} smaller buffers",
        "x": at[found.rest_at].tolist(),
        "y": unit.of(highest),
        "text": [format_bytes(value) for value in highest],
        "hovertemplate": "%{text}",
        "fill": "tozeroy",
        "fillcolor": OTHERS_COLOUR,
        "line": {"width": 0.5, "color": theme.outline, "shape": "hv"},
        "xaxis": "x",
        "yaxis": "y2",
    }
