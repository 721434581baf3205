"""Checks on the decoded parts of a stored run: each plausible by itself, and their total size bounded.

Without the bound on the total, thousands of chunks and steps below their own limits could each inflate a thousandfold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.errors import RecordingFormatError
from kerasmemwatch.records.rows import Layout, Rows
from kerasmemwatch.records.run import STAGES
from kerasmemwatch.records.samples import Column
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.storage.codecs.row_codec import decode_rows
from kerasmemwatch.units import MIB, format_bytes

__all__ = ["Allowance", "decode_chunk", "possible_rows"]

# Whole numbers beyond this are not exact in a float64; no count of steps comes near it.
_LARGEST = 2.0**53
# Rows of eight idle GPUs compress to 1/90 of their size, steps to 1/40.
_MAX_INFLATION = 128
_FLOOR_BYTES = 32 * MIB
# Bytes of arrays and their copies, for each allocation and each event of a step.
_STEP_NUMBER_BYTES = 80


def _whole(values: Rows, low: float = 0, high: float = _LARGEST) -> NDArray[np.bool_]:
    whole: NDArray[np.bool_] = (values >= low) & (values <= high) & (values == np.trunc(values))
    return whole


# Columns that the recorder itself writes into each row; the others are the probes'.
_POSSIBLE: dict[str, Callable[[Rows], NDArray[np.bool_]]] = {
    "step": lambda values: _whole(values, low=1),
    "train_step": _whole,
    "epoch": lambda values: np.isnan(values) | _whole(values),
    "stage": lambda values: _whole(values, high=len(STAGES) - 1),
    "time_s": lambda values: (values >= 0) & (values <= _LARGEST),
}


def possible_rows(layout: Layout, rows: Rows) -> NDArray[np.bool_]:
    """Whether each row is plausible, ``bool[num_rows]``: step, stage and time are never unknown."""
    possible = np.full(len(rows), any(column.name == "step" for column in layout))
    start = 0
    for column in layout:
        check = _POSSIBLE.get(column.name)
        if check is not None:
            possible &= check(rows[:, start : start + column.size]).all(axis=1)
        start += column.size
    return possible


def decode_chunk(payload: bytes) -> tuple[Layout, Rows]:
    """Decode a chunk of a run's event file.

    Raises:
        RecordingFormatError: If it is damaged, or one of its rows is impossible.
        RecordingVersionError: If a newer version wrote it.
    """
    layout, rows = decode_rows(payload)
    possible = possible_rows(layout, rows)
    if not possible.all():
        raise RecordingFormatError(
            f"Expected rows with a step, a stage and a time. Received: {len(rows)} rows, {np.sum(~possible)} of them "
            "without."
        )
    return layout, rows


class Allowance:
    """Limit on the decoded size of one run: a fixed amount, plus more for each stored byte."""

    def __init__(self) -> None:
        self._most = _FLOOR_BYTES
        self._steps_bytes = self._num_rows = 0
        self._columns: dict[str, Column] = {}

    def stored(self, num_bytes: int) -> None:
        """Raise the limit for ``num_bytes`` of stored data."""
        self._most += _MAX_INFLATION * num_bytes

    def rows(self, layout: Layout, rows: Rows) -> None:
        """Count rows, which will be joined to the earlier ones: each row then has the columns of all.

        Raises:
            RecordingFormatError: If the limit is exceeded.
        """
        columns = dict(self._columns)
        for column in layout:
            if column.name not in columns or columns[column.name].size < column.size:
                columns[column.name] = column
        num_rows = self._num_rows + len(rows)
        self._check(8 * num_rows * sum(column.size for column in columns.values()) + self._steps_bytes)
        self._num_rows, self._columns = num_rows, columns

    def step(self, step: TracedStep) -> None:
        """Count a traced step. Raises ``RecordingFormatError`` if the limit is exceeded."""
        size = 0
        for timeline in step.timelines.values():
            size += _STEP_NUMBER_BYTES * (timeline.num_allocations + timeline.num_events)
            size += sum(map(len, (*timeline.owners, *timeline.classes, *timeline.ops)))
        rows_bytes = 8 * self._num_rows * sum(column.size for column in self._columns.values())
        self._check(rows_bytes + self._steps_bytes + size)
        self._steps_bytes += size

    def _check(self, size: int) -> None:
        if size > self._most:
            raise RecordingFormatError(
                f"Expected at most {format_bytes(self._most)} from a run's files of this size. "
                f"Received: {format_bytes(size)}."
            )
