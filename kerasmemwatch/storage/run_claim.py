"""Whose a run's directory is: locked while the run is recorded, and let go of in between."""

from __future__ import annotations

import os

from kerasmemwatch.storage.files.directory_lock import DirectoryLock
from kerasmemwatch.storage.files.journal import JOURNAL_NAME

__all__ = ["RunClaim"]


class RunClaim:
    """Keeps others from continuing a run; between two fits it holds no descriptor, and then tells whether one did.

    Args:
        directory: The run's, which exists.

    Raises:
        BlockingIOError: If somebody else has it locked.
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
        """Let go of the directory. May be called twice."""
        lock, self._lock = self._lock, None
        if lock is not None:
            self._left = self._files()
            lock.release()

    def take(self) -> bool:
        """Have it again; ``False`` if somebody else has it, or has written a file of the run's in the meantime."""
        if self._lock is not None:
            return True
        try:
            lock = DirectoryLock(self._directory)
        except BlockingIOError:
            return False
        except OSError:
            return True  # it is gone, which whoever writes will notice
        if self._files() != self._left:
            lock.release()
            return False
        self._lock = lock
        return True

    def _files(self) -> set[tuple[str, int]]:
        """Names and identities of the run's own files, the journal and those for TensorBoard."""
        try:
            with os.scandir(self._directory) as entries:
                mine = (entry for entry in entries if entry.name == JOURNAL_NAME or "kerasmemwatch" in entry.name)
                return {(entry.name, entry.inode()) for entry in mine}
        except OSError:
            return set()
