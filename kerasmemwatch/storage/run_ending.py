"""How a run ended, as its directory shows: a process that ends properly removes its journal and its lock."""

from __future__ import annotations

from pathlib import Path

from kerasmemwatch.records.ending import KILLED, RUNNING, TERMINATED
from kerasmemwatch.storage.files.directory_lock import is_locked
from kerasmemwatch.storage.files.file_system import is_remote, join, read_bytes
from kerasmemwatch.storage.files.journal import HEADER_BYTES, JOURNAL_NAME, is_in_use
from kerasmemwatch.storage.files.signal_mark import MARK_NAME

__all__ = ["read_ending"]


def read_ending(directory: str) -> str:
    """``RunInfo.ending`` of a run's directory. A run that ends properly, also by an exception, removes its journal."""
    if is_remote(directory):
        return ""  # there is no journal
    try:
        held = is_locked(directory)
        # After the lock: its writer may have ended properly meanwhile.
        if held is None or not is_in_use(read_bytes(join(directory, JOURNAL_NAME), HEADER_BYTES)):
            return ""
        mark = Path(directory) / MARK_NAME
        ended = TERMINATED if mark.is_file() and mark.stat().st_size else KILLED
    except OSError:
        return ""
    return RUNNING if held else ended
