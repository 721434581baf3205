"""The session that a tape belongs to: the given one, the one that is recording, or one of its own.

A tape used by itself marks the steps. In eager mode a step lasts from one outermost tape to the next. In a
``tf.function`` a tape is only seen while the function is traced; a step is then a call of the outermost function.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from kerasmemwatch.attribution.hooks.patching import unseen
from kerasmemwatch.compat.tensorflow import FUNCTION_CALL, NO_TAPE_RECORDS
from kerasmemwatch.recording import Recording
from kerasmemwatch.switches import disabled
from kerasmemwatch.watch.base import Watcher, current
from kerasmemwatch.watch.memory_session import MemorySession
from kerasmemwatch.watch.tapes.first_call import AwaitedCall

__all__ = ["session_of_tape"]

_WHERE, _CONSEQUENCE, _CALL = "step", FUNCTION_CALL.lost, FUNCTION_CALL.attribute


class _OwnSession(MemorySession):
    """The session of tapes that have no other; in memory, for one process.

    An eager step ends when the next one begins. The last one is not known, so a step also ends when the recording is
    read or another watch begins. Steps belong to one thread: the first that uses a tape, and another once that has
    ended.
    """

    def __init__(self) -> None:
        # It has no epochs and no end, at which causes are looked for, so no hook has to count for them.
        super().__init__(log_dir=None, detect_leaks=False)
        self.pid = os.getpid()
        self.nothing_records: Callable[[], bool] = NO_TAPE_RECORDS.get()
        self._thread = threading.get_ident()
        self._eager_step: AbstractContextManager[None] | None = None
        self._awaited: AwaitedCall | None = None
        self._call_step: AbstractContextManager[None] = nullcontext()
        self.__enter__()

    @property
    def recording(self) -> Recording:
        """The recording so far."""
        if self._thread == threading.get_ident():
            self._end_eager_step()
        return super().recording

    def eager_step(self) -> None:
        """Called when an outermost tape begins: the previous step has ended."""
        if self.steps_are_here():
            self._end_eager_step()
            self._end_awaiting()
            step = self.step()
            step.__enter__()
            self._eager_step = step

    def begin_call(self) -> bool:
        """Begin a step if a function's call is one, and return whether it is; never raises."""
        try:
            if not _calls_are_steps(self):
                return False
            self._end_eager_step()
            self._end_awaiting()
            self._call_step = self.step()
            self._call_step.__enter__()
            return True
        except Exception as error:
            self._faults.report(_WHERE, error, _CONSEQUENCE)
            return False

    def end_call(self, error: BaseException | None) -> None:
        """End the step of a call; never raises."""
        try:
            self._call_step.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except Exception as fault:
            self._faults.report(_WHERE, fault, _CONSEQUENCE)

    def steps_are_here(self) -> bool:
        """Whether a step may begin on this thread."""
        this = threading.get_ident()
        if self._thread == this:
            return True
        if self._thread not in sys._current_frames():
            self._thread = this
            return True
        return False

    def _tape_left(self, error: BaseException) -> None:
        """End the step, unless another tape is around this one."""
        with self.guard():
            if self._eager_step is not None and self.steps_are_here() and self.nothing_records():
                self._end_eager_step(error)

    def _end_eager_step(self, error: BaseException | None = None) -> None:
        step, self._eager_step = self._eager_step, None
        if step is not None:
            step.__exit__(type(error) if error else None, error, None)

    def await_first_call(self) -> None:
        """Record a function that is being traced with a tape in it, until the end of its first call."""
        with self.guard():
            if self._awaited is not None and self._awaited.is_open:
                self._awaited.expect()
            elif self._tracing is not None and self._running is None and self.steps_are_here():
                self._awaited = AwaitedCall(self._tracing.around_function(), self.guard)

    def _end_awaiting(self) -> None:
        if self._awaited is not None:
            self._awaited.close()

    def guard(self) -> AbstractContextManager[Any]:
        """A context that reports a fault once."""
        return self._faults.guard(_WHERE, _CONSEQUENCE)

    def _give_way(self) -> None:
        with self.guard():
            self._end_eager_step()
            self._end_awaiting()


class _RecordedCall:
    """Replaces a ``tf.function``'s ``_call`` and records each call as a step.

    It does not keep the function alive.
    """

    def __init__(self, function: Any) -> None:
        self._function = weakref.ref(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A copied function has the call of the original, which may be gone; the caller is then the copy.
        function = self._function() or sys._getframe(1).f_locals["self"]
        with unseen:
            own, error = _own, None
            if own is None or not own.begin_call():
                return getattr(type(function), _CALL)(function, *args, **kwargs)
            try:
                return getattr(type(function), _CALL)(function, *args, **kwargs)
            except BaseException as raised:
                error = raised
                raise
            finally:
                own.end_call(error)


_own: _OwnSession | None = None
_making_own = threading.Lock()


def session_of_tape(given: Watcher | None) -> Watcher | None:
    """The session of a tape that begins recording; ``None`` if every watch is turned off."""
    if given is not None and given is not _own:
        return given
    recording = current()
    if recording is not None and recording is not _own:
        return recording
    if disabled():
        return None
    own = _own_session()
    _begin_step(own)
    return own


def _own_session() -> _OwnSession:
    global _own
    with _making_own:
        if _own is None or _own.pid != os.getpid():
            with tf.init_scope():  # a function may be being traced
                _own = _OwnSession()
        return _own


def _begin_step(own: _OwnSession) -> None:
    if tf.executing_eagerly():
        if own.nothing_records():
            own.eager_step()
        return
    function = _outermost_function()
    # Takes effect from the function's next call on.
    if function is not None:
        own.await_first_call()
        if _CALL not in vars(function):
            setattr(function, _CALL, _RecordedCall(function))


def _calls_are_steps(own: _OwnSession) -> bool:
    """Whether a function's call is a step of its own; false within another step or another watch's recording."""
    return (
        tf.executing_eagerly()  # else the caller is a function that is being traced
        and own.nothing_records()  # else a tape records the call
        and own.steps_are_here()
        and current() is own
    )


def _outermost_function() -> Any:
    """The outermost ``tf.function`` being called on this thread's stack; ``None`` if there is none."""
    code = FUNCTION_CALL.get().__code__
    found, frame = None, sys._getframe()
    while frame is not None:
        if frame.f_code is code:
            found = frame.f_locals.get("self")
        frame = frame.f_back  # type: ignore[assignment]
    return found
