"""The rows of a series that are judged, with the epochs, calls and models they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.leaks.verdicts.series import Series

__all__ = ["JudgedRows", "ends_of", "judged_rows", "with_full_pipeline"]

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

# Shares of an epoch in which its input pipeline fills, and in which the pipeline drains.
_FILLS, _DRAINS = 0.05, 0.25


@dataclass(frozen=True, eq=False)
class JudgedRows:
    """Steps of one stage that ended, in order of time.

    Attributes:
        rows: ``int[num_rows]``, positions in the series.
        x: ``float[num_rows]``, training steps so far, or steps so far if nothing trained.
        y: ``float[num_rows]``, bytes.
        epochs: ``int[num_rows]``, how many passes over the data began before: epochs of all fits, or evaluates or
            predicts; ``None`` without any.
        calls: The same of fits, evaluates or predicts; ``None`` if unknown.
        models: The same of models.
        stage: Their stage.
        is_sparse: Whether most steps of that stage have no value.
    """

    rows: Indices
    x: Floats
    y: Floats
    epochs: Indices | None
    calls: Indices | None
    models: Indices | None
    stage: str = "train"
    is_sparse: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def epoch_ends(self) -> Indices:
        """The last row of each epoch, as ``ends_of`` has them."""
        return ends_of(self.epochs, self.x)

    @property
    def first_epoch(self) -> int:
        """How many rows the first epoch has; 0 without epochs."""
        return 0 if self.epochs is None else int(np.searchsorted(self.epochs, 1))

    @property
    def is_in_first_epoch(self) -> bool:
        """Whether no second epoch has begun."""
        return self.epochs is not None and self.first_epoch == len(self)


def judged_rows(series: Series) -> JudgedRows:
    """Choose the rows to judge: those of training or, without it, of the stage that has most rows."""
    rows = series.rows
    steps = series.steps if series.train_steps is None else series.train_steps
    x = steps[rows].astype(float)
    if not len(x) or x[-1] == x[0]:  # nothing trained
        x = series.steps[rows].astype(float)
    calls, models = _counted(series, series.calls), _counted(series, series.models)
    epochs = None
    if series.epochs is not None and len(rows) and not np.isnan(series.epochs[rows[0]]):
        epochs = _counted(series, series.epochs, series.calls)
    stage = "train" if series.stages is None or not len(rows) else str(series.stages[rows[0]])
    if stage != "train" and (series.calls is None or np.all(series.calls[rows] != 0)):
        # Where calls were not counted, it may be one.
        epochs = np.zeros(len(rows), np.intp) if calls is None else calls
    is_sparse = 2 * len(rows) < len(series.alike)
    return JudgedRows(rows, x, series.values[rows], epochs, calls, models, stage, is_sparse)


def _counted(series: Series, values: Floats | None, beside: Floats | None = None) -> Indices | None:
    """How often a number, or another one beside it, has changed up to each row, also in rows without a value."""
    rows, every = series.rows, series.alike
    if values is None or not len(rows) or np.isnan(values[rows]).all():
        return None
    changes = _changes(values[every])
    if beside is not None and not np.isnan(beside[rows]).all():
        changes |= _changes(beside[every])
    numbers: Indices = np.concatenate([[0], np.cumsum(changes)])[np.searchsorted(every, rows)].astype(np.intp)
    numbers -= numbers[0]
    return numbers


def _changes(values: Floats) -> NDArray[np.bool_]:
    changes: NDArray[np.bool_] = values[1:] != values[:-1]
    return changes


def ends_of(numbers: Indices | None, x: Floats) -> Indices:
    """The last row of each epoch or call; the newest counts only if it is as long as the one before."""
    if numbers is None or not len(numbers):
        return np.empty(0, np.intp)
    ends = np.flatnonzero(np.diff(numbers))
    if not len(ends):
        return ends
    last = len(numbers) - 1
    before = x[ends[-1]] - (x[ends[-2]] if len(ends) > 1 else 0.0)
    return np.append(ends, last) if x[last] - x[ends[-1]] >= before else ends


def with_full_pipeline(rows: JudgedRows, at: Indices) -> Indices:
    """The rows of ``at`` at which the input pipeline is full: neither the first ones of an epoch nor the last ones."""
    if rows.epochs is None or rows.is_in_first_epoch:
        return at
    is_first = rows.epochs[1:] != rows.epochs[:-1]
    starts = np.append(0, np.flatnonzero(is_first) + 1)
    # The newest epoch may not have ended. It is taken to be as long as the longest one.
    stops = np.append(starts[1:], starts[-1] + np.max(np.diff(starts)))
    number = np.append(0, np.cumsum(is_first))[at]
    begins, ends = starts[number], stops[number]
    lengths = ends - begins
    full: Indices = at[(at - begins >= _FILLS * lengths) & (ends - at > _DRAINS * lengths)]
    return full
