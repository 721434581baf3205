"""When to look for causes of growth: at the ends of epochs, calls and runs, and only if a verdict is suspicious."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

from kerasmemwatch.analysis.leak_words import leak_lines, leak_title, trace_lines
from kerasmemwatch.errors import MemoryGrowthError
from kerasmemwatch.leaks.causes.case import rises_of
from kerasmemwatch.leaks.evidence.collector import Moment
from kerasmemwatch.leaks.evidence.makings import Makings
from kerasmemwatch.leaks.verdicts.find import HEAP, find_growth, is_garbage_of_heap
from kerasmemwatch.records.growth import WAITS, Growth, LeakFinding
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.sampling.cost_share import CostShare
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.watch.search.investigation import Investigation
from kerasmemwatch.watch.search.suspicion import Suspicion

__all__ = ["AT_ENDS", "LeakSearch", "raise_leaks", "suspicious"]

_SUSPICIOUS = ("growing", WAITS)
# Verdicts may take this share of the time.
_VERDICT_SHARE, _END_SHARE = 0.005, 0.01
_FEW_ENDS = 2
_SMALL_PART = 1 / 3
_UNCOUNTED = "Causes of growth outside Python are not found."
_FIRST_STEP, _MORE, _FEWEST_MORE = 60, 1.15, 20
# One for the process: a search makes thousands of short fits, each with a watch of its own.
AT_ENDS = CostShare(_END_SHARE)


class LeakSearch:
    """Looks for causes of growth of one run.

    Attributes:
        due_step: The step from which on it is worth asking again.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.due_step = _FIRST_STEP
        self._recorder = recorder
        self._verdicts = CostShare(_VERDICT_SHARE)
        self._investigation = Investigation()
        self._moment: Moment | None = None
        self._ends = self._searched = 0
        self._is_suspicious = False
        self._list_goes: weakref.finalize[..., Any] | None = None
        self._makings = Makings()
        self.begin()

    def begin(self) -> None:
        """Called before a call or session begins."""
        with self._recorder.faults.guard("leaks", _UNCOUNTED):
            self._makings.open()
            self._makings.mark(self._recorder.step)

    def search(self, frame: FrameType | None, model: Any = None, *, is_end: bool = False) -> None:
        """Ask whether memory grows, and look for the cause if it does.

        Args:
            frame: Innermost frame of the caller's stack; functions of the user's that are running hold objects, too.
            model: The model at work.
            is_end: Whether this may be the last chance.
        """
        with self._recorder.faults.guard("leaks", _UNCOUNTED):
            self._makings.mark(self._recorder.step)
        self._search(frame, model, is_end=is_end)

    def end_with(self, callback_list: Any) -> None:
        """Take the hooks out when a call's list of callbacks goes, as after an exception that nobody reports."""
        known = self._list_goes.peek() if self._list_goes is not None else None
        if known is None or known[0] is not callback_list:
            self._forget_list()
            self._list_goes = weakref.finalize(callback_list, _abandon, weakref.ref(self))
            self._list_goes.atexit = False

    def ended(self) -> None:
        """A call or session has ended. Hooks stay while memory grows, because what is made between calls counts."""
        self._forget_list()
        if not self._is_suspicious:
            self.abandon()

    def abandon(self) -> None:
        """Take the hooks out."""
        with self._recorder.faults.guard("leaks", _UNCOUNTED):
            self._makings.close()

    def _forget_list(self) -> None:
        goes, self._list_goes = self._list_goes, None
        if goes is not None:
            goes.detach()

    def _search(self, frame: FrameType | None, model: Any, *, is_end: bool) -> None:
        recorder = self._recorder
        step = recorder.step
        self._ends += is_end
        self._moment = moment = self._moment or Moment(step)
        # A session ends once, and so do most fits; if there are many, each is nothing special.
        is_last = is_end and self._ends <= _FEW_ENDS and step > self._searched and AT_ENDS.is_due
        is_due = is_last or self._is_due(step, is_end=is_end)
        if recorder.dropped or not recorder.started or not is_due:
            return
        self._searched = step
        with recorder.faults.guard("leaks", "Causes of growth are not looked for."):
            with AT_ENDS.taken() if is_end else self._verdicts.taken():
                samples = recorder.samples()
                every = find_growth(recorder.run, samples)
                growth = suspicious(every)
            self.due_step = max(step + _FEWEST_MORE, int(step * _MORE))
            self._is_suspicious = bool(growth)
            self._makings.count_some_shapes()
            if growth:
                rises = rises_of(samples, growth[0].since_step)
                made = self._makings.since(growth[0].since_step or 0)
                if growth[0].series.startswith("host"):
                    self._makings.count_shapes()
                suspicion = Suspicion(growth, rises, step, f"step {step:,}", made, moment if is_last else None)
                suspicion = replace(suspicion, are_devices_steady=_are_steady(recorder.run, every))
                found = self._investigation.explain(suspicion, recorder, frame, model)
                if found:
                    recorder.replace_leaks(found)

    def _is_due(self, step: int, *, is_end: bool) -> bool:
        # A short run may end before a second verdict is due.
        if is_end and self._investigation.has_counted and not self._investigation.has_looked:
            return AT_ENDS.is_due
        return step >= self.due_step and (AT_ENDS if is_end else self._verdicts).is_due


def _abandon(reference: weakref.ref[LeakSearch]) -> None:
    search = reference()
    if search is not None:
        search.abandon()


def _are_steady(run: RunInfo, growth: Sequence[Growth]) -> bool:
    """Whether every device counts each allocation, and is steady."""
    verdicts = [each.verdict for each in growth if each.series.startswith("device")]
    return set(verdicts) == {"steady"} and all(device.counting == "exact" for device in run.devices)


def raise_leaks(leaks: Sequence[LeakFinding]) -> None:
    """Raise a ``MemoryGrowthError`` for causes of growth; what only waits for Python's collector is none."""
    found = [leak for leak in leaks if leak.cause != "waits_for_collector"]
    if found:
        lines = [line for leak in found for line in (leak_title(leak), *leak_lines(leak), *trace_lines(leak))]
        raise MemoryGrowthError("\n".join(["Memory grows.", *(f"  {line}" for line in lines)]))


def suspicious(growth: Iterable[Growth]) -> tuple[Growth, ...]:
    """The verdicts that ask for an explanation; without any, those that only an explanation would make sure.

    Devices come first, because they are exact, but no CPU that is a small part of the host's.
    """
    growth = tuple(growth)
    found = [each for each in growth if each.verdict in _SUSPICIOUS]
    # Garbage in the heap may be beside other growth, which it does not explain.
    found = [each for each in found if not is_garbage_of_heap(each)] or found
    found = found or [each for each in growth if each.verdict == "too short to tell" and each.since_step is not None]
    host = max((each.bytes_per_step or 0.0 for each in found if each.series.startswith("host")), default=0.0)

    def place(each: Growth) -> tuple[bool, bool, float]:
        rate = each.bytes_per_step or 0.0
        is_part = " CPU:" in each.series and rate < _SMALL_PART * host
        is_exact = not is_part and each.series.startswith("device")
        return not is_exact, not each.series.startswith(HEAP), -rate

    return tuple(sorted(found, key=place))
