"""Figure of device and host memory over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.caveats import at_least, in_part
from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.names import shortened
from kerasmemwatch.records.growth import LeakFinding
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.reports.figures.labels import ByteUnit, byte_unit, plain
from kerasmemwatch.reports.figures.layout import Figure, axis, byte_axis, empty_figure, figure, span
from kerasmemwatch.reports.figures.palette import Theme, theme_named
from kerasmemwatch.reports.figures.thinning import drawn_series
from kerasmemwatch.units import format_bytes

__all__ = ["overview"]

_MAX_POINTS = 3000
# Points of all curves together; a payload of 1 MiB has room for about three times as many.
_MAX_POINTS_OF_ALL = 12_000
_MAX_EPOCHS = 60
# Libraries and Python are most of the RSS: on an axis from 0, changes in training would be invisible.
_FROM = {"device": "tozero", "host RSS": "normal"}
_NEAR = 0.5
_FEW = 60
_SERIES = (
    ("device_peak_bytes", "peak within a step", "solid", 1.8),
    ("device_between_peak_bytes", "peak between steps", "dot", 1.4),
    ("device_in_use_bytes", "in use at step end", "dash", 1.2),
)


def overview(report: Findings, *, theme: str = "light") -> Figure:
    """Draw device memory (above) and host memory (below) over the steps of a run.

    A long run is thinned out to a screen's resolution, keeping the highest point of each stretch. A limit is drawn
    once memory has reached half of it.
    """
    colours, samples = theme_named(theme), report.samples
    if not samples.num_samples:
        return empty_figure(colours, "overview", "Nothing was recorded yet. Train with callbacks=[MemoryWatch()].")
    steps = samples["step"].astype(float)
    device = _device_curves(report, colours)
    host = [("host RSS", samples["host_rss_bytes"].astype(float), "solid", 1.8, colours.series[5])]
    host = [curve for curve in host if not np.isnan(curve[1]).all()]
    panels = [("device", device), ("host RSS", host)]
    shown = [(title, curves) for title, curves in panels if curves]
    if not shown:
        return empty_figure(colours, "overview", "No memory figure is known of this run; the notes say why.")
    most = min(_MAX_POINTS, _MAX_POINTS_OF_ALL // sum(len(curves) for _, curves in shown))
    data: list[Figure] = []
    shapes = [*_epochs(samples, colours), *_leaks(report.leaks, samples, colours)]
    annotations: list[Figure] = []
    layout: Figure = {"xaxis": axis(colours, "step", anchor="y" if len(shown) == 1 else "y2")}
    for index, (title, curves) in enumerate(shown):
        suffix = "" if index == 0 else str(index + 1)
        highest = max(float(np.nanmax(values)) for _, values, *_ in curves)
        limits = [limit for limit in _limits(report, title) if highest >= _NEAR * limit[1]]
        unit = byte_unit(max([highest, *(limit for _, limit in limits)]))
        domain = [0.0, 1.0] if len(shown) == 1 else [[0.42, 1.0], [0.0, 0.34]][index]
        layout[f"yaxis{suffix}"] = byte_axis(colours, unit, title, domain=domain, rangemode=_FROM[title])
        data += [_curve(steps, *curve, unit, most, f"y{suffix}") for curve in curves]
        for name, limit in limits:
            shapes.append(_line(limit / unit.size, f"y{suffix}", colours))
            annotations.append(_words(f"limit of {name}", limit / unit.size, f"y{suffix}", colours))
        if title == "device":
            data += _peak(report, unit, colours)
    summary = (
        f"Memory of run {report.run.name} over {samples.num_samples} samples, steps {int(steps[0])} to "
        f"{int(steps[-1])}. Device peak{in_part(report.run, report.peak.device)}: {_peak_words(report)}. "
        f"Host RSS at most: {format_bytes(samples.highest('host_rss_bytes'))}."
    )
    layout |= {"shapes": shapes, "annotations": annotations, "hovermode": "x unified", "height": 480}
    return figure(data, colours, "overview", summary, **layout)


_Curve = tuple[str, NDArray[np.float64], str, float, str]


def _device_curves(report: Findings, theme: Theme) -> list[_Curve]:
    curves = []
    several = len(report.run.devices) > 1 or _width(report.samples) > 1
    for column, words, dash, width in _SERIES:
        values = report.samples.get(column)
        for index in range(0 if values is None or values.ndim < 2 else values.shape[1]):
            known = report.run.devices[index].name if index < len(report.run.devices) else f"device {index}"
            name = (f"{shortened(known, 24)} {words}" if several else words) + in_part(report.run, known)
            # Each device has a colour; if there is only one device, each of its series has.
            colour = index if several else [one for one, *_ in _SERIES].index(column)
            own = values[:, index].astype(float)  # type: ignore[index]
            if not np.isnan(own).all():
                curves.append((name, own, dash, width, theme.series[colour % len(theme.series)]))
    return curves


def _width(samples: Samples) -> int:
    values = samples.get("device_peak_bytes")
    return 0 if values is None or values.ndim < 2 else int(values.shape[1])


def _curve(
    steps: NDArray[np.float64],
    name: str,
    values: NDArray[np.float64],
    dash: str,
    width: float,
    colour: str,
    unit: ByteUnit,
    most: int,
    yaxis: str,
) -> Figure:
    x, y = drawn_series(steps, values, most)
    return {
        "type": "scatter",
        "mode": "lines+markers" if np.count_nonzero(~np.isnan(values)) <= _FEW else "lines",
        "name": plain(name),
        "x": [int(step) for step in x],
        "y": unit.of(y),
        "text": [format_bytes(value) for value in y],
        "hovertemplate": "%{text}",
        "line": {"color": colour, "dash": dash, "width": width},
        "marker": {"size": 4},
        "xaxis": "x",
        "yaxis": yaxis,
    }


def _peak_words(report: Findings) -> str:
    return at_least(report.run, report.peak.device, report.peak.bytes)


def _peak(report: Findings, unit: ByteUnit, theme: Theme) -> Iterator[Figure]:
    peak = report.peak
    if peak.bytes is None or peak.step is None:
        return
    yield {
        "type": "scatter",
        "mode": "markers+text",
        "name": f"peak of the run{in_part(report.run, peak.device)}",
        "x": [peak.step],
        "y": unit.of([peak.bytes]),
        "text": [_peak_words(report)],
        "textposition": "top center",
        "cliponaxis": False,
        "hovertemplate": "%{text}",
        "marker": {"symbol": "diamond", "size": 9, "color": theme.mark},
        "xaxis": "x",
        "yaxis": "y",
    }


def _epochs(samples: Samples, theme: Theme) -> Iterator[Figure]:
    """Draw a line at the start of each epoch; with very many epochs, only about every tenth."""
    epochs, steps = samples["epoch"].astype(float), samples["step"]
    known = np.flatnonzero(~np.isnan(epochs))
    begins = known[1:][np.diff(epochs[known]) != 0]
    stride = max(1, math.ceil(len(begins) / _MAX_EPOCHS))
    for row in begins[stride - 1 :: stride].tolist():
        at = float(steps[row]) - 0.5
        line = {"color": theme.faint, "width": 1, "dash": "dot"}
        yield {"type": "line", "xref": "x", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1, "line": line,
               "layer": "below", "opacity": 0.6, "name": f"epoch {int(epochs[row]) + 1}"}  # fmt: skip


def _leaks(leaks: tuple[LeakFinding, ...], samples: Samples, theme: Theme) -> Iterator[Figure]:
    """Draw where each cause of growth was first seen."""
    last = float(samples["step"][-1])
    for leak in leaks:
        if leak.since_step is not None:
            label = {
                "text": plain(shortened(leak.cause, 40)),
                "textposition": "top left",
                "font": {"color": theme.mark},
            }
            yield span(theme, leak.since_step, last, theme.mark, opacity=0.12, name="leak", label=label)


def _limits(report: Findings, title: str) -> list[tuple[str, int]]:
    if title == "device":
        return [(device.name, device.limit_bytes) for device in report.run.devices if device.limit_bytes]
    limit = report.run.host.get("limit_bytes")
    return [("the host", int(limit))] if isinstance(limit, (int, float)) and limit > 0 else []


def _line(at: float, yaxis: str, theme: Theme) -> Figure:
    line = {"color": theme.mark, "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "yref": yaxis, "x0": 0, "x1": 1, "y0": at, "y1": at, "line": line,
            "name": "limit"}  # fmt: skip


def _words(text: str, at: float, yaxis: str, theme: Theme) -> Figure:
    font = {"size": 11, "color": theme.mark}
    return {"text": plain(text), "xref": "paper", "yref": yaxis, "x": 1, "y": at, "xanchor": "right",
            "yanchor": "bottom", "showarrow": False, "font": font}  # fmt: skip
