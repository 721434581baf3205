"""Figure of memory within a traced step, stacked by category or layer, with its phases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.peak_place import kind_words, numbered
from kerasmemwatch.analysis.steps.live_set import grouped_series
from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.names import shortened
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep
from kerasmemwatch.reports.figures.labels import ByteUnit, byte_unit, layer_label, plain
from kerasmemwatch.reports.figures.layout import Figure, axis, byte_axis, empty_figure, figure, span
from kerasmemwatch.reports.figures.moments import moments_drawn, phase_spans, positions
from kerasmemwatch.reports.figures.palette import CATEGORY_COLOURS, LAYER_COLOURS, OTHERS_COLOUR, Theme, theme_named
from kerasmemwatch.reports.figures.peak import is_within
from kerasmemwatch.units import format_bytes

__all__ = ["owners_within", "phase_marks", "step_timeline"]

GROUPS = ("category", "layer")
_MAX_POINTS = 1500
_WIDEST_LABEL = 0.07

_Group = tuple[str, str, str | None, NDArray[np.int64]]


def step_timeline(
    step: TracedStep | None,
    *,
    theme: str = "light",
    by: str = "category",
    x: str = "event",
    window: tuple[float, float] | None = None,
    layer: str | None = None,
    top: int = 8,
    points: int = _MAX_POINTS,
) -> Figure:
    """Draw the requested bytes alive at every moment of a step.

    Args:
        by: ``"category"``, or ``"layer"``: the layers and owners that hold most at the peak, and the others together.
        x: ``"event"`` (births and deaths of buffers; 0 is before the first) or ``"time"`` (milliseconds).
        window: What to draw in full detail, in units of the x axis; all of the step if ``None``.
        points: Approximate number of moments drawn, including the highest in the window.
    """
    colours = theme_named(theme)
    if by not in GROUPS:
        raise InvalidArgumentError(f"Expected by to be 'category' or 'layer'. Received: by={by!r}.")
    if step is None:
        return empty_figure(colours, "step", "No step was traced; the notes say why.")
    timeline = step.timeline
    at = positions(timeline, x)
    mine = owners_within(timeline, layer)
    groups = list(_by_category(timeline, mine) if by == "category" else _by_layer(timeline, mine, top))
    total = np.sum([series for *_, series in groups], axis=0) if groups else np.zeros(len(at), np.int64)
    if not total.any():
        holder = "" if layer is None else f" of {shortened(layer, 60)}"
        return empty_figure(colours, "step", f"Nothing{holder} was alive in {numbered(step)}.")
    shown = moments_drawn(total, at, window, points)
    highest = int(shown[np.argmax(total[shown])])
    unit = byte_unit(float(total[shown].max()))
    data = [_area(at[shown], series[shown], name, colour, path, unit, colours) for name, colour, path, series in groups]
    data.append(_total(step, at, total, shown, unit, colours))
    data.append(_highest(at[highest], int(total[highest]), unit, colours))
    begin, end = (float(at[0]), float(at[-1])) if window is None else (min(window), max(window))
    shapes, annotations = phase_marks(timeline, at, (begin, end), colours)
    title = "births and deaths of buffers" if x == "event" else "ms since the step began"
    summary = (
        f"Requested bytes alive within {numbered(step)} ({kind_words(step)}) on {timeline.device}, by {by}; "
        f"at most {format_bytes(int(total[highest]))}, of {timeline.num_allocations:,} buffers."
    )
    layout = {
        "xaxis": axis(colours, title, range=[begin, max(end, begin + 1e-6)]),
        "yaxis": byte_axis(colours, unit, "requested"),
        "hovermode": "x unified",
        "height": 460,
        "shapes": shapes,
        "annotations": annotations,
        "margin": {"l": 64, "r": 16, "t": 60, "b": 48},
        "legend": {
            "orientation": "h",
            "x": 0,
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
    }
    return figure(data, colours, "step", summary, **layout)


def owners_within(timeline: Timeline, layer: str | None) -> NDArray[np.bool_]:
    """Whether each allocation belongs to a layer or its sub-layers; all true if ``layer`` is ``None``."""
    if layer is None:
        return np.ones(timeline.num_allocations, bool)
    within = np.array([is_within(path, layer) for path in timeline.owners], bool)
    return within[timeline.owner] if len(within) else np.zeros(timeline.num_allocations, bool)


def phase_marks(
    timeline: Timeline, at: NDArray[np.float64], window: tuple[float, float], theme: Theme
) -> tuple[list[Figure], list[Figure]]:
    """Shaded stretches for forward, backward and update, with their names if there is room."""
    colours = dict(theme.phases)
    shapes, words = [], []
    for phase in phase_spans(timeline):
        begin = float(max(at[min(phase.begin, len(at) - 1)], window[0]))
        end = float(min(at[min(phase.end, len(at) - 1)], window[1]))
        if end <= begin:
            continue
        shapes.append(span(theme, begin, end, colours[phase.phase], name=phase.phase))
        if end - begin >= _WIDEST_LABEL * (window[1] - window[0]):
            words.append(
                {
                    "text": phase.phase,
                    "x": (begin + end) / 2,
                    "y": 1,
                    "xref": "x",
                    "yref": "paper",
                    "yanchor": "bottom",
                    "showarrow": False,
                    "font": {"size": 11, "color": theme.faint},
                }
            )
    return shapes, words


def _by_category(timeline: Timeline, mine: NDArray[np.bool_]) -> Iterator[_Group]:
    series = grouped_series(timeline, np.where(mine, timeline.category, -1), len(CATEGORIES))
    for index, name in enumerate(CATEGORIES):
        if series[index].any():
            yield name, CATEGORY_COLOURS[name], None, series[index]


def _by_layer(timeline: Timeline, mine: NDArray[np.bool_], top: int) -> Iterator[_Group]:
    """The owners that hold most at the peak of what is drawn, and the others together."""
    total = grouped_series(timeline, np.where(mine, 0, -1), 1)[0]
    event = int(np.argmax(total)) - 1
    alive = np.flatnonzero(mine & (timeline.birth <= event) & (timeline.death > event))
    held = np.zeros(len(timeline.owners), np.int64)
    np.add.at(held, timeline.owner[alive], timeline.requested_bytes[alive])
    ranked = [
        index for index in np.argsort(-held, kind="stable")[: min(top, len(LAYER_COLOURS))].tolist() if held[index]
    ]
    group_of = np.full(len(timeline.owners), len(ranked))
    group_of[ranked] = np.arange(len(ranked))
    group = np.where(mine, group_of[timeline.owner], -1) if len(timeline.owners) else np.full(len(mine), -1)
    series = grouped_series(timeline, group, len(ranked) + 1)
    for place, index in enumerate(ranked):
        path = timeline.owners[index]
        yield layer_label(path), LAYER_COLOURS[place], path, series[place]
    if series[-1].any():
        yield "others", OTHERS_COLOUR, None, series[-1]


def _area(
    at: NDArray[np.float64],
    values: NDArray[np.int64],
    name: str,
    colour: str,
    path: str | None,
    unit: ByteUnit,
    theme: Theme,
) -> Figure:
    area: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": at.tolist(),
        "y": unit.of(values),
        "text": [format_bytes(value) for value in values.tolist()],
        "hovertemplate": "%{text}",
        "stackgroup": "alive",
        "fillcolor": colour,
        # Buffers alive after an event stay alive until the next.
        "line": {"width": 0.5, "color": theme.outline, "shape": "hv"},
    }
    return {**area, "meta": {"path": path}} if path is not None else area


def _total(
    step: TracedStep,
    at: NDArray[np.float64],
    total: NDArray[np.int64],
    shown: NDArray[np.intp],
    unit: ByteUnit,
    theme: Theme,
) -> Figure:
    """The upper edge; its hover text says what happened at each moment."""
    timeline = step.timeline
    # The largest buffer born at an event represents it.
    order = np.argsort(timeline.requested_bytes, kind="stable")
    born = np.full(timeline.num_events + 1, -1)
    born[timeline.birth[order] + 1] = order
    born[0] = -1
    words, paths = _happened(timeline, born[shown].tolist())
    texts = [f"{format_bytes(value)}{happened}" for value, happened in zip(total[shown].tolist(), words, strict=True)]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "all",
        "showlegend": False,
        "x": at[shown].tolist(),
        "y": unit.of(total[shown]),
        "text": texts,
        "customdata": [[path] for path in paths],
        "hovertemplate": "%{text}",
        "line": {"width": 1, "color": theme.text, "shape": "hv"},
    }


def _happened(timeline: Timeline, born: Sequence[int]) -> tuple[list[str], list[str | None]]:
    """For each moment, the buffer that was born, in words, and its owner."""
    words: list[str] = []
    paths: list[str | None] = []
    for index in born:
        if index < 0:
            words.append("")
            paths.append(None)
            continue
        path, op = timeline.owners[timeline.owner[index]], timeline.ops[timeline.op[index]]
        size = format_bytes(int(timeline.requested_bytes[index]), signed=True)
        name = plain(shortened(op.rpartition("/")[2] or op, 40)) or "an unnamed operation"
        phase = PHASES[timeline.phase[index]]
        words.append(f"<br>{phase}: {size} by {name}<br>of {layer_label(path, 48)}")
        paths.append(path)
    return words, paths


def _highest(at: float, value: int, unit: ByteUnit, theme: Theme) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": "peak",
        "showlegend": False,
        "x": [float(at)],
        "y": unit.of([value]),
        "text": [format_bytes(value)],
        "textposition": "top center",
        "cliponaxis": False,
        "hoverinfo": "skip",
        "marker": {"symbol": "diamond", "size": 9, "color": theme.mark},
    }
