"""Tracer of gaps between steps: captures allocations there, and the callback that made each of them.

A gap contains no part of a step, so layers have no hooks: allocations made during a callback's turn belong to that
callback, whichever layers it calls.
"""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import ExitStack
from typing import Any

from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.events.profiler_capture import Capture
from kerasmemwatch.attribution.hooks.callback_turns import CallbackTurns
from kerasmemwatch.errors import MemWatchError
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.owners import BASE, Frame
from kerasmemwatch.tracing.captures import Captures
from kerasmemwatch.tracing.traced_before import TRACED

__all__ = ["GapTracer"]

# TensorFlow keeps everything it records in memory, and a callback may train another model.
_MAX_GAP_S = 30.0
# The callback that was running when the capture began is unknown.
_SOME_CALLBACK = Frame("callbacks", "", "between")


class LongGapError(MemWatchError):
    """A gap takes too long to capture."""


class GapTracer:
    """Captures gaps of one watch.

    Attributes:
        is_open: Whether a gap is being captured.
    """

    def __init__(self, captures: Captures, faults: Faults) -> None:
        self._captures, self._faults = captures, faults
        self._turns: CallbackTurns | None = None
        self._exits = ExitStack()
        self._captured: CapturedStep | None = None
        self._capture: Capture | None = None

    @property
    def is_open(self) -> bool:
        """Whether a gap is being captured."""
        return self._captured is not None

    def prepare(self, callback_list: Any) -> None:
        """Start noting the turns of a list's callbacks with its next call; ``drop`` or ``end`` undoes that."""
        self.drop()
        if callback_list is None:
            return
        with self._faults.guard("trace", "Gaps between steps are not traced."):
            turns = CallbackTurns(callback_list, self._turn, self.drop)
            turns.install()
            self._turns = turns
            # An exception between the list's calls goes unreported, but the list is garbage once the fit has ended.
            ends = weakref.finalize(callback_list, _drop, weakref.ref(self), weakref.ref(self._turns))
            ends.atexit = False

    def begin(self, stage: str, reason: str, *, within_call: bool = False) -> bool:
        """Begin to capture if the callbacks' turns are noted; return whether a capture began.

        Args:
            within_call: Whether the list is in a call that began before ``prepare``: the current turn is then unknown.
        """
        begun = False
        guard = self._faults.guard("trace", "This gap between steps is not traced.")
        with TRACED.taken(), guard, ExitStack() as exits:
            if self._turns is not None and self._captures.claim(exits):
                captured = CapturedStep(stage, "eager", reason, [], after=0)
                captured.log = [(time.time_ns(), _SOME_CALLBACK if within_call else BASE)]
                capture = self._captures.begin(captured, (), exits, is_fit=True)
                begun = capture is not None
            if begun:
                limit = threading.Timer(_MAX_GAP_S, self._took_long, [capture])
                limit.daemon = True
                exits.callback(limit.cancel)
                limit.start()
                self._exits, self._captured, self._capture = exits.pop_all(), captured, capture
        if not begun:
            self.drop()
            self._captures.busy = False  # else the step before it would be traced again
        return begun

    def end(self, step: int, after: int, epoch: int | None) -> bool:
        """End the gap; return whether there is something to analyse.

        Args:
            step: The sample that covers it.
            after: The ``step`` that ended before it.
        """
        captured, capture = self._captured, self._capture
        with TRACED.taken(), self._faults.guard("trace", "This gap between steps is not traced."):
            try:
                if captured is not None and capture is not None and self._captures.end(captured, capture):
                    captured.step, captured.after, captured.epoch = step, after, epoch
                    self._captures.complete(captured)
                    return True
            finally:
                self.drop()
                self._captures.busy = False
        return False

    def drop(self) -> None:
        """Undo everything, and discard the current capture."""
        turns, self._turns = self._turns, None
        exits, self._exits = self._exits, ExitStack()
        self._captured = self._capture = None
        with self._faults.guard("trace", "This gap between steps is not traced."), exits:
            if turns is not None:
                turns.remove()

    def _turn(self, callback: Any) -> None:
        captured = self._captured
        if captured is not None:
            frame = BASE if callback is None else Frame(f"callback {type(callback).__name__}", "", "between")
            captured.log.append((time.time_ns(), frame))

    def _took_long(self, capture: Capture) -> None:
        """Discard the capture from a timer's thread; everything else is undone when the gap ends."""
        capture.discard()
        error = LongGapError(f"a gap between two steps took longer than {_MAX_GAP_S:.0f} s")
        self._faults.remark("long gap", error, "It was not traced, because its events would take too much memory.")


def _drop(reference: weakref.ref[GapTracer], turns: weakref.ref[CallbackTurns]) -> None:
    tracer = reference()
    if tracer is not None and turns() is not None and tracer._turns is turns():
        tracer.drop()
