"""Forecast of when a limit will be met: by the verdict on growth, and by the pace of the last steps. Pure."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median

import numpy as np

from kerasmemwatch.leaks.verdicts.filling import FEWEST_SHUFFLED, CacheReadings, Shuffle
from kerasmemwatch.leaks.verdicts.judge import judge
from kerasmemwatch.leaks.verdicts.series import Kind, Series
from kerasmemwatch.records.growth import Growth, Unit
from kerasmemwatch.records.run import STAGES

__all__ = ["Ahead", "LimitForecast"]

# Allocations of later callbacks only show at the end of the next step, so it acts two steps early.
_NEAR_STEPS = 2
# Steps whose pace counts: at least half of the last 16 raised the highest value, or each of the last 4 did.
_WINDOW, _FEWEST = 16, 4
# What has passed since the last look: so many rows or units at least, and a share of what there is, up to a bound.
_LOOK_ROWS, _MOST_LOOK_ROWS = 20, 500
_LOOK_UNITS, _MOST_LOOK_UNITS = 1, 50
_LOOK_SHARE = 8
# Beyond this, older rows are thinned out.
_MOST_ROWS = 4096
_COLUMNS = ("step", "train_step", "in_use", "stage", "epoch", "call")
_CALLS = ("fit", "evaluate", "predict", "model")


@dataclass(frozen=True)
class Ahead:
    """How far ahead a limit is.

    Attributes:
        count: So many units; 0 if it was met.
        unit: Steps, or what explains the growth better.
        rate: Bytes a unit.
        is_growth: Whether the verdict says that it grows; otherwise this is only the pace of the last steps.
        is_near: Whether to act now.
    """

    count: int
    unit: Unit = "step"
    rate: float = 0.0
    is_growth: bool = False
    is_near: bool = True


class LimitForecast:
    """Follows one series towards a limit, through all fits, evaluates and predicts.

    Args:
        kind: What counts the bytes: the ``"device"``'s allocator, or the ``"host"``.
        limit_bytes: The limit, which may be changed.

    Attributes:
        caches: What the dataset's caches hold, if they are in this memory; by ``steps``.
        steps: How many steps there were so far.

    Example:
        >>> forecast = LimitForecast(limit_bytes=1600)
        >>> for used in (1000, 1100, 1200, 1300, 1400):
        ...     forecast.add(used, used)
        >>> forecast.ahead
        Ahead(count=2, unit='step', rate=100.0, is_growth=False, is_near=True)
    """

    def __init__(self, kind: Kind = "device", limit_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self.caches = CacheReadings()
        self._shuffle: Shuffle | None = None
        self._pass_since: int | None = None
        self.steps = 0
        self._kind: Kind = kind
        self._growth: Growth | None = None
        self._rows = array("d")
        self._recent: deque[float] = deque(maxlen=_WINDOW + 1)
        self._train_steps = self._units = self._call = 0
        self._look_at_step, self._look_at_unit = _LOOK_ROWS, _LOOK_UNITS

    def begin_call(self) -> None:
        """A fit, evaluate or predict begins that is not within another."""
        self._call += 1
        if self.highest_bytes >= self.limit_bytes:  # which is no measure of the call that begins
            self._recent.clear()

    def begin_pass(self, cache_sizes: Sequence[int | None], *, is_one_pass: bool) -> None:
        """A pass over a dataset begins that is in this memory.

        Args:
            cache_sizes: Bytes that each of its caches holds once it is full; ``None`` for an unknown size.
            is_one_pass: Whether it may go on over several epochs.
        """
        self.caches.begin(self.steps, cache_sizes)
        self._shuffle, self._pass_since = None, self.steps if is_one_pass else None

    @property
    def is_shuffle_due(self) -> bool:
        """Whether it is worth reading what the pipeline's shuffle buffer holds."""
        return self._pass_since is not None and self.steps >= self._pass_since + FEWEST_SHUFFLED

    def note_shuffle(self, found: tuple[int, float] | None) -> None:
        """Note the shuffle buffer of the pass: what it holds, and in how many steps as much passes."""
        if found is not None and self._pass_since is not None:
            self._shuffle = Shuffle(*found, self._pass_since)
        self._pass_since = None

    def add(self, in_use_bytes: float, peak_bytes: float, *, stage: str = "train", epoch: float = math.nan) -> None:
        """Add one more step; it is ignored if its bytes are unknown.

        Args:
            in_use_bytes: At its end: what grows.
            peak_bytes: The highest within it: what meets the limit.
            stage: One of ``STAGES``.
            epoch: Number of its epoch; NaN without one.
        """
        if peak_bytes != peak_bytes:
            return
        self.steps += 1
        self._train_steps += stage == "train"
        self._rows.extend((self.steps, self._train_steps, in_use_bytes, STAGES.index(stage), epoch, self._call))
        self._recent.append(peak_bytes)
        if self.steps >= self._look_at_step:
            self._look()

    def end_unit(self) -> None:
        """An epoch ends, or a call that ``begin_call`` began."""
        self._units += 1
        if self._units >= self._look_at_unit:
            self._look()

    @property
    def highest_bytes(self) -> float:
        """The highest peak of the last steps; 0 before the first."""
        return max(self._recent, default=0.0)

    @property
    def ahead(self) -> Ahead | None:
        """How far ahead the limit is; ``None`` if nothing grows towards it.

        A few steps are no growth: their pace counts only where it meets the limit within two more of them.
        """
        left = self.limit_bytes - self.highest_bytes
        if not self._recent or left <= 0:
            return Ahead(0) if self._recent else None
        growing = self._growing(left)
        if growing is not None and growing.is_near:
            self._look()  # it may have ended since
            growing = self._growing(left)
        if growing is not None and growing.is_near:
            return growing
        # Rises of the highest value add up to no more than this.
        if _NEAR_STEPS * (self.highest_bytes - self._recent[0]) >= left:
            pace = _pace(self._recent)
            if pace > 0 and left <= _NEAR_STEPS * pace:
                return Ahead(math.ceil(left / pace), rate=pace)
        return growing

    def _growing(self, left: float) -> Ahead | None:
        growth = self._growth
        if growth is None or growth.verdict != "growing" or growth.rate is None or growth.rate <= 0:
            return None
        count = math.ceil(left / growth.rate)
        # Where a call adds much at once, the next one would already meet the limit.
        return Ahead(count, growth.unit, growth.rate, True, growth.unit in _CALLS and count <= 1)

    def _look(self) -> None:
        self._look_at_step = self.steps + _interval(self.steps, _LOOK_ROWS, _MOST_LOOK_ROWS)
        self._look_at_unit = self._units + _interval(self._units, _LOOK_UNITS, _MOST_LOOK_UNITS)
        if len(self._rows) > _MOST_ROWS * len(_COLUMNS):
            self._rows = array("d", _thinned(_table(self._rows)).tobytes())
        rows = _table(self._rows)
        steps, train_steps, values, stages, epochs, calls = rows.T
        self._growth = judge(
            Series(
                steps,
                values,
                kind=self._kind,
                stages=np.array(STAGES)[stages.astype(int)],
                train_steps=train_steps,
                epochs=epochs,
                calls=calls,
                filling=self.caches.filling(steps),
                shuffle=self._shuffle,
                limit=self.limit_bytes,
            )
        )


