"""One watch for everything a process does with Keras, added wherever there is none."""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any

from kerasmemwatch.compat.keras import LIST_MODEL

if TYPE_CHECKING:
    from kerasmemwatch.watch.memory_watch import MemoryWatch

__all__ = ["SharedWatch"]

_logger = logging.getLogger(__name__)


class SharedWatch:
    """The watch of this process, created when first needed; a forked child creates its own.

    Nothing is added inside a watched call, because that call's figures include it.

    Args:
        loop_files: Source files whose Python frames on a stack mean that a Keras loop is running there.
    """

    def __init__(self, log_dir: str, loop_files: set[str]) -> None:
        self._log_dir = log_dir
        self._loop_files = loop_files
        self._failed = False
        self._pid = -1

    def join(self, callback_list: Any, caller: FrameType) -> AbstractContextManager[None]:
        """Insert the watch first into a list that begins, unless the list or an enclosing call has a watch.

        Args:
            caller: The Python frame that begins it; its callers are the enclosing calls.
        """
        try:
            self._heed_fork()
            # Not `.model`: on JAX, each access copies the training state back.
            model = callback_list.model if LIST_MODEL.is_missing else LIST_MODEL.of(callback_list)
            if model and not self._has_watch(callback_list.callbacks) and not self._inside_watched(caller.f_back):
                watch = self._get()
                watch.set_params(callback_list.params)
                watch.set_model(model)
                callback_list.callbacks.insert(0, watch)
        except Exception as error:
            self._fail(error)
        return nullcontext()

    def batch(self, model: Any, caller: FrameType, *, stage: str) -> AbstractContextManager[None]:
        """Return a context that records one call of ``train_on_batch`` or the like."""
        try:
            self._heed_fork()
            return nullcontext() if self._inside_watched(caller) else self._batch(self._get(), model, stage)
        except Exception as error:
            self._fail(error)
            return nullcontext()

    def _heed_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._watch: MemoryWatch | None = None
            self._seen: weakref.WeakSet[MemoryWatch] = weakref.WeakSet()

    def _get(self) -> MemoryWatch:
        if self._watch is None:
            from kerasmemwatch.watch.memory_watch import MemoryWatch

            self._watch = MemoryWatch(self._log_dir, verbose=0)
            self._seen.add(self._watch)
        return self._watch

    @contextmanager
    def _batch(self, watch: MemoryWatch, model: Any, stage: str) -> Iterator[None]:
        if watch.active:
            # Left over from a fit that raised; new parameters signal to the watch that something else begins.
            watch.set_params(watch.params)
        with watch.batch(model, stage):
            yield

    def _has_watch(self, callbacks: Iterable[Any]) -> bool:
        from kerasmemwatch.watch.memory_watch import MemoryWatch

        watches = [callback for callback in _flatten(callbacks) if isinstance(callback, MemoryWatch)]
        self._seen.update(watches)
        return bool(watches)

    def _inside_watched(self, frame: FrameType | None) -> bool:
        # Keras does not tell callbacks that a fit has raised, so an active watch may be a leftover: check the stacks.
        return any(watch.active for watch in self._seen) and any(
            outer.f_code.co_filename in self._loop_files for outer in _frames_around(frame)
        )

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            _logger.warning("Training is not recorded.", exc_info=error)
        self._failed = True


def _flatten(callbacks: Iterable[Any]) -> Iterator[Any]:
    for callback in callbacks:
        yield callback
        yield from _flatten(getattr(callback, "callbacks", None) or ())


def _frames_around(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield Python frames from ``frame`` outwards, then those of the other threads, where batch generators run."""
    others = sys._current_frames()
    others.pop(threading.get_ident(), None)
    for start in (frame, *others.values()):
        step = start
        while step is not None:
            yield step
            step = step.f_back
