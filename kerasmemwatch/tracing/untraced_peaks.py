"""Search for steps and gaps that peak above everything traced, so that the next of their kind is traced."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.steps.shown_step import HIGHER, ROUNDED_BYTES
from kerasmemwatch.records.run import STAGES
from kerasmemwatch.tracing.recent_rows import Windows
from kerasmemwatch.units import format_bytes

__all__ = ["Chance", "UntracedPeaks"]


class Chance(NamedTuple):
    """A kind of step, or of gap between steps, that may occur again."""

    # `"step"` for a step. For a gap, what precedes it: `"batch"` if another batch of the same loop follows,
    # `"loop"` after the loop of an epoch or validation, `"begin"` before the first step of a fit.
    begins: str
    stage: str  # stage of the step, or of the step before the gap; for a fit's first gap, of the step after it


@dataclass
class UntracedPeaks:
    """The highest traced peak, and the untraced steps and gaps that have exceeded it."""

    # The highest peak of all traced steps and gaps, from the samples; NaN if none was traced.
    traced_bytes: float = float("nan")
    seen: int = 0  # the `step` of the newest row examined
    _stage: int = -1
    _epoch: float = float("nan")
    _wanted: dict[Chance, tuple[float, str]] = field(default_factory=dict)

    def see(self, rows: Windows, traced: Set[float], firsts: Set[int], fits: Set[int]) -> None:
        """Examine the executions since the last call.

        Args:
            firsts: The ``step`` before each stage that made its functions in its first step, which never occurs again.
        """
        new = rows.step > self.seen
        step, stage, epoch = rows.step[new], rows.stage[new], rows.epoch[new]
        within, between = rows.within[new], rows.between[new]
        if not len(step):
            return
        before = np.append(self.seen, step[:-1])
        stage_before, epoch_before = np.append(self._stage, stage[:-1]), np.append(self._epoch, epoch[:-1])
        is_traced, after_traced = (np.isin(numbers, list(traced)) for numbers in (step, before + 0.5))
        self.traced_bytes = _highest(self.traced_bytes, within[is_traced], between[after_traced])
        begins_stage, begins_fit = (_contain(before, step, steps) for steps in (firsts, fits))
        in_loop = (stage == stage_before) & ((epoch == epoch_before) | np.isnan(epoch))
        self.seen, self._stage, self._epoch = int(step[-1]), int(stage[-1]), float(epoch[-1])
        for index in np.flatnonzero(self._is_higher(within) & ~is_traced & ~begins_stage).tolist():
            self._want(Chance("step", STAGES[stage[index]]), float(within[index]), f"step {step[index]:,}")
        for index in np.flatnonzero(self._is_higher(between) & ~after_traced).tolist():
            begins = "begin" if begins_fit[index] else "batch" if in_loop[index] else "loop"
            of = stage[index] if begins == "begin" or stage_before[index] < 0 else stage_before[index]
            words = f"the gap before step {before[index] + 1:,}"
            self._want(Chance(begins, STAGES[of]), float(between[index]), words)
        self._wanted = {chance: one for chance, one in self._wanted.items() if self._is_higher(np.array(one[0]))}

    def reason(self, chance: Chance) -> str:
        """Reason to trace the next of a kind; ``""`` unless that kind holds the highest peak."""
        size, words = self._wanted.get(chance, (0.0, ""))
        if not words or np.isnan(self.traced_bytes) or size < max(other for other, _ in self._wanted.values()):
            return ""
        return f"{words} had peaked at {format_bytes(size)}, above the traced peak of {format_bytes(self.traced_bytes)}"

    def take(self, chance: Chance) -> None:
        """Mark a kind as traced: only another peak of that kind makes it wanted again."""
        self._wanted.pop(chance, None)

    def _want(self, chance: Chance, size: float, words: str) -> None:
        if size > self._wanted.get(chance, (0.0, ""))[0]:
            self._wanted[chance] = size, words

    def _is_higher(self, sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
        if self.traced_bytes != self.traced_bytes:
            return ~np.isnan(sizes)  # rows before the first trace are judged once there is one
        higher: NDArray[np.bool_] = sizes > self.traced_bytes * (1 + HIGHER) + ROUNDED_BYTES
        return higher


def _highest(size: float, *others: NDArray[np.float64]) -> float:
    """The highest of the known values."""
    return float(np.fmax.reduce(np.concatenate([[size], *others])))


def _contain(before: NDArray[np.int64], step: NDArray[np.int64], begun: Set[int]) -> NDArray[np.bool_]:
    """Whether each execution is the first after one of these steps."""
    marks = np.array(sorted(begun), np.int64)
    found: NDArray[np.bool_] = np.searchsorted(marks, before) < np.searchsorted(marks, step)
    return found