def _interval(count: int, least: int, most: int) -> int:
    return max(least, min(count // _LOOK_SHARE, most))


def _pace(recent: Iterable[float]) -> float:
    """Bytes a step by which the last steps rise; 0 if they do not.

    A step's peak jitters without any growth, as the allocator places chunks differently, so the highest so far is
    followed. A single jump is no pace.
    """
    raises = [later - earlier for earlier, later in pairwise(accumulate(recent, max))]
    if len(raises) == _WINDOW and sum(raised > 0 for raised in raises) >= _WINDOW / 2:
        return sum(raises) / _WINDOW
    return median(raises[-_FEWEST:]) if len(raises) >= _FEWEST and min(raises[-_FEWEST:]) > 0 else 0.0


def _table(rows: array[float]) -> np.ndarray:
    return np.array(rows).reshape(-1, len(_COLUMNS))


def _thinned(rows: np.ndarray) -> np.ndarray:
    """Half of the older rows, with the last one of each epoch and call, where memory is stillest."""
    older, newer = rows[: -_MOST_ROWS // 2], rows[-_MOST_ROWS // 2 :]
    units = np.nan_to_num(older[:, 4:], nan=-1.0)
    is_last = np.append(np.any(units[1:] != units[:-1], axis=1), True)
    kept = older[is_last | (np.arange(len(older)) % 2 == 0)]
    return np.concatenate([kept if len(kept) < _MOST_ROWS * 3 // 8 else kept[::2], newer])
