"""One step of a user's own loop as a context, and how a loop over steps was left."""

from __future__ import annotations

import dis
import gc
import inspect
import sys
from collections.abc import Collection, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any, Protocol

from kerasmemwatch.probes.base import UNKNOWN

__all__ = ["SessionStep", "StepTaker", "consumers", "is_end_of_data"]

# A frame that drops an iterator by ``break`` or ``return`` is at one of these instructions; none of them can raise.
_LEAVES = frozenset({"POP_TOP", "POP_ITER"})
# A generator being closed is at one of _YIELDS; a loop whose generator ends by itself is at one of _NEXT.
_YIELDS = frozenset({"YIELD_VALUE", "RESUME"})
_NEXT = frozenset({"FOR_ITER", "SEND"})


class StepTaker(Protocol):
    """The owner of steps."""

    def _enter(self, step: SessionStep, batch: Any) -> None: ...

    def _leave(self, step: SessionStep, error: BaseException | None, ended: float = 1) -> None: ...


class SessionStep:
    """The context of a step; one object for all steps of an iterator.

    Args:
        consumers: The code that loops over the iterator; empty for a step that is a ``with`` statement.
    """

    __slots__ = ("_consumers", "_session", "batch")

    def __init__(self, session: StepTaker, consumers: Collection[CodeType] = ()) -> None:
        self._session, self._consumers = session, consumers
        self.batch: Any = None  # the batch, if available; taken by the next step

    def __enter__(self) -> None:
        batch, self.batch = self.batch, None
        self._session._enter(self, batch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:
            self._session._leave(self, error, 1 if error is None else 0)
            return
        # Leaving a loop closes its generator, however the loop is left.
        loop = _loop(sys._getframe(1).f_back, self._consumers)
        ended = _ended_where_closed(loop, self._consumers)
        if ended == 0:
            error = (loop and _left_by(loop)) or error
        self._session._leave(self, error if ended == 0 else None, ended)


def consumers(frame: FrameType | None) -> frozenset[CodeType]:
    """The code that takes items from a generator: wrapping generators (a progress bar's) and the looping function."""
    found = set()
    while frame is not None:
        found.add(frame.f_code)
        if not frame.f_code.co_flags & inspect.CO_GENERATOR:
            break
        frame = frame.f_back
    return frozenset(found)


def is_end_of_data(error: BaseException) -> bool:
    """Whether an exception only means that there are no more batches."""
    return isinstance(error, StopIteration) or type(error).__name__ == "OutOfRangeError"


def _loop(frame: FrameType | None, consumers: Collection[CodeType]) -> FrameType | None:
    """The frame of the loop itself, which closes generators that wrap each other."""
    while frame is not None and frame.f_code in consumers and _instruction(frame) in _YIELDS:
        frame = frame.f_back
    return frame


def _left_by(loop: FrameType) -> BaseException | None:
    """The exception that is leaving a loop, even if the same function catches it; ``None`` if it is not found.

    Python hides it while it closes the generator. Its traceback has the loop's frame, outermost, but before Python 3.12
    the exception has only the part of it that was there when it was last caught or raised anew.
    """
    objects = gc.get_objects()
    traces = [each for each in objects if type(each) is TracebackType and each.tb_frame is loop]
    parts = {id(part) for each in traces if each.tb_lasti == loop.f_lasti for part in _chain(each)}
    errors = [each for each in objects if isinstance(each, BaseException) and id(each.__traceback__) in parts]
    # Those of earlier loops of the function have been told of.
    fresh = [each for each in errors if not getattr(each, "__notes__", ())]
    return max(fresh, key=lambda each: len(list(_chain(each.__traceback__))), default=None)


def _chain(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _ended_where_closed(frame: FrameType | None, consumers: Collection[CodeType]) -> float:
    """Whether a loop had ended its step: 1 if it was left by ``break`` or ``return``, 0 by an exception, else NaN.

    Python tells a generator that it is closed, but not why. The loop's own frame still shows where it was left.

    Args:
        consumers: The code that takes items from it. A close in other code only means that a variable went away.
    """
    if frame is None or frame.f_code not in consumers or _instruction(frame) in _NEXT:
        return UNKNOWN
    return 1 if _instruction(frame) in _LEAVES else 0


def _instruction(frame: FrameType) -> str:
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] if frame.f_lasti >= 0 else ""
