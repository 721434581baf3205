"""Folder of a profiler session, locked while in use, so that leftovers of killed processes can be recognized."""

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
# No other program may use this prefix: unlocked folders with it are removed.
_PREFIX = "kerasmemwatch-capture-"
# Processes that have removed leftovers already.
_swept: set[int] = set()


class CaptureFolder:
    """A new folder. The first one in a process removes the folders of killed processes.

    Attributes:
        path: Its path.

    Raises:
        OSError: If no folder can be made.
    """

    def __init__(self) -> None:
        if os.getpid() not in _swept:
            _swept.add(os.getpid())
            _sweep()
        self.path, self._lock = _made()

    def leave(self) -> None:
        """Release the lock in a forked child; the folder is the parent's."""
        if self._lock is not None:
            self._lock.release()

    def remove(self) -> None:
        """Remove the folder with its contents. May be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.leave()


def _made() -> tuple[str, DirectoryLock | None]:
    while True:
        path = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_place())
        try:
            lock = DirectoryLock(path)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process removed it before it was locked
        except OSError:
            return path, None  # without locks, nothing is removed
        if os.path.isdir(path):
            return path, lock


def _place() -> str:
    """Choose memory over disk if it has enough room: the events of a step take megabytes to hundreds of megabytes."""
    with suppress(OSError):
        if sys.platform == "linux" and shutil.disk_usage(_MEMORY_DISK).free >= _ENOUGH_BYTES:
            if os.access(_MEMORY_DISK, os.W_OK | os.X_OK):
                return _MEMORY_DISK
    return tempfile.gettempdir()


def _sweep() -> None:
    """Remove this user's unlocked folders."""
    if not hasattr(os, "getuid"):
        return
    for path in _of_this_user():
        with suppress(OSError):  # it is in use, or another process removes it
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
