"""Mark in a run's directory that SIGTERM ended its process: the traceback of that moment.

A process that SIGTERM ends runs no Python code any more. ``faulthandler`` writes the traceback within the signal's
handler, and then the signal does what it would have done without us. It is used only where SIGTERM ends the process.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["MARKS", "MARK_NAME", "SignalMarks"]

MARK_NAME = "sigterm.txt"
_SIGNALS = re.compile(r"^Sig(?:Ign|Cgt):\s*([0-9a-f]+)$", re.MULTILINE)


class SignalMarks:
    """The directories of this process's runs; the newest gets the mark.

    Python is given one descriptor for good, which is made to refer to a file: to give the signal back would undo what
    others have done with it since.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._refers_to = (0, 0)
        self._paths: list[Path] = []

    def begin(self, directory: Path) -> None:
        """Leave the mark in this directory from now on."""
        with suppress(OSError, RuntimeError, ValueError):
            # An earlier process of the same run may have left one.
            (directory / MARK_NAME).unlink(missing_ok=True)
            if self._descriptor is None:
                self._descriptor = self._registered()
            if self._descriptor is not None:
                self._paths.append(directory / MARK_NAME)
                self._refer()

    def end(self, directory: Path) -> None:
        """Leave no mark there, because the run ends properly."""
        path = directory / MARK_NAME
        if path in self._paths:
            self._paths.remove(path)
            with suppress(OSError):
                path.unlink(missing_ok=True)
                self._refer()

    def forget(self) -> None:
        """In a forked child, whose end is not the run's."""
        self._paths.clear()
        with suppress(OSError):
            self._refer()

    def _registered(self) -> int | None:
        if not hasattr(faulthandler, "register") or not _ends_the_process():
            return None
        descriptor = os.open(os.devnull, os.O_WRONLY)
        self._refers_to = _identity(descriptor)
        faulthandler.register(signal.SIGTERM, file=descriptor, all_threads=False, chain=True)
        return descriptor

    def _refer(self) -> None:
        """Make the descriptor refer to the newest mark; to nothing if there is none."""
        descriptor = self._descriptor
        # A library that makes a daemon closes descriptors; its number may be another file's by now.
        if descriptor is None or _identity(descriptor) != self._refers_to:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK
        target = os.open(self._paths[-1] if self._paths else os.devnull, flags, 0o666)
        try:
            os.dup2(target, descriptor, inheritable=False)
            self._refers_to = _identity(descriptor)
        finally:
            os.close(target)


MARKS = SignalMarks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=MARKS.forget)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _ends_the_process() -> bool:
    """Whether SIGTERM has its default action, as far as Python and the system tell."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False
    try:
        status = Path("/proc/self/status").read_text(errors="replace")
    except OSError:
        return True
    return not any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in _SIGNALS.findall(status))
