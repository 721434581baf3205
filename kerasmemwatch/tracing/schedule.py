"""Schedule of the steps to trace: pure decisions, each with a reason."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["ASKED_FOR", "CHANGED", "Peaks", "TraceBudget", "TraceSchedule", "usual_height"]

# Reason of a step that a user named, which cannot be replaced by a later one.
ASKED_FOR = "asked for"

# Most steps and gaps traced per fit, including its validations, and how many of them are planned. The rest is for the
# step or gap that turns out to hold the peak.
_MAX_PER_FIT, _MAX_PLANNED = 6, 4
# The second step is the first that makes no functions or variables; by the tenth, the input pipeline has settled.
_SECOND, _LATER = 2, 10
_LOOK_EVERY = 64
# Additional checks, for short fits.
_EARLY_LOOKS = (16, 32)
# Relative changes that count: of the peak, and of its height above the bytes in use from step to step. The height shows
# a change of batches in a process that holds much other memory, but varies more with prefetching.
CHANGED = np.array([0.10, 0.25])
_LASTING_STEPS = 8

Peaks = Sequence[tuple[float, float]]


@dataclass
class TraceBudget:
    """Traces spent on a fit, including its validations and gaps; steps that were asked for do not count."""

    spent: int = 0  # number of steps and gaps

    @property
    def has_plans(self) -> bool:
        """Whether a planned step may be traced."""
        return self.spent < _MAX_PLANNED

    @property
    def has_changes(self) -> bool:
        """Whether a step may be traced because the peak changed; one trace is reserved for the highest peak."""
        return self.spent < _MAX_PER_FIT - 1

    @property
    def is_left(self) -> bool:
        """Whether anything may be traced."""
        return self.spent < _MAX_PER_FIT


@dataclass
class TraceSchedule:
    """Decides for one fit, evaluate or predict."""

    wanted: str | Collection[int]  # `"auto"`, or the `step`s to trace
    total_steps: int | None = None  # number of steps, if known
    traced: int = 0
    budget: TraceBudget = field(default_factory=TraceBudget)  # shared by all traces of the fit
    first: bool = False  # whether to trace the first step, too: on a GPU, it holds the peak
    _levels: NDArray[np.float64] | None = None
    _retry: str = ""
    _shows: bool = False

    @property
    def judged_at(self) -> int:
        """The execution before which to compare the steps with those of an equivalent fit."""
        return min(_LATER, self.total_steps or _LATER)

    def show_others(self, *, spared: bool) -> None:
        """Trace no planned steps, because an equivalent fit's are shown.

        Args:
            spared: Whether the current step was to be traced.
        """
        self.traced -= spared
        self.budget.spent -= spared
        self._shows, self._retry = True, ""

    def differ(self, how: str) -> None:
        """Trace the next step after all: the peaks are ``"higher"`` or ``"lower"`` than the other fit's."""
        self._retry = f"the peak was {how} than in a fit that seemed alike"

    def next_look(self, count: int, step: int, executed: int = 1) -> int:
        """Next execution of this stage before which to ask again."""
        if self.wanted != "auto":
            left = [one for one in self.wanted if not isinstance(one, str) and one >= step + executed]
            return count + (min(left) - step) // executed if left else sys.maxsize
        if self._retry:
            return count + 1
        if not self.budget.is_left:
            return sys.maxsize
        planned = (self.judged_at,) if self._shows else self._planned()
        return next((at for at in (*planned, *_EARLY_LOOKS) if at > count), (count // _LOOK_EVERY + 1) * _LOOK_EVERY)

    def plans(self, count: int) -> bool:
        """Whether an execution returned by ``next_look`` will certainly be traced, unless something intervenes."""
        return self.wanted != "auto" or (self.budget.has_plans and count in self._planned())

    def reason(
        self,
        count: int,
        step: int,
        executed: int = 1,
        peaks: Callable[[], Peaks] = tuple,
        higher: Callable[[], str] = str,
    ) -> str:
        """Reason to trace the execution about to begin; ``""`` to not trace it.

        Args:
            peaks: Returns pairs of the peak and its height above the bytes in use afterwards, in bytes, for the newest
                executions, newest last.
            higher: Returns the reason to trace a step of this stage if such a step held the run's peak, else ``""``.
        """
        if self.wanted != "auto":
            asked = any(step <= one < step + executed for one in self.wanted if not isinstance(one, str))
            return ASKED_FOR if asked else ""
        if not self.budget.is_left:
            return ""
        if self._retry:
            found, self._retry = self._retry, ""
        elif count in self._planned() and self.budget.has_plans:
            found = "the first step" if count == 1 else "the second step" if count == _SECOND else "a later step"
        else:
            found = higher()
            if found:
                self._levels = None  # else the same change would have the next step traced, too
            if not found and count not in _EARLY_LOOKS and self.budget.has_changes:
                found = self._change(peaks())
        self.traced += bool(found)
        self.budget.spent += bool(found)
        return found

    def yielded(self, reason: str) -> None:
        """Retry with the next execution, because another profiler was active."""
        self.traced -= 1
        self.budget.spent -= self.wanted == "auto"
        self._retry = reason

    def _planned(self) -> tuple[int, ...]:
        if self._shows:
            return ()
        if self.total_steps == 1:
            return (1,)
        return (1, _SECOND, _LATER) if self.first else (_SECOND, _LATER)

    def _change(self, peaks: Peaks) -> str:
        """Reason if the peak has been different for several steps, for example after a change of batch shape."""
        newest = np.array(peaks[-_LASTING_STEPS:], float).reshape(-1, len(CHANGED))
        if len(newest) < _LASTING_STEPS or np.isnan(newest).any():
            return ""
        before, self._levels = self._levels, np.median(newest, 0)
        if before is None:
            return ""
        higher = (newest > before * (1 + CHANGED)).all(0).any()
        lower = (newest < before * (1 - CHANGED)).all(0).any()
        if not higher and not lower:
            self._levels = before
            return ""
        return f"the peak had been {'higher' if higher else 'lower'} for {_LASTING_STEPS} steps"


def usual_height(peaks: Peaks, count: int) -> float:
    """Median height of the newest steps' peaks above the bytes in use afterwards, in bytes; NaN if unknown."""
    heights = [height for _, height in peaks[-min(_LASTING_STEPS, count) :] if height == height] if count > 0 else []
    return float(np.median(heights)) if heights else float("nan")
