"""Selects the points of a long series to draw: at most a screen's resolution, with each stretch's highest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.decimation import decimate

__all__ = ["drawn_points", "drawn_series"]


def drawn_points(values: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """Choose points of a series without unknown values.

    Returns:
        Indices, increasing: each bucket's first, last and highest point; all if there are few.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    width = -(-count * 3 // most)
    kept = decimate(np.column_stack([np.arange(count), values.astype(float)]), width, tracked=[[1]])
    indices: NDArray[np.intp] = kept[:, 0].astype(np.intp)
    return indices


def drawn_series(
    x: NDArray[np.float64], values: NDArray[np.float64], most: int
) -> tuple[list[float], list[float | None]]:
    """The points to draw of a series that may be unknown in places, with gaps there.

    Returns:
        The points' positions and values; ``None`` for a gap.
    """
    known = np.flatnonzero(~np.isnan(values))
    kept = known[drawn_points(values[known], most)]
    if not len(kept):
        return [], []
    unknown_before = np.cumsum(np.isnan(values))
    gap = np.flatnonzero(np.diff(unknown_before[kept]) > 0) + 1
    xs, ys = x[kept].astype(object), values[kept].astype(object)
    return (
        np.insert(xs, gap, xs[gap]).tolist(),
        np.insert(ys, gap, np.full(len(gap), None)).tolist(),
    )
