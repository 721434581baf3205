"""Figure of growth: each series' slope with its interval, and changes between two traced steps by layer."""

from __future__ import annotations

from collections.abc import Sequence

from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.growth_words import pace
from kerasmemwatch.analysis.steps.live_set import by_layer
from kerasmemwatch.names import shortened
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.growth import Growth
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.reports.figures.labels import byte_unit, layer_label, plain
from kerasmemwatch.reports.figures.layout import Figure, bars, byte_axis, empty_figure, figure, named_axis, note, panels
from kerasmemwatch.reports.figures.palette import CATEGORY_COLOURS, Theme, theme_named
from kerasmemwatch.reports.figures.peak import is_within
from kerasmemwatch.units import format_bytes

__all__ = ["growth", "held_more", "steps_to_compare"]

_MAX_BARS = 25
_TREND_HEIGHT, _BAR_HEIGHT = 52, 24
_BELOW_TRENDS = 90  # numbers, title, then the legend of the bars
Change = dict[Owner, dict[str, int]]


def growth(report: Findings, *, theme: str = "light", layer: str | None = None, most: int = _MAX_BARS) -> Figure:
    """Draw each series' rate with its 95 % interval, and how the newest traced step's initial bytes changed.

    Returns:
        A plotly figure as a JSON-able dict; ``customdata[0]`` of a bar is the layer's path.
    """
    colours = theme_named(theme)
    found = report.growth
    trends = found if any(_has_rate(one) for one in found) else ()
    pair = steps_to_compare(report.steps)
    change = held_more(*pair) if pair else {}
    rows = [
        (key, sizes)
        for key, sizes in sorted(change.items(), key=lambda item: -sum(map(abs, item[1].values())))
        if layer is None or is_within(key.path, layer)
    ]
    if not trends and not pair:
        why = "Too few samples to tell whether anything grows, and no two steps of one kind were traced."
        return empty_figure(colours, "growth", why)
    data: list[Figure] = []
    layout: Figure = {"annotations": []}
    heights = {
        "trends": _TREND_HEIGHT * len(trends) + _BELOW_TRENDS + 20 if trends else 0,
        "held": _BAR_HEIGHT * max(2, min(len(rows), most)) + 55 if pair else 0,
    }
    places = panels(heights, below=_BELOW_TRENDS)
    if trends:
        _add_trends(data, layout, trends, places["trends"], colours)
    if pair:
        _add_bars(data, layout, rows[:most], pair, places["held"], colours)
    summary = "; ".join(one.explanation for one in found) or "Too few samples to tell whether anything grows"
    layout |= {
        "barmode": "relative",
        "hovermode": "closest",
        "height": sum(heights.values()) + 104,
        "margin": {"l": 64, "r": 24, "t": 40, "b": 64},
        "legend": {"orientation": "h", "x": 0, "y": places["held"][1] if pair else 1, "yanchor": "bottom"},
    }
    return figure(data, colours, "growth", f"{summary}.", **layout)


def steps_to_compare(steps: Sequence[TracedStep]) -> tuple[TracedStep, TracedStep] | None:
    """Find the first and last traced steps of the same stage, mode and device, preferring training."""
    kinds: dict[tuple[str, str, str], list[TracedStep]] = {}
    own = [step for step in steps if step.measured_in is None and step.after is None]
    for step in sorted(own, key=lambda one: (one.stage != "train", one.step)):
        kinds.setdefault((step.stage, step.mode, step.timeline.device), []).append(step)
    return next(((same[0], same[-1]) for same in kinds.values() if same[-1].step > same[0].step), None)


def held_more(first: TracedStep, last: TracedStep) -> Change:
    """Change in live bytes at the start of the steps, by owner and category; unchanged ones are omitted."""
    sizes: list[Change] = [
        {
            row.owner: {name: getattr(row, f"{name}_bytes") or 0 for name in CATEGORIES}
            for row in by_layer(step.timeline, -1)
        }
        for step in (first, last)
    ]
    found = {}
    for key in dict.fromkeys([*sizes[0], *sizes[1]]):
        before, after = (one.get(key, dict.fromkeys(CATEGORIES, 0)) for one in sizes)
        change = {name: after[name] - before[name] for name in CATEGORIES if after[name] != before[name]}
        if change:
            found[key] = change
    return found


