"""Which steps to trace. Pure: it is told what happens and answers with a reason, or with nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["ASKED_FOR", "CHANGED", "Peaks", "TraceBudget", "TraceSchedule", "usual_height"]

# The reason of a step that a user named: it cannot be put off to another.
ASKED_FOR = "asked for"

# All that is traced of a fit, with its validations and the gaps between steps; and what of it is planned, so that
# something is left for the step or gap that turns out to hold the peak.
_MOST_A_FIT, _MOST_PLANNED = 6, 4
# The second step is the first that makes no functions and no variables; by the tenth the input pipeline has settled.
_SECOND, _LATER = 2, 10
_LOOK_EVERY = 64
# A short fit is looked at a few times, too.
_EARLY_LOOKS = (16, 32)
# How much another the peak is, and how much another its height above what stays in use from step to step: that tells
# of other batches in a process that holds much besides, and varies more with what was prefetched.
CHANGED = np.array([0.10, 0.25])
_LASTING_STEPS = 8

Peaks = Sequence[tuple[float, float]]


@dataclass
class TraceBudget:
    """What was traced of a fit, its validations and the gaps between steps included; not of steps that are asked for.

    Attributes:
        spent: How many steps and gaps.
    """

    spent: int = 0

    @property
    def has_plans(self) -> bool:
        """Whether a step that is merely planned may be traced."""
        return self.spent < _MOST_PLANNED

    @property
    def has_changes(self) -> bool:
        """Whether a step may be traced that is merely another; one is left for what holds the peak."""
        return self.spent < _MOST_A_FIT - 1

    @property
    def is_left(self) -> bool:
        """Whether anything may be traced."""
        return self.spent < _MOST_A_FIT


@dataclass
class TraceSchedule:
    """Decides for one fit, evaluate or predict.

    Args:
        wanted: ``"auto"``, or the ``step``s to trace.
        total_steps: How many steps there will be, if known.
        budget: Shared with what else is traced of the fit.
        first: Whether the first step is traced, too: on a GPU the peak is there.

    Example:
        >>> schedule = TraceSchedule("auto", total_steps=100)
        >>> [count for count in range(1, 101) if schedule.reason(count, step=count)]
        [2, 10]
    """

    wanted: str | Collection[int]
    total_steps: int | None = None
    traced: int = 0
    budget: TraceBudget = field(default_factory=TraceBudget)
    first: bool = False
    _levels: NDArray[np.float64] | None = None
    _retry: str = ""
    _shows: bool = False

    @property
    def judged_at(self) -> int:
        """The execution before which it is judged whether steps are like those that another fit had traced."""
        return min(_LATER, self.total_steps or _LATER)

    def show_others(self, *, spared: bool) -> None:
        """Trace none of the planned steps, as those are shown that a fit that is alike had traced.

        Args:
            spared: Whether the step that runs now was to be traced.
        """
        self.traced -= spared
        self.budget.spent -= spared
        self._shows, self._retry = True, ""

    def differ(self, how: str) -> None:
        """Trace the next step after all: the peaks are ``"higher"`` or ``"lower"`` than those of the other fit."""
        self._retry = f"the peak was {how} than in a fit that seemed alike"

    def next_look(self, count: int, step: int, executed: int = 1) -> int:
        """The next execution of this stage before which to ask again.

        Args:
            count: The execution that begins now, 1-based.
            step: The ``step`` of its first batch.
            executed: How many batches an execution runs at most.
        """
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
        """Whether an execution that ``next_look`` named is certain to be traced, unless something else comes between.

        Args:
            count: The execution, 1-based.
        """
        return self.wanted != "auto" or (self.budget.has_plans and count in self._planned())

    def reason(
        self,
        count: int,
        step: int,
        executed: int = 1,
        peaks: Callable[[], Peaks] = tuple,
        higher: Callable[[], str] = str,
    ) -> str:
        """Why to trace the execution that begins now; ``""`` if it is not to be traced.

        Args:
            count: Its 1-based number within the stage.
            step: The ``step`` of its first batch.
            executed: How many batches it runs.
            peaks: Returns, of the newest executions, the newest last: the peak in bytes, and how far it was above what
                then stayed in use.
            higher: Returns why a step of this stage is to be traced as one like it held the run's peak, else ``""``.
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
                self._levels = None  # the same change is no reason to trace the step after it, too
            if not found and count not in _EARLY_LOOKS and self.budget.has_changes:
                found = self._change(peaks())
        self.traced += bool(found)
        self.budget.spent += bool(found)
        return found

    def yielded(self, reason: str) -> None:
        """Somebody else's profiler was active: try again with the next execution."""
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
        """Whether the peak has been another for several steps, as with a batch of another shape."""
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
    """How far the peaks of the newest steps were above what then stayed in use, in bytes; NaN if unknown.

    Args:
        peaks: Of the newest executions.
        count: How many of them to regard at most, if there are not enough.
    """
    heights = [height for _, height in peaks[-min(_LASTING_STEPS, count) :] if height == height] if count > 0 else []
    return float(np.median(heights)) if heights else float("nan")
