"""Figures as plotly's own objects, which notebooks show."""

from __future__ import annotations

from typing import Any

from kerasmemwatch.errors import MissingDependencyError
from kerasmemwatch.reports.figures.layout import Figure

__all__ = ["to_plotly"]


def to_plotly(made: Figure) -> Any:
    """A ``plotly.graph_objects.Figure``; only this loads plotly.

    Raises:
        MissingDependencyError: If plotly is not installed.
    """
    try:
        from plotly.graph_objects import Figure as PlotlyFigure
    except ImportError as error:
        raise MissingDependencyError(
            f"Expected plotly to be installed. Received: {error}. Install it with `pip install plotly`."
        ) from error
    return PlotlyFigure(made)