def _add_trends(data: list[Figure], layout: Figure, found: Sequence[Growth], place: list[float], theme: Theme) -> None:
    """Draw a point with an interval for each series, bytes per training step, with the verdict in its label."""
    unit = byte_unit(max(max(abs(one.low or 0.0), abs(one.high or 0.0)) for one in found))
    for row, one in enumerate(found):
        if one.bytes_per_step is None or one.low is None or one.high is None:
            continue
        colour, symbol = _look(one, theme)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "cliponaxis": False,
                "name": plain(one.label),
                "showlegend": False,
                "x": unit.of([one.bytes_per_step]),
                "y": [row],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": unit.of([one.high - one.bytes_per_step]),
                    "arrayminus": unit.of([one.bytes_per_step - one.low]),
                    "color": colour,
                    "thickness": 2,
                    "width": 6,
                },
                "marker": {"size": 10, "color": colour, "symbol": symbol},
                "hovertext": ["<br>".join(map(plain, one.explanation.split("; ")))],
                "hoverinfo": "text",
                "xaxis": "x",
                "yaxis": "y",
            }
        )
    zero = {"zeroline": True, "zerolinecolor": theme.faint}
    layout["xaxis"] = byte_axis(theme, unit, "growth a step", rangemode="tozero", tickformat="~g", anchor="y", **zero)
    labels = [f"{plain(shortened(one.label, 28))}<br>{_brief(one)}" for one in found]
    layout["yaxis"] = named_axis(theme, labels, domain=place)


def _has_rate(one: Growth) -> bool:
    return one.bytes_per_step is not None and one.interval is not None


def _look(one: Growth, theme: Theme) -> tuple[str, str]:
    """A verdict's colour and symbol: green says only that nothing grows."""
    if one.is_growing:
        return theme.mark, "diamond"
    if one.verdict == "waits for the collector":
        return theme.series[4], "square"
    return (theme.series[2], "circle") if one.verdict == "steady" else (theme.faint, "circle-open")


def _brief(one: Growth) -> str:
    if one.met_at is None:
        return pace(one)
    return f"{pace(one)},<br>limit at step {one.met_at:,}"


def _add_bars(
    data: list[Figure],
    layout: Figure,
    rows: Sequence[tuple[Owner, dict[str, int]]],
    pair: tuple[TracedStep, TracedStep],
    place: list[float],
    theme: Theme,
) -> None:
    """Draw each layer's increase to the right, and its decrease to the left."""
    unit = byte_unit(float(max((sum(map(abs, sizes.values())) for _, sizes in rows), default=0)))
    for name in CATEGORIES:
        changed = [(row, owner.path, sizes[name]) for row, (owner, sizes) in enumerate(rows) if name in sizes]
        if not changed:
            continue
        trace = bars(theme, name, CATEGORY_COLOURS[name], xaxis="x2", yaxis="y2")
        trace |= {
            "x": unit.of(size for *_, size in changed),
            "y": [row for row, *_ in changed],
            "hovertext": [
                f"{layer_label(path, 70)}<br>{name}: {format_bytes(size, signed=True)} ({size:+,} bytes)"
                for _, path, size in changed
            ],
            "customdata": [[path] for _, path, _ in changed],
        }
        data.append(trace)
    first, last = (f"step {step.step:,}" for step in pair)
    if not rows:
        words = f"As {last} began, the same was held as when {first} began."
        layout["annotations"].append(note(words, theme, x=0.5, y=sum(place) / 2, xanchor="center"))
    zero = {"zeroline": True, "zerolinecolor": theme.faint}
    title = f"more held at {last}<br>than at {first}"  # in two lines, as a figure may be narrow
    layout["xaxis2"] = byte_axis(theme, unit, title, rangemode="tozero", anchor="y2", **zero)
    labels = [layer_label(owner.path, 28) for owner, _ in rows]
    layout["yaxis2"] = named_axis(theme, labels, domain=place, anchor="x2")
