"""Figure of two or more runs side by side: curves, peaks by category, and the layers that differ most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kerasmemwatch.analysis.caveats import at_least, in_part
from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.names import shortened
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.reports.figures.labels import byte_unit, layer_label, plain
from kerasmemwatch.reports.figures.layout import Figure, axis, bars, byte_axis, empty_figure, figure, named_axis, panels
from kerasmemwatch.reports.figures.palette import CATEGORY_COLOURS, Theme, theme_named
from kerasmemwatch.reports.figures.peak import is_within
from kerasmemwatch.reports.figures.thinning import drawn_series
from kerasmemwatch.units import format_bytes

__all__ = ["comparison"]

_MAX_POINTS = 12_000
_MAX_LAYERS = 15
_ROW_HEIGHT, _PEAK_HEIGHT = 20, 34
# Pixels above the peaks' bars (for their legend), and above the layers' bars.
# A narrow window breaks the legend of all categories into three rows.
_LEGEND_HEIGHT, _GAP = 70, 16
_DASHES = ("solid", "dash", "dot", "dashdot")


class _Traced(NamedTuple):
    """A run with a traced step, and its position among all runs."""

    order: int
    name: str
    report: Findings


def comparison(
    reports: Sequence[Findings],
    names: Sequence[str] | None = None,
    *,
    theme: str = "light",
    layer: str | None = None,
    most: int = _MAX_LAYERS,
) -> Figure:
    """Draw several runs: their device peaks over steps, their traced peaks by category, and layers that differ.

    Returns:
        A plotly figure as a JSON-able dict; ``customdata`` of a bar is ``[path, run]``.

    Raises:
        InvalidArgumentError: If the number of names differs from that of reports.
    """
    colours = theme_named(theme)
    called = [report.run.name for report in reports] if names is None else list(names)
    if len(called) != len(reports):
        raise InvalidArgumentError(
            f"Expected a name for each report. Received: {len(called)} names for {len(reports)} reports."
        )
    if not reports:
        return empty_figure(colours, "comparison", "Choose two runs or more to compare them.")
    curves = _curves(reports, called)
    traced = [
        _Traced(index, name, report)
        for index, (name, report) in enumerate(zip(called, reports, strict=True))
        if report.traced
    ]
    layers = _differing(traced, layer)[:most] if len(traced) > 1 else []
    if not curves and not traced:
        return empty_figure(colours, "comparison", "No memory figure is known of these runs; their notes say why.")
    heights = {"curves": 260 if curves else 0, "peaks": 60 + _LEGEND_HEIGHT + _PEAK_HEIGHT * len(traced)}
    heights["peaks"] *= bool(traced)
    heights["layers"] = 60 + _GAP + (_ROW_HEIGHT * len(traced) + 8) * len(layers) if layers else 0
    places, pixel = panels(heights), 1 / sum(heights.values())
    data: list[Figure] = []
    layout: Figure = {}
    if curves:
        _add_curves(data, layout, curves, places["curves"], colours)
    if traced:
        _add_peaks(data, layout, traced, places["peaks"], colours, _LEGEND_HEIGHT * pixel)
    if layers:
        begin, end = places["layers"]
        _add_layers(data, layout, traced, layers, [begin, end - _GAP * pixel], colours)
    summary = "; ".join(
        f"{name}: device peak{in_part(report.run, report.peak.device)} "
        f"{at_least(report.run, report.peak.device, report.peak.bytes)}"
        for name, report in zip(called, reports, strict=True)
    )
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    top = 40 + 22 * -(-len(curves) // 3)
    layout |= {"barmode": "stack", "hovermode": "closest", "height": sum(heights.values()) + top + 40, "legend": legend}
    return figure(data, colours, "comparison", f"{summary}.", margin={"l": 64, "r": 24, "t": top, "b": 56}, **layout)


def _curves(reports: Sequence[Findings], names: Sequence[str]) -> list[tuple[int, str, np.ndarray, np.ndarray]]:
    """Each run's highest device peak at each step."""
    found = []
    for index, (name, report) in enumerate(zip(names, reports, strict=True)):
        within, between = (report.samples.get(f"device_{one}_bytes") for one in ("peak", "between_peak"))
        if within is None or between is None or not within.size:
            continue
        values = np.fmax.reduce(np.fmax(within, between).astype(float), axis=1)
        if not np.isnan(values).all():
            name = f"{name}{in_part(report.run, report.peak.device)}"
            found.append((index, name, report.samples["step"].astype(float), values))
    return found


