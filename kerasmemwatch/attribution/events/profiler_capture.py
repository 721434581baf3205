"""Capture of a step's allocator events with TensorFlow's profiler, in this process, leaving no file.

A process can have one profiler session. Any other code that has one, or asks for one, has precedence.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from kerasmemwatch.attribution.events.capture_folder import CaptureFolder
from kerasmemwatch.compat.tensorflow import CONTEXT, IN_CLUSTER, PROFILER_OF_V2, PROFILER_SESSION
from kerasmemwatch.errors import MemWatchError

__all__ = ["Capture", "ProfilerBusyError", "ProfilerUnsafeError"]


class _Number:
    """An integer without a truth value.

    From TensorFlow 2.20 on, the native session treats any value with one as a ``bool``, including Python's integers,
    and then records with its default options.
    """

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


# By default it records at host tracer level 2, the lowest with the allocator's events. The tracer of a GPU's kernels
# would add an unused plane, and a process can have only one such tracer: nsys has precedence.
_OPTIONS = {"device_tracer_level": _Number(0)}
_keep_for_good = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", ctypes.pythonapi))


class ProfilerBusyError(MemWatchError):
    """Another profiler session is active."""


class ProfilerUnsafeError(MemWatchError):
    """A profiler session could end the process."""


class Capture:
    """One profiler session, from ``start`` to ``stop``."""

    def __init__(self) -> None:
        self.preempted = False  # whether other code asked for a session in the meantime, and got it
        self._session: Any = None
        self._session_class: Any = None

    def start(self) -> None:
        """Start recording.

        Raises:
            ProfilerBusyError: If another session is active.
            ProfilerUnsafeError: If this process's operations communicate with another process: with two workers under
                ``tf.distribute.MultiWorkerMirroredStrategy``, sessions of TensorFlow's profiler, even without us,
                occasionally corrupted the heap.
            MissingNameError: If this TensorFlow has another profiler.
        """
        if _spans_processes():
            raise ProfilerUnsafeError("several processes train together, and TensorFlow's profiler may crash them")

        session_class = PROFILER_SESSION.get()
        # During another capture, a method of it replaces the class.
        if PROFILER_OF_V2.get() is not None or not isinstance(session_class, type):
            raise ProfilerBusyError("another profiler session is active")
        self._folder, self._pid = CaptureFolder(), os.getpid()
        try:
            session = _started(session_class, self._folder.path)
        except Exception as error:
            self._folder.remove()
            if type(error).__name__ == "AlreadyExistsError":
                raise ProfilerBusyError("another profiler session is active") from error
            raise
        self._session, self._session_class = session, session_class
        PROFILER_SESSION.set(self._give_way)

    def stop(self) -> bytes | None:
        """End the session.

        Returns:
            A serialized ``XSpace``; ``None`` if other code took over in the meantime.
        """
        session = self._end()
        if session is None:
            return None
        try:
            session.export_to_tb()
            found = sorted(Path(self._folder.path).rglob("*.xplane.pb"))
            return found[0].read_bytes() if found else None
        finally:
            self._folder.remove()

    def discard(self) -> None:
        """End the session, if it has not ended yet, and drop its data."""
        if self._end() is not None:
            self._folder.remove()

    def _end(self) -> Any:
        """Return and forget the session; ``None`` in a forked process as well, which does not own it."""
        session, self._session = self._session, None
        if self._session_class is not None:
            PROFILER_SESSION.set(self._session_class)
            self._session_class = None
        if session is not None and os.getpid() != self._pid:
            self._folder.leave()
            # Its destructor would wait for locks that threads of the parent held at the fork, and no thread releases
            # them here: this reference is never given back.
            _keep_for_good(session)
            return None
        return session

    def _give_way(self) -> Any:
        """End the session, and return a new one to the code that asks for it; stands in for the class."""
        session_class = self._session_class or PROFILER_SESSION.get()
        self.preempted = self.preempted or self._session is not None
        self.discard()
        return session_class()


def _started(session_class: Any, path: str) -> Any:
    session = session_class()
    try:
        session.start(path, _OPTIONS)
    except (TypeError, ValueError, RuntimeError):  # another TensorFlow, whose options differ
        session = session_class()
        session.start(path, {})
    return session


def _spans_processes() -> bool:
    """Whether collective operations of this process take part in a cluster."""
    context = CONTEXT.get()()
    IN_CLUSTER.owner()  # raises if it is missing, because the answer would be unknown
    return IN_CLUSTER.of(context) is not None
