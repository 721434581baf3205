"""Which rows of a long run are kept: a pure function that widens its buckets as the run grows.

The first ``2 * DENSE_ROWS`` rows are all kept. After that, the bucket width doubles each time the run's length does,
and a bucket keeps its first row, its last, and the rows with the maximum of a tracked column. A million steps
therefore cost about 140,000 rows (benchmarks/footprint.py), and no peak is ever lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["DENSE_ROWS", "bucket_width", "decimate"]

DENSE_ROWS = 4096


def bucket_width(rows_before: int, dense_rows: int = DENSE_ROWS) -> int:
    """Number of rows a bucket spans once ``rows_before`` rows have been recorded: a power of two."""
    return int(1 << max(0, (rows_before // dense_rows).bit_length() - 1))


def decimate(
    rows: NDArray[np.float64],
    width: int,
    *,
    tracked: Sequence[Sequence[int]],
    sparse: Sequence[int] = (),
    special: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Keep each bucket's first row, last row, maximum of each tracked group, last sparse reading and last special row.

    Args:
        rows: ``float64[num_rows, num_values]``, in order of time; NaN where unknown.
        width: Rows per bucket; 1 keeps all.
        tracked: Groups of value indices; the row with the highest value in a group is kept.
        sparse: Value indices that are mostly unknown; the bucket's last row with a known one is kept.
        special: ``bool[num_rows]``, which rows are unusual; the bucket's last one is kept.

    Returns:
        ``float64[num_kept, num_values]``, in order of time.
    """
    num_rows = len(rows)
    if width <= 1 or num_rows <= 2:
        return rows
    starts = np.arange(0, num_rows, width)
    keep = np.zeros(num_rows, dtype=bool)
    keep[starts] = True
    keep[np.minimum(starts + width, num_rows) - 1] = True
    bucket = np.arange(num_rows) // width
    for group in tracked:
        values = np.fmax.reduce(rows[:, list(group)], axis=1)
        values = np.where(np.isnan(values), -np.inf, values)
        highest = np.maximum.reduceat(values, starts)
        # The first of equal maxima is kept; a bucket without known values adds nothing.
        candidates = np.flatnonzero((values == highest[bucket]) & np.isfinite(values))
        _, first = np.unique(bucket[candidates], return_index=True)
        keep[candidates[first]] = True
    rare = [~np.isnan(rows[:, list(sparse)]).all(axis=1)] if len(sparse) else []
    for chosen in rare if special is None else [*rare, special]:
        known = np.flatnonzero(chosen)
        _, last = np.unique(bucket[known][::-1], return_index=True)
        keep[known[::-1][last]] = True
    return rows[keep]
