"""The folder of a profiler session: locked while it is used, so that what a killed process left can be told."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress

from kerasmemwatch.storage.files.directory_lock import DirectoryLock

__all__ = ["CaptureFolder"]

_MEMORY_DISK, _ENOUGH_BYTES = "/dev/shm", 1 << 30
# No other folder of anybody's may be called so: those whose lock is free are removed.
_PREFIX = "kerasmemwatch-capture-"
# Processes that have swept already.
_swept: set[int] = set()


class CaptureFolder:
    """A new folder. The first of a process removes those of processes that were killed.

    Attributes:
        path: Where it is.

    Raises:
        OSError: If there is no place for one.
    """

    def __init__(self) -> None:
        if os.getpid() not in _swept:
            _swept.add(os.getpid())
            _sweep()
        self.path, self._lock = _made()

    def leave(self) -> None:
        """In a forked child: it is the parent's."""
        if self._lock is not None:
            self._lock.release()

    def remove(self) -> None:
        """Remove it and all that is in it. May be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.leave()


def _made() -> tuple[str, DirectoryLock | None]:
    while True:
        path = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_place())
        try:
            lock = DirectoryLock(path)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process has swept it before it was locked
        except OSError:
            return path, None  # where nothing can be locked, nothing is swept
        if os.path.isdir(path):
            return path, lock


def _place() -> str:
    """Memory rather than disk, where there is enough: a step's events are megabytes, or hundreds of them."""
    with suppress(OSError):
        if sys.platform == "linux" and shutil.disk_usage(_MEMORY_DISK).free >= _ENOUGH_BYTES:
            if os.access(_MEMORY_DISK, os.W_OK | os.X_OK):
                return _MEMORY_DISK
    return tempfile.gettempdir()


def _sweep() -> None:
    """Remove this user's folders that nobody has locked."""
    if not hasattr(os, "getuid"):
        return
    for path in _of_this_user():
        with suppress(OSError):  # somebody uses it, or sweeps as well
            lock = DirectoryLock(path)
            shutil.rmtree(path, ignore_errors=True)
            lock.release()


def _of_this_user() -> Iterator[str]:
    for place in {_MEMORY_DISK, tempfile.gettempdir()}:
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                ours = entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False)
                if ours and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                    yield entry.path
