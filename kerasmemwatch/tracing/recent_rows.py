"""Peaks in the newest rows of a running fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.records.rows import Layout, Rows, column_indices

__all__ = ["Windows", "recent_peaks", "windows"]

_PLACES = ("step", "stage", "epoch")
_WINDOWS = ("device_peak_bytes", "device_between_peak_bytes")


@dataclass(frozen=True, eq=False)
class Windows:
    """Consecutive executions, each with the gap before it."""

    step: NDArray[np.int64]  # `int64[num_rows]`, the execution's last step
    stage: NDArray[np.int64]  # `int64[num_rows]`, index into `STAGES`
    epoch: NDArray[np.float64]  # `float64[num_rows]`, NaN outside training
    within: NDArray[np.float64]  # `float64[num_rows]`, its peak over devices, in bytes; NaN where unknown
    between: NDArray[np.float64]  # `float64[num_rows]`, the same for the gap


def recent_peaks(layout: Layout, rows: Rows) -> list[tuple[float, float]]:
    """Device peak of each row, and its height above the bytes in use afterwards.

    Both in bytes, the maximum over devices; NaN where unknown. Empty if the rows contain no device.
    """
    columns = column_indices(layout, ("device_peak_bytes", "device_in_use_bytes"))
    if len(columns) < 2:
        return []
    peaks, in_use = rows[:, columns["device_peak_bytes"]], rows[:, columns["device_in_use_bytes"]]
    return list(zip(np.fmax.reduce(peaks, 1).tolist(), np.fmax.reduce(peaks - in_use, 1).tolist(), strict=True))


def windows(layout: Layout, rows: Rows) -> Windows | None:
    """Convert rows to windows; ``None`` if they contain no device."""
    columns = column_indices(layout, (*_PLACES, *_WINDOWS))
    if any(name not in columns for name in _WINDOWS):
        return None
    step, stage, epoch = (rows[:, columns[name]][:, 0] for name in _PLACES)
    within, between = (np.fmax.reduce(rows[:, columns[name]], 1) for name in _WINDOWS)
    return Windows(step.astype(np.int64), stage.astype(np.int64), epoch, within, between)
