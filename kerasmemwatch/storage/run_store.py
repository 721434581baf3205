"""One run on disk: its directory, the contents left there by an earlier process, and its sinks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError
from kerasmemwatch.records.run import WorkerInfo
from kerasmemwatch.storage.files.file_system import is_remote, join, make_new_dir
from kerasmemwatch.storage.files.journal import JOURNAL_NAME
from kerasmemwatch.storage.run_claim import RunClaim
from kerasmemwatch.storage.run_reader import StoredRun, is_run_dir, read_run
from kerasmemwatch.storage.sinks.base import Sink
from kerasmemwatch.storage.sinks.tensorboard import TensorBoardSink

__all__ = ["RunStore", "check_run_name", "open_store"]

# Limit of ext4, XFS, NTFS and APFS for one name.
_MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class RunStore:
    """The opened storage of one run."""

    name: str  # the run's name
    sinks: tuple[Sink, ...] = ()  # receivers of its chunks
    journal_path: Path | None = None  # the file that holds the newest rows; `None` if they stay in memory
    # The earlier recording of this name, if this run continues it.
    previous: StoredRun = field(default_factory=StoredRun)
    directory: str | None = None  # the run's directory; `None` if it has none
    # Prevents others from continuing the run while it is recorded; `None` where locking is impossible.
    claim: RunClaim | None = None
    occupied: str = ""  # name of the run to continue, if it is already being recorded; this run is then a new one

    def unlock(self) -> None:
        """Let others continue the run. May be called twice."""
        if self.claim is not None:
            self.claim.release()

    def relock(self) -> bool:
        """Prevent others from continuing the run again; return ``False`` if somebody else has continued it since."""
        return self.claim is None or self.claim.take()

    def disowned(self) -> RunStore:
        """In a forked child: a store in memory; this process releases the files, which stay the parent's."""
        for sink in self.sinks:
            disown = getattr(sink, "disown", None)  # a sink of the user's need not have it
            if disown is not None:
                disown()
        return RunStore(self.name)


def check_run_name(run_name: object) -> None:
    """Check that a run's name is valid as a directory name.

    Raises:
        InvalidTypeError: If it is not a string.
        InvalidArgumentError: If it is empty, ``.`` or ``..``, too long, or holds a separator or NUL.
    """
    if not isinstance(run_name, str):
        raise InvalidTypeError(
            f"Expected run_name to be a string or None. Received: run_name={run_name!r} "
            f"(of type {type(run_name).__name__})."
        )
    if run_name in ("", ".", "..") or any(char in run_name for char in "/\\\0"):
        raise InvalidArgumentError(
            "Expected run_name to be the name of one directory, without '/', '\\' or NUL, and not '.' or '..'. "
            f"Received: run_name={run_name!r}. Put parent directories into log_dir."
        )
    try:
        num_bytes = len(os.fsencode(run_name))
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            "Expected run_name to be of characters that a file name may have. "
            f"Received: run_name={run_name!r} ({error.reason})."
        ) from None
    if num_bytes > _MAX_NAME_BYTES:
        raise InvalidArgumentError(
            f"Expected run_name to have at most {_MAX_NAME_BYTES} bytes. Received: {num_bytes} bytes."
        )


def open_store(
    log_dir: str | None,
    run_name: str | None,
    *,
    created: float,
    resume: bool = False,
    worker: WorkerInfo | None = None,
    sinks: Sequence[Sink] | None = None,
    release: Callable[[str], None] = lambda directory: None,
) -> RunStore:
    """Create a run's directory, or open the one that it continues.

    Args:
        log_dir: Parent directory; ``None`` writes nothing.
        run_name: Name of the directory; ``None`` makes one from the time.
        created: UNIX time of the first sample.
        resume: Whether to continue an existing run of that name. If not, or if it is being recorded already, a number
            is appended to the name.
        worker: The worker, if it is one of several; its suffix is appended to the name, so that all may pass the same.
        sinks: Sinks to use instead of the default ones.
        release: Called with the directory of the run to continue before it is read.

    Raises:
        OSError: If the directory cannot be created.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(created))
    end = worker.suffix if worker else ""
    asked_for = None if run_name is None else _extended(run_name, end)
    occupied = ""
    if log_dir is None:
        return RunStore(asked_for or f"memwatch-{stamp}{end}", tuple(sinks or ()))
    if asked_for is not None and resume and is_run_dir(join(log_dir, asked_for)):
        directory = join(log_dir, asked_for)
        release(directory)
        try:
            claim = _claim(directory)
            return _store(log_dir, asked_for, sinks, read_run(directory), claim)
        except BlockingIOError:
            occupied = asked_for
    number = 0
    while True:
        if run_name is None:
            name = f"memwatch-{stamp}-{number}{end}"
        else:
            name = _extended(run_name, f"-{number + 1}{end}" if number else end)
        directory = join(log_dir, name)
        # An existing directory without a run in it is usable if it has the exact name that was asked for.
        usable = make_new_dir(directory) or (name == asked_for and not is_run_dir(directory))
        if usable and _claimed(directory):
            with suppress(BlockingIOError):  # somebody else has found and continued it already
                return _store(log_dir, name, sinks, StoredRun(), _claim(directory), occupied)
        number += 1


def _claimed(directory: str) -> bool:
    """Claim a new directory; of two processes that start at once, the first to create the journal gets it."""
    if is_remote(directory):
        return True
    try:
        (Path(directory) / JOURNAL_NAME).open("xb").close()
    except FileExistsError:
        return False
    return True


def _claim(directory: str) -> RunClaim | None:
    """Claim and lock a run's directory; ``None`` where locking is impossible.

    Raises:
        BlockingIOError: If it is locked already.
    """
    try:
        return None if is_remote(directory) else RunClaim(directory)
    except BlockingIOError:
        raise
    except OSError:
        return None


def _extended(run_name: str, suffix: str) -> str:
    """Append a suffix to a name, truncating a name that is too long."""
    encoded, room = os.fsencode(run_name), _MAX_NAME_BYTES - len(suffix)
    return (run_name if len(encoded) <= room else encoded[:room].decode(errors="ignore")) + suffix


def _store(
    log_dir: str,
    name: str,
    sinks: Sequence[Sink] | None,
    previous: StoredRun,
    claim: RunClaim | None,
    occupied: str = "",
) -> RunStore:
    directory = join(log_dir, name)
    journal = None if is_remote(log_dir) else Path(directory) / JOURNAL_NAME
    receiving = (TensorBoardSink(directory),) if sinks is None else tuple(sinks)
    return RunStore(name, receiving, journal, previous, directory, claim, occupied)