def _add_curves(
    data: list[Figure],
    layout: Figure,
    curves: Sequence[tuple[int, str, np.ndarray, np.ndarray]],
    place: list[float],
    theme: Theme,
) -> None:
    unit = byte_unit(max(float(np.nanmax(values)) for *_, values in curves))
    for index, name, steps, values in curves:
        x, y = drawn_series(steps, values, max(300, _MAX_POINTS // len(curves)))
        dash = _DASHES[index // len(theme.series) % len(_DASHES)]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(x) == 1 else "lines",
                "name": plain(shortened(name, 40)),
                "x": [int(step) for step in x],
                "y": unit.of(y),
                "text": [format_bytes(value) for value in y],
                "hovertemplate": "step %{x}: %{text}",
                "line": {"color": theme.series[index % len(theme.series)], "dash": dash, "width": 1.6},
                "xaxis": "x",
                "yaxis": "y",
            }
        )
    layout["xaxis"] = axis(theme, "step", anchor="y")
    layout["yaxis"] = byte_axis(theme, unit, "device peak", domain=place)


def _add_peaks(
    data: list[Figure], layout: Figure, traced: Sequence[_Traced], place: list[float], theme: Theme, legend: float
) -> None:
    """Draw a bar of categories per run; ``legend`` is their legend's share of the figure's height."""
    unit = byte_unit(max(float(report.peak.requested_bytes or 0) for _, _, report in traced))
    for name in CATEGORIES:
        sizes = [report.peak.by_category.get(name, 0) for _, _, report in traced]
        if any(sizes):
            trace = bars(theme, name, CATEGORY_COLOURS[name], legend="legend2", xaxis="x2", yaxis="y2")
            trace |= {
                "x": unit.of(sizes),
                "y": list(range(len(traced))),
                "hovertext": [
                    f"{plain(run)}<br>{name}: {format_bytes(size)} ({size:,} bytes)"
                    for (_, run, _), size in zip(traced, sizes, strict=True)
                ],
                "customdata": [[None, run] for _, run, _ in traced],
            }
            data.append(trace)
    layout["xaxis2"] = byte_axis(theme, unit, "requested at the traced peak", anchor="y2")
    names = [layer_label(run, 28) for _, run, _ in traced]
    layout["yaxis2"] = named_axis(theme, names, domain=[place[0], place[1] - legend], anchor="x2")
    layout["legend2"] = {"orientation": "h", "x": 0, "y": place[1] - 0.9 * legend, "yanchor": "bottom"}


def _differing(traced: Sequence[_Traced], layer: str | None) -> list[Owner]:
    """Layers and owners by the difference in their peak bytes between runs, largest first."""
    held = _held(traced)
    keys = [
        key for key in dict.fromkeys(key for one in held for key in one) if layer is None or is_within(key.path, layer)
    ]
    spread = {key: max(one.get(key, 0) for one in held) - min(one.get(key, 0) for one in held) for key in keys}
    return sorted((key for key in keys if spread[key]), key=lambda key: -spread[key])


def _held(traced: Sequence[_Traced]) -> list[dict[Owner, int]]:
    return [{row.owner: row.total_bytes or 0 for row in report.peak.by_layer} for _, _, report in traced]


def _add_layers(
    data: list[Figure],
    layout: Figure,
    traced: Sequence[_Traced],
    layers: Sequence[Owner],
    place: list[float],
    theme: Theme,
) -> None:
    """Draw one bar per layer and run, in the run's colour."""
    held = _held(traced)
    unit = byte_unit(float(max(one.get(key, 0) for one in held for key in layers)))
    width = 0.8 / len(traced)
    for order, ((number, run, _), sizes) in enumerate(zip(traced, held, strict=True)):
        colour = theme.series[number % len(theme.series)]
        shift = -0.4 + width * (order + 0.5)
        name = plain(shortened(run, 40))
        trace = bars(theme, name, colour, showlegend=False, xaxis="x3", yaxis="y3")
        trace |= {
            "x": unit.of(sizes.get(key, 0) for key in layers),
            "y": [index + shift for index in range(len(layers))],
            "width": [width * 0.9] * len(layers),
            "hovertext": [
                f"{layer_label(key.path, 60)}<br>{name}: {format_bytes(sizes.get(key, 0))}" for key in layers
            ],
            "customdata": [[key.path, run] for key in layers],
        }
        data.append(trace)
    layout["xaxis3"] = byte_axis(theme, unit, "layers that differ most, at the traced peak", anchor="y3")
    labels = [layer_label(key.path, 28) for key in layers]
    layout["yaxis3"] = named_axis(theme, labels, domain=place, anchor="x3")
