"""A lock on a directory that a process holds until it ends, however it ends: the kernel lets go of it."""

from __future__ import annotations

import os
import weakref

__all__ = ["DirectoryLock"]


class DirectoryLock:
    """Locks a local directory against other processes, and against others in this one, without waiting.

    It is unlocked by ``release``, and when nobody has this object any more. A forked child has the lock, too, until it
    releases its copy.

    Raises:
        BlockingIOError: If somebody else has it locked.
        OSError: If there is no such directory, or it cannot be locked: on Windows, and on some network file systems.

    Example:
        >>> import tempfile
        >>> lock = DirectoryLock(directory := tempfile.mkdtemp())
        >>> try:
        ...     DirectoryLock(directory)
        ... except BlockingIOError:
        ...     print("locked")
        locked
        >>> lock.release()
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
