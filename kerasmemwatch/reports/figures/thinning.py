"""Selection of the points of a long series to draw: at most what a screen shows, with each stretch's highest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.decimation import decimate

__all__ = ["drawn_points", "drawn_series"]


def drawn_points(values: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """Choose points of a series without unknown values.

    Args:
        values: ``[num_points]``.
        most: About how many are drawn at most.

    Returns:
        Indices, increasing: of each bucket its first, its last and its highest point. All if they are few.

    Example:
        >>> drawn_points(np.array([0.0, 1, 0, 0, 9, 0, 0, 2, 0]), 6).tolist()
        [0, 4, 5, 7, 8]
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    width = -(-count * 3 // most)
    kept = decimate(np.column_stack([np.arange(count), values.astype(float)]), width, tracked=[[1]])
    indices: NDArray[np.intp] = kept[:, 0].astype(np.intp)
    return indices


def drawn_series(
    x: NDArray[np.float64], values: NDArray[np.float64], most: int, *, connect: bool = False
) -> tuple[list[float], list[float | None]]:
    """The points of a series that may be unknown in places: those drawn, and a gap where something was not known.

    Args:
        x: ``[num_points]``, increasing.
        values: ``[num_points]``; NaN where unknown.
        most: About how many points are drawn at most.
        connect: Whether to draw through what is unknown, as for what is read at epoch ends only.

    Returns:
        Where the points are, and their values; ``None`` for a gap.
    """
    known = np.flatnonzero(~np.isnan(values))
    kept = known[drawn_points(values[known], most)]
    if not len(kept):
        return [], []
    unknown_before = np.cumsum(np.isnan(values))
    gap = np.flatnonzero(np.diff(unknown_before[kept]) > 0) + 1
    if connect:
        gap = gap[:0]
    xs, ys = x[kept].astype(object), values[kept].astype(object)
    return (
        np.insert(xs, gap, xs[gap]).tolist(),
        np.insert(ys, gap, np.full(len(gap), None)).tolist(),
    )
