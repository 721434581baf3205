"""Growth from call to call of this process, which no single run shows: each short fit may have a watch of its own."""

from __future__ import annotations

import os
from dataclasses import replace
from types import FrameType
from typing import Any

from kerasmemwatch.leaks.causes.case import rises_of
from kerasmemwatch.leaks.evidence.makings import Makings
from kerasmemwatch.leaks.verdicts.calls import call_growth, call_samples
from kerasmemwatch.records.growth import Growth, LeakFinding
from kerasmemwatch.sampling.cost_share import CostShare
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.watch.search.investigation import Investigation
from kerasmemwatch.watch.search.leak_search import suspicious
from kerasmemwatch.watch.search.process_calls import ProcessCalls
from kerasmemwatch.watch.search.suspicion import Suspicion

__all__ = ["CALL_SEARCH", "CallSearch"]

# Verdicts may take this share of the time, beside those on runs: there is one search for all of them.
_VERDICT_SHARE = 0.005
_FIRST_CALL, _MORE, _FEWEST_MORE = 13, 1.15, 3
# What was found of growth is kept until so many times as many calls have ended without it: RSS stands still for some
# calls while they fill what a look left free.
_PAUSE = 1.5
# A run of more calls is judged by itself.
_FEW_CALLS = 4


class CallSearch:
    """Asks at the ends of calls whether memory grows from one to the next, and looks for the cause if it does."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._process = os.getpid()
        self._calls = ProcessCalls()
        self._investigation, self._makings = Investigation(), Makings()
        self._verdicts = CostShare(_VERDICT_SHARE)
        self._due, self._grew_at = _FIRST_CALL, 0
        self._growth: tuple[Growth, ...] = ()
        self._leaks: tuple[LeakFinding, ...] = ()

    def begin(self, stage: str, model: Any, recorder: Recorder) -> None:
        """Called as a fit, evaluate or predict begins that is part of no other."""
        with recorder.faults.guard("calls", "Growth from call to call is not seen."):
            if os.getpid() != self._process:  # a forked child
                self.forget()
            self._calls.begin(stage, model, recorder)

    def end(self, recorder: Recorder, frame: FrameType | None, model: Any) -> None:
        """Called as it ends, after its own run was judged.

        Args:
            frame: Innermost frame of the caller's stack.
        """
        with recorder.faults.guard("calls", "Growth from call to call is not seen."):
            if not self._calls.end(recorder) or recorder.dropped or recorder.num_calls >= _FEW_CALLS:
                return
            if recorder.run.leaks and not recorder.run.call_growth:
                return  # its own rows have told
            if self._calls.ended >= self._due and self._verdicts.is_due:
                self._search(recorder, frame, model)
            if self._growth:
                recorder.tell_call_growth(self._growth, self._leaks)

    def _search(self, recorder: Recorder, frame: FrameType | None, model: Any) -> None:
        ended = self._calls.ended
        self._due = max(ended + _FEWEST_MORE, int(ended * _MORE))
        calls, is_larger = tuple(self._calls.calls), self._calls.is_larger
        with self._verdicts.taken():
            growth = suspicious(call_growth(recorder.run, calls, is_larger_next=is_larger))
        if not growth:
            self._growth = ()
            if ended >= _PAUSE * self._grew_at:
                self._leaks = ()
                self._investigation.end()
                self._makings.close()
            return
        self._grew_at = ended
        # Counted from the first suspicion on: hooks are not to stay in a process that does not grow.
        self._makings.open()
        samples = call_samples(calls, is_larger_next=is_larger)
        # Python may have collected long before what waits now was made: a collection of our own tells.
        rises = replace(rises_of(samples, None), collections=0.0)
        step = int(samples["step"][-1])
        self._makings.mark(step)
        after, made = f"{ended:,} calls of this process", self._makings.since(0)
        suspicion = Suspicion(growth, rises, step, after, made, models=self._calls.models)
        found = self._investigation.explain(suspicion, recorder, frame, model)
        # Models that were dropped wait for Python's collector: nothing is said before that is ruled out.
        if found or self._leaks or self._investigation.has_collected:
            self._growth, self._leaks = growth, found or self._leaks


# One for the process.
CALL_SEARCH = CallSearch()
