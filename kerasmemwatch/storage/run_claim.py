"""Claim on a run's directory: locked while the run is recorded, released in between."""

from __future__ import annotations

import os

from kerasmemwatch.storage.files.directory_lock import DirectoryLock
from kerasmemwatch.storage.files.journal import JOURNAL_NAME

__all__ = ["RunClaim"]


class RunClaim:
    """Prevents others from continuing a run. Between fits it holds no descriptor, and then detects if another did.

    Raises:
        BlockingIOError: If it is locked already.
        OSError: If it cannot be locked.

    Example:
        >>> import tempfile
        >>> claim = RunClaim(directory := tempfile.mkdtemp())
        >>> claim.release()
        >>> claim.take()
        True
        >>> claim.release()
        >>> other = RunClaim(directory)
        >>> claim.take()
        False
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock: DirectoryLock | None = DirectoryLock(directory)
        self._left: set[tuple[str, int]] = set()

    def release(self) -> None:
        """Release the directory. May be called twice."""
        lock, self._lock = self._lock, None
        if lock is not None:
            self._left = self._files()
            lock.release()

    def take(self) -> bool:
        """Reclaim it; return ``False`` if it is locked, or somebody else has written a file of the run since."""
        if self._lock is not None:
            return True
        try:
            lock = DirectoryLock(self._directory)
        except BlockingIOError:
            return False
        except OSError:
            return True  # the directory is gone, which the writer will notice
        if self._files() != self._left:
            lock.release()
            return False
        self._lock = lock
        return True

    def _files(self) -> set[tuple[str, int]]:
        """Names and inodes of the run's own files: the journal and the event files."""
        try:
            with os.scandir(self._directory) as entries:
                mine = (entry for entry in entries if entry.name == JOURNAL_NAME or "kerasmemwatch" in entry.name)
                return {(entry.name, entry.inode()) for entry in mine}
        except OSError:
            return set()
