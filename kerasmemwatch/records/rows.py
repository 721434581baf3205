"""Rows of float64 as a recorder writes them, and their conversion to the samples that callers read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.records.run import STAGES
from kerasmemwatch.records.samples import Column, Samples

__all__ = [
    "ALWAYS",
    "CALL",
    "COUNTERS",
    "ENDED",
    "INT64_BOUND",
    "MODEL",
    "Layout",
    "Rows",
    "as_ended",
    "column_indices",
    "to_samples",
]

# Parts of fewer rows are joined before they are made into columns.
_SHORT = 256
# No counter reaches it.
INT64_BOUND = 2.0**63

Rows = NDArray[np.float64]
Layout = tuple[Column, ...]

# Whether a step ended; 0 if an exception aborted it. Recordings older than this column have only steps that ended.
ENDED = Column("ended")
# Number of the outermost fit, evaluate or predict, 0 in a loop of the user's own; and how many models they have run.
# Each is counted from 1 by the process that records. Memory may grow by either. Older recordings don't have them.
CALL, MODEL = Column("call"), Column("model")
# What is counted after each batch because it tells why memory grows.
COUNTERS = ("gc_full_collections", "live_functions", "registered_gradients", "py_functions")
# Columns that callers may rely on. Without a readable allocator, the device columns have width 0.
ALWAYS = (
    Column("step"),
    Column("train_step"),
    Column("epoch", integer=False),
    Column("stage"),
    Column("time_s", integer=False),
    ENDED,
    Column("device_in_use_bytes", 0),
    Column("device_peak_bytes", 0),
    Column("device_between_peak_bytes", 0),
    Column("host_rss_bytes"),
)


def to_samples(parts: Iterable[tuple[Layout, Rows]]) -> Samples:
    """Join chunks of rows into columns: sorted by step, each step once, ``stage`` as text.

    Chunks of different layouts (a run resumed on another machine) are aligned by name; missing values are unknown.
    """
    parts = list(_merged(part for part in parts if len(part[1])))
    plain = {column.name: column for column in ALWAYS if column.width is None}
    widths = dict(plain)
    for layout, _ in parts:
        for column in layout:
            known = widths.get(column.name)
            if known is None or (known.size < column.size and column.name not in plain):
                widths[column.name] = column
    for column in ALWAYS:
        widths.setdefault(column.name, column)
    _, first = np.unique(_joined(parts, widths["step"]), return_index=True)
    # Column by column: a second copy of all rows would be our largest array.
    typed = {name: _typed(_joined(parts, column)[first], column) for name, column in widths.items()}
    codes = np.nan_to_num(_joined(parts, widths["stage"])[first], nan=0).astype(int).clip(0, len(STAGES) - 1)
    typed["stage"] = np.asarray(STAGES)[codes]
    typed["ended"] = as_ended(typed["ended"])
    return Samples(typed)


def as_ended(values: NDArray[Any]) -> NDArray[Any]:
    """Convert to ``bool`` if every value is known, else leave as float64 with NaN."""
    return values != 0 if np.isfinite(values).all() else values


def column_indices(layout: Layout, names: Sequence[str]) -> dict[str, list[int]]:
    """Positions of each column's values in a row, by name; columns that are missing or empty are left out."""
    groups, start = {}, 0
    for column in layout:
        if column.name in names and column.size:
            groups[column.name] = list(range(start, start + column.size))
        start += column.size
    return groups


def _merged(parts: Iterable[tuple[Layout, Rows]]) -> Iterator[tuple[Layout, Rows]]:
    """Join short parts of one layout that follow each other: each fit of many may have left one."""
    for (layout, is_short), group in itertools.groupby(parts, key=lambda part: (part[0], len(part[1]) < _SHORT)):
        if is_short:
            yield layout, np.concatenate([rows for _, rows in group])
        else:
            yield from group


def _joined(parts: Sequence[tuple[Layout, Rows]], column: Column) -> Rows:
    blocks = []
    for layout, rows in parts:
        is_missing = all(other.name != column.name for other in layout)
        block = np.full((len(rows), column.size), 1.0 if is_missing and column == ENDED else np.nan)
        start = 0
        for other in layout:
            if other.name == column.name:
                size = min(other.size, column.size)
                block[:, :size] = rows[:, start : start + size]
            start += other.size
        blocks.append(block)
    joined = np.concatenate(blocks) if blocks else np.empty((0, column.size))
    return joined[:, 0] if column.width is None else joined


def _typed(values: Rows, column: Column) -> NDArray[Any]:
    """Convert to integers where all are known. Values that no counter reaches (infinity, 2**63) are unknown."""
    values = np.where(np.abs(values) < INT64_BOUND, values, np.nan)
    return values.astype(np.int64) if column.integer and np.isfinite(values).all() else values
