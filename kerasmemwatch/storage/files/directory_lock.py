"""Lock on a directory, which the kernel releases however the process ends."""

from __future__ import annotations

import os
import time
import weakref
from contextlib import suppress

__all__ = ["DirectoryLock", "is_locked"]


# Someone who asks whether a directory is locked holds it for a moment.
_TRIES, _PAUSE_S = 3, 0.002


def is_locked(path: str) -> bool | None:
    """Whether somebody, also this process, has locked a directory; ``None`` if that cannot be known."""
    try:
        import fcntl

        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


class DirectoryLock:
    """Locks a local directory against other processes and other users in this process, almost without waiting.

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
            for _ in range(_TRIES - 1):
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(_PAUSE_S)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        self._close = weakref.finalize(self, os.close, descriptor)
        self._close.atexit = False

    def release(self) -> None:
        """Unlock. May be called twice."""
        self._close()
