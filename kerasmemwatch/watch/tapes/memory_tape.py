"""``MemoryTape``: a ``tf.GradientTape`` that knows what it holds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import tensorflow as tf

from kerasmemwatch.attribution.hooks.patching import unseen
from kerasmemwatch.attribution.live import persistent_tapes
from kerasmemwatch.compat.tensorflow import TAPE, TAPE_RECORDS, TAPES
from kerasmemwatch.errors import InvalidTypeError, ProbeUnavailableError
from kerasmemwatch.faults import Faults
from kerasmemwatch.probes.allocators import Allocator, allocators
from kerasmemwatch.watch.base import Watcher
from kerasmemwatch.watch.tapes.implicit_session import session_of_tape
from kerasmemwatch.watch.tapes.tape_memory import TapeMemory, tensor_bytes, traced_memory

__all__ = ["MemoryTape", "TapeMemory"]

_faults = Faults()


def _as_in_tensorflow(method: Callable[..., Any]) -> Callable[..., Any]:
    """Give a method the signature, documentation and module of ``tf.GradientTape``'s.

    The module tells AutoGraph not to convert the method. ``do_not_convert`` would also turn AutoGraph off in the
    gradient functions that it calls.
    """
    return functools.wraps(getattr(tf.GradientTape, method.__name__))(method)


class MemoryTape(tf.GradientTape):
    """A ``tf.GradientTape`` that also reports what the forward pass left for the backward pass.

    It computes what ``tf.GradientTape`` computes, adds no operation to a graph and causes no retracing. It belongs to
    a ``MemorySession`` or a ``MemoryWatch``. Used without one, it records in memory by itself: a step is then a call of
    the outermost ``tf.function`` around it or, in eager mode, lasts from one tape to the next.

    Args:
        persistent: Whether ``gradient`` may be called several times. Such a tape keeps everything that the forward
            pass left until it is deleted.
        watch_accessed_variables: Whether trainable variables are watched automatically.
        session: The ``MemorySession`` (or ``MemoryWatch``) that records its steps; by default the one that is
            recording.

    Raises:
        InvalidTypeError: If ``session`` is neither.

    Example:
        >>> import tensorflow as tf
        >>> x = tf.Variable(tf.ones((1000,)))
        >>> with MemoryTape() as tape:
        ...     y = tf.reduce_sum(tf.exp(x))
        >>> gradient = tape.gradient(y, x)
        >>> tape.memory.gradients_bytes
        4000
    """

    def __init__(
        self, persistent: bool = False, watch_accessed_variables: bool = True, *, session: Watcher | None = None
    ) -> None:
        if session is not None and not isinstance(session, Watcher):
            raise InvalidTypeError(
                "Expected session to be a MemorySession or a MemoryWatch. "
                f"Received: session={session!r} (of type {type(session).__name__})."
            )
        super().__init__(persistent, watch_accessed_variables)
        self._session = session
        self._allocator: Allocator | None = None
        self._begin_bytes: int | None = None
        self._measured: TapeMemory | None = None

    @property
    def session(self) -> Watcher | None:
        """The session or watch that records this tape's steps; ``None`` before it is used, or if all are turned off."""
        return self._session

    @property
    def memory(self) -> TapeMemory | None:
        """What the tape held when it was last used, as far as measured; ``None`` before."""
        if self._measured is not None:
            return self._measured
        with _faults.guard("tape", "What the tape holds is unknown."):
            return traced_memory(self._session._so_far().steps) if self._session is not None else None
        return None

    # -- tf.GradientTape's own methods -------------------------------------------------------------------------

    @_as_in_tensorflow
    def __enter__(self) -> MemoryTape:
        with _faults.guard("tape", "What the tape holds is unknown."):
            self._begin()
        with unseen:
            super().__enter__()
        return self

    @_as_in_tensorflow
    def __exit__(self, typ: Any, value: Any, traceback: Any) -> None:
        super().__exit__(typ, value, traceback)
        with _faults.guard("tape", "What the tape holds is unknown."):
            self._forward_ended()
        if value is not None and self._session is not None:
            self._session._tape_left(value)

    @_as_in_tensorflow
    def gradient(self, *args: Any, **kwargs: Any) -> Any:
        with unseen, self._left_by_exceptions():
            return self._differentiated(super().gradient(*args, **kwargs))

    @_as_in_tensorflow
    def jacobian(self, *args: Any, **kwargs: Any) -> Any:
        with unseen, self._left_by_exceptions():
            return self._differentiated(super().jacobian(*args, **kwargs))

    @_as_in_tensorflow
    def batch_jacobian(self, *args: Any, **kwargs: Any) -> Any:
        with unseen, self._left_by_exceptions():
            return self._differentiated(super().batch_jacobian(*args, **kwargs))

    # -- inside ------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """A copy belongs to whatever is recording when it is used."""
        return {**self.__dict__, "_session": None, "_allocator": None, "_begin_bytes": None}

    def _begin(self) -> None:
        self._session = session_of_tape(self._session)
        _tell_missing(self._session)
        if tf.executing_eagerly():
            self._allocator = _allocator()
            self._begin_bytes = self._allocator.read()[0] if self._allocator else None

    @contextmanager
    def _left_by_exceptions(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if self._session is not None:
                self._session._tape_left(error)
            raise

    def _forward_ended(self) -> None:
        """Read how far the bytes in use have grown since the tape began."""
        if self._allocator is None or self._begin_bytes is None or not tf.executing_eagerly():
            return
        saved = max(0, self._allocator.read()[0] - self._begin_bytes)
        self._measured = TapeMemory("allocator", _step(self._session), saved)
        if TAPE.of(self) is not None:
            persistent_tapes.keep(self, saved, lambda tape: TAPE.of(tape) is not None and not TAPE_RECORDS.of(tape))

    def _differentiated(self, gradients: Any) -> Any:
        """Note how large the gradients are, and the peak so far."""
        if self._measured is not None and not TAPE_RECORDS.of(self, True) and tf.executing_eagerly():
            with _faults.guard("tape", "What the tape holds is unknown."):
                sizes = [tensor_bytes(gradient) for gradient in tf.nest.flatten(gradients)]
                complete = all(size is not None for size in sizes)
                self._measured = replace(
                    self._measured,
                    gradients_bytes=sum(size or 0 for size in sizes) if complete else None,
                    peak_bytes=_peak(self._session, self._allocator),
                )
        return gradients


def _tell_missing(session: Watcher | None) -> None:
    """Note in the recording, once, what tapes lack."""
    recorder = session._recorder if session is not None else None
    if recorder is not None and any(name.is_missing for name in TAPES):
        recorder.faults.tell_missing(TAPES)


def _step(session: Watcher | None) -> int | None:
    """The ``step`` in progress."""
    recorder = session._recorder if session is not None else None
    return recorder.step + 1 if recorder is not None else None


def _peak(session: Watcher | None, allocator: Allocator | None) -> int | None:
    """The peak since the step began; unknown if the allocator's peak is not reset at the start of a step."""
    if session is None or allocator is None or not session.active or not session.resets_each_step:
        return None
    return allocator.read()[1]


@functools.cache
def _allocator() -> Allocator | None:
    """The allocator of the default device of eager operations, if it counts exactly; looked up once."""
    try:
        first = allocators()[0]
    except ProbeUnavailableError:
        return None
    return first if first.info.counting == "exact" else None
