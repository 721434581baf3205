"""Small text charts: a few rows of block characters, or ASCII if the terminal supports nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCKS", "PLAIN", "chart"]

BLOCKS = " ▁▂▃▄▅▆▇█"
PLAIN = " .-=#"


def chart(
    steps: NDArray[np.float64], values: NDArray[np.float64], *, width: int = 60, height: int = 4, ramp: str = BLOCKS
) -> list[str]:
    """Draw a series as columns, each the maximum over its share of the steps; unknown values are gaps.

    Args:
        ramp: Characters from empty to full.

    Returns:
        ``height`` lines of ``width`` characters, the top first. The bottom is the lowest value (0 if all are equal).
    """
    known = ~np.isnan(values)
    columns = np.full(width, np.nan)
    if known.any():
        span = max(float(steps[-1] - steps[0]), 1e-12)
        at = np.minimum(((steps - steps[0]) / span * width).astype(int), width - 1)
        np.fmax.at(columns, at[known], values[known])
        if len(steps) < width:  # fewer samples than columns: each fills up to the next
            filled = np.flatnonzero(~np.isnan(columns))
            columns = columns[filled[np.maximum(np.searchsorted(filled, np.arange(width), side="right") - 1, 0)]]
    low, high = (np.nanmin(columns), np.nanmax(columns)) if known.any() else (0.0, 1.0)
    low = 0.0 if low == high else low
    # At least one eighth, so that the lowest column is visible too.
    share = np.nan_to_num((columns - low) / max(high - low, 1e-12), nan=-1.0)
    levels = np.where(share < 0, 0, np.maximum(1, np.round(share * height * (len(ramp) - 1)))).astype(int)
    lines = []
    for row in reversed(range(height)):
        part = np.clip(levels - row * (len(ramp) - 1), 0, len(ramp) - 1)
        lines.append("".join(ramp[level] for level in part))
    return lines
