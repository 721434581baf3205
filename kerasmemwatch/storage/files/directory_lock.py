"""Lock on a directory, which the kernel releases however the process ends."""

from __future__ import annotations

import os
import weakref

__all__ = ["DirectoryLock"]


class DirectoryLock:
    """Locks a local directory against other processes and other users in this process, without waiting.

    The lock ends with ``release``, or when this object is garbage collected. A forked child shares the lock until it
    releases its copy.

    Raises:
        BlockingIOError: If it is locked already.
        OSError: If there is no such directory, or it cannot be locked (Windows, some network file systems).
    """

    def __init__(self, path: str) -> None:
        try:
            import fcntl
        except ImportError as error:  # Windows
            raise OSError("this system has no flock") from error
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        self._close = weakref.finalize(self, os.close, descriptor)
        self._close.atexit = False

    def release(self) -> None:
        """Unlock. May be called twice."""
        self._close()
