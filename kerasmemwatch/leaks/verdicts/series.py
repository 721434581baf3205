"""A series of bytes at the ends of steps, with what the steps belong to."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.leaks.verdicts.filling import Filling, Shuffle

__all__ = ["Kind", "Series"]

Kind = Literal["device", "host", "heap"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Series:
    """One series of a run, in order of time; only ``steps`` and ``values`` are required.

    Attributes:
        steps: ``int[num_rows]``, the run's count of steps of any stage.
        values: ``float[num_rows]``, bytes at the end of the step; NaN if unknown.
        name: Name of the samples' column, with the device.
        label: What it is, in words.
        kind: ``"device"`` for an allocator's bytes in use, ``"host"`` for what the operating system counts (RSS, USS),
            which is rounded and never quite still, so that its floors are higher; ``"heap"`` for what the C library has
            handed out, which is read now and then, and which nothing is told from without a cause.
        stages: ``str[num_rows]``, ``"train"``, ``"test"`` or ``"predict"``; ``None`` if all train.
        train_steps: ``int[num_rows]``, training steps so far; ``None`` if they are ``steps``.
        epochs: ``float[num_rows]``, the epoch; NaN where there is none.
        calls: ``float[num_rows]``, number of the outermost fit, evaluate or predict; 0 outside of them, NaN if unknown.
        models: ``float[num_rows]``, how many models were trained so far; NaN where unknown.
        collections: ``float[num_rows]``, how often Python's full collection has run; NaN where unknown.
        ended: ``bool[num_rows]``, false for a step that an exception ended.
        limit: Bytes that the series may not pass, if known.
        caches: Bytes that each cache of the dataset holds once it is full, ``None`` if unknown: it may be filling.
            ``None`` if it is unknown whether there are any.
        filling: What is known to fill, with what it holds.
        shuffle: The dataset's shuffle buffer, if it stays full over several epochs.
        is_partial: Whether only large allocations are counted.
    """

    steps: NDArray[Any]
    values: Floats
    name: str = ""
    label: str = "memory"
    kind: Kind = "device"
    stages: NDArray[Any] | None = None
    train_steps: NDArray[Any] | None = None
    epochs: Floats | None = None
    calls: Floats | None = None
    models: Floats | None = None
    collections: Floats | None = None
    ended: NDArray[Any] | None = None
    limit: int | None = None
    caches: tuple[int | None, ...] | None = None
    filling: Filling | None = None
    shuffle: Shuffle | None = None
    is_partial: bool = False

    def until(self, num_rows: int) -> Series:
        """The same with so many rows only; what is known to fill and to be cached stays."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        cut: dict[str, Any] = {name: one[:num_rows] for name, one in values.items() if isinstance(one, np.ndarray)}
        return replace(self, **cut)

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """The rows to judge: steps that ended with a known value, of training or, without it, of the usual stage."""
        known = ~np.isnan(self.values)
        if self.ended is not None:
            known &= self.ended != 0
        if self.stages is not None and np.any(known):
            trains = known & (self.stages == "train")
            if np.any(trains):
                return np.flatnonzero(trains)
            stages, counts = np.unique(self.stages[known], return_counts=True)
            known &= self.stages == stages[np.argmax(counts)]
        return np.flatnonzero(known)

    @cached_property
    def alike(self) -> NDArray[np.intp]:
        """All steps of the stage that is judged, also those without a value."""
        if self.stages is None or not len(self.rows):
            return np.arange(len(self.values))
        return np.flatnonzero(self.stages == self.stages[self.rows[0]])

    @property
    def cache_bytes(self) -> int | None:
        """What all caches hold once they are full; ``None`` if unknown."""
        return None if self.caches is None or None in self.caches else sum(size or 0 for size in self.caches)

    @property
    def newest(self) -> tuple[float, int] | None:
        """The last known value and its step."""
        known = np.flatnonzero(~np.isnan(self.values))
        return (float(self.values[known[-1]]), int(self.steps[known[-1]])) if len(known) else None
