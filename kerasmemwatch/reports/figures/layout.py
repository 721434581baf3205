"""Common layout of figures: fonts, colours, legends, axes of bytes, and a figure that explains why it is empty."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from kerasmemwatch.reports.figures.labels import ByteUnit, plain
from kerasmemwatch.reports.figures.palette import Theme

__all__ = ["Figure", "axis", "bars", "byte_axis", "empty_figure", "figure", "named_axis", "note", "panels", "span"]

Figure = dict[str, Any]
# Characters of a line, of a usual and of a large text, that fit a figure on a phone.
_LINE, _LARGE_LINE = 46, 38
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def figure(data: Sequence[Figure], theme: Theme, name: str, summary: str, **layout: Any) -> Figure:
    """Assemble a figure.

    Args:
        name: Name of the view; a redrawn view of the same name keeps its zoom.
        summary: What it shows, in a sentence, for screen readers; plain text, in ``layout.meta.summary``.
    """
    base: Figure = {
        "paper_bgcolor": theme.background,
        "plot_bgcolor": theme.background,
        "font": {"family": _FONT, "size": 12, "color": theme.text},
        "margin": {"l": 64, "r": 16, "t": 36, "b": 48},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"bgcolor": theme.background, "bordercolor": theme.faint, "font": {"color": theme.text}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.faint, "activecolor": theme.text},
        "uirevision": name,
        "meta": {"view": name, "summary": summary},
    }
    return {"data": list(data), "layout": {**base, **layout}}


def empty_figure(theme: Theme, name: str, why: str) -> Figure:
    """Make a figure without data that explains why."""
    hidden = {"visible": False}
    font = {"size": 14, "color": theme.text}
    words = note(why, theme, x=0.5, y=0.5, line=_LARGE_LINE, xanchor="center", yanchor="middle", font=font)
    margin = {"l": 16, "r": 16, "t": 36, "b": 16}
    return figure([], theme, name, why, xaxis=hidden, yaxis=hidden, height=220, margin=margin, annotations=[words])


def axis(theme: Theme, title: str = "", **more: Any) -> Figure:
    """Make an axis of numbers."""
    return {
        "type": "linear",
        "title": {"text": title},
        "gridcolor": theme.grid,
        "linecolor": theme.grid,
        "zeroline": False,
        "automargin": True,
        "hoverformat": ",",
        **more,
    }


def byte_axis(theme: Theme, unit: ByteUnit, title: str = "", **more: Any) -> Figure:
    """Make an axis of bytes in one unit, starting at 0, because the length of an area or bar has meaning."""
    words = f"{title} ({unit.name})" if title else unit.name
    return axis(theme, words, **{"rangemode": "tozero", "separatethousands": True, **more})


def named_axis(theme: Theme, labels: Sequence[str], **more: Any) -> Figure:
    """Make the vertical axis of rows with names, the first on top."""
    places, ends = list(range(len(labels))), [max(len(labels), 1) - 0.4, -0.6]
    return axis(theme, range=ends, tickvals=places, ticktext=list(labels), showgrid=False, **more)


def bars(theme: Theme, name: str, colour: str, **more: Any) -> Figure:
    """Make horizontal bars with outlines."""
    marker = {"color": colour, "line": {"width": 0.5, "color": theme.outline}}
    return {"type": "bar", "orientation": "h", "name": name, "hoverinfo": "text", "marker": marker, **more}


def note(text: str, theme: Theme, *, x: float, y: float, line: int = _LINE, **more: Any) -> Figure:
    """Make a text in the figure, by default placed relative to its area; wrapped, because a figure may be narrow."""
    return {
        "text": "<br>".join(plain(each) for each in textwrap.wrap(text, line) or [""]),
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "showarrow": False,
        "font": {"size": 11, "color": theme.faint},
        **more,
    }


def panels(heights: Mapping[str, float], below: float = 55) -> dict[str, list[float]]:
    """Positions of stacked panels, as shares of the figure's area.

    Args:
        heights: Each panel's pixels, including its labels; 0 for an absent one.
        below: Pixels for the labels below a panel; the last panel's are in the margin.

    Example:
        >>> panels({"above": 150, "none": 0, "below": 50}, below=50)
        {'above': [0.5, 1.0], 'below': [0.0, 0.25]}
    """
    there = [name for name, height in heights.items() if height]
    total, top, places = sum(heights.values()), 1.0, {}
    for name in there:
        bottom = top - heights[name] / total
        places[name] = [0.0 if name == there[-1] else min(bottom + below / total, top - 0.02), top]
        top = bottom
    return places


def span(theme: Theme, begin: float, end: float, colour: str, **more: Any) -> Figure:
    """A shaded stretch of the x axis, behind the data."""
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": begin,
        "x1": end,
        "y0": 0,
        "y1": 1,
        "fillcolor": colour,
        "line": {"width": 0},
        "layer": "below",
        **more,
    }
