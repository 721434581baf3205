"""The rows of a recording as arrays, one per column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Column", "Samples"]


@dataclass(frozen=True)
class Column:
    """One column of a recording's rows.

    Attributes:
        name: For example ``"host_rss_bytes"``; ends in its unit.
        width: Number of values per row; ``None`` for a plain column, ``k`` for ``[num_samples, k]``.
        integer: Whether the values are whole numbers (bytes, steps).
    """

    name: str
    width: int | None = None
    integer: bool = True

    @property
    def size(self) -> int:
        """Number of float64 values in a row."""
        return 1 if self.width is None else self.width


@dataclass(frozen=True, eq=False)
class Samples(Mapping[str, np.ndarray]):
    """The rows of a recording, by column: ``samples["host_rss_bytes"]``.

    Every array has one entry per row. Whole-number columns are int64 where complete and float64 with NaN where
    a value is unknown; ``stage`` is a string array; device columns are ``[num_samples, num_devices]``. ``ended`` is a
    bool array, False for a step that an exception aborted: its row holds what was read at that moment.
    """

    columns: Mapping[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self.columns[name]
        except KeyError:
            raise KeyError(f"Expected one of {sorted(self.columns)}. Received: {name!r}.") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        """Number of columns, as a mapping; the number of rows is ``num_samples``."""
        return len(self.columns)

    def __repr__(self) -> str:
        return f"<Samples: {self.num_samples:,} rows of {', '.join(self.columns)}>"

    @property
    def num_samples(self) -> int:
        """Number of rows."""
        return len(self.columns["step"])

    def highest(self, name: str) -> float | None:
        """The highest value of a column; ``None`` if it has none that is known."""
        values = self.columns.get(name, np.empty(0)).astype(float)
        return float(np.fmax.reduce(values, axis=None)) if not np.isnan(values).all() else None

    def newest(self, name: str, index: int | None = None) -> tuple[float, int] | None:
        """The last known value of a column and its step; ``None`` if it has none that is known.

        Args:
            name: The column.
            index: Of a column with several values a row, which.
        """
        values = self.columns.get(name)
        if values is None or (index is not None and (values.ndim < 2 or index >= values.shape[1])):
            return None
        own = (values if index is None else values[:, index]).astype(float)
        known = np.flatnonzero(~np.isnan(own))
        return (float(own[known[-1]]), int(self.columns["step"][known[-1]])) if len(known) else None
