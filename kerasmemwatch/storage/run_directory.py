"""Where one run lives on disk: its directory, what an earlier process left there, and its sinks."""

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

__all__ = ["Store", "check_run_name", "open_store"]

# The limit of ext4, XFS, NTFS, and APFS for one name.
_MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class Store:
    """An opened place for one run.

    Attributes:
        name: The run's name.
        sinks: What receives its chunks.
        journal_path: The file that holds the newest rows; ``None`` if they stay in memory.
        previous: What was recorded under this name before, if this continues it.
        directory: The run's directory; ``None`` if it has none.
        claim: Keeps others from continuing the run as long as it is recorded; ``None`` where nothing can be locked.
        occupied: The run that was to be continued, if somebody else records it; this one is then a new one.
    """

    name: str
    sinks: tuple[Sink, ...] = ()
    journal_path: Path | None = None
    previous: StoredRun = field(default_factory=StoredRun)
    directory: str | None = None
    claim: RunClaim | None = None
    occupied: str = ""

    def unlock(self) -> None:
        """Let others continue the run. May be called twice."""
        if self.claim is not None:
            self.claim.release()

    def relock(self) -> bool:
        """Keep others from it again; whether nobody has continued it in the meantime."""
        return self.claim is None or self.claim.take()

    def disowned(self) -> Store:
        """In a forked child: one in memory; files stay the parent's, and this process lets go of them."""
        for sink in self.sinks:
            disown = getattr(sink, "disown", None)  # a sink of the user's need not have it
            if disown is not None:
                disown()
        return Store(self.name)


def check_run_name(run_name: object) -> None:
    """Check that a run's name can be the name of a directory.

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
) -> Store:
    """Create a run's directory, or find the one that it continues.

    Args:
        log_dir: Parent directory; ``None`` writes nothing.
        run_name: The directory's name; ``None`` makes one from the time.
        created: UNIX time of the first sample.
        resume: Whether an existing run of that name is continued. If not, or if somebody else records it at this
            time, a number is put behind the name.
        worker: Which of several workers asks; its runs' names end in its own, so that all may give the same name.
        sinks: Used instead of the default ones.
        release: Called with the directory of a run that is continued, before it is read.

    Raises:
        OSError: If the directory cannot be created.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(created))
    end = worker.suffix if worker else ""
    asked_for = None if run_name is None else _extended(run_name, end)
    occupied = ""
    if log_dir is None:
        return Store(asked_for or f"memwatch-{stamp}{end}", tuple(sinks or ()))
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
        # A directory of the user's without a run in it will do, if it has the very name that was asked for.
        usable = make_new_dir(directory) or (name == asked_for and not is_run_dir(directory))
        if usable and _claimed(directory):
            with suppress(BlockingIOError):  # somebody has found it already, and continues it
                return _store(log_dir, name, sinks, StoredRun(), _claim(directory), occupied)
        number += 1


def _claimed(directory: str) -> bool:
    """Whether the directory is ours: of two processes that begin at once, the first to create the journal has it."""
    if is_remote(directory):
        return True
    try:
        (Path(directory) / JOURNAL_NAME).open("xb").close()
    except FileExistsError:
        return False
    return True


def _claim(directory: str) -> RunClaim | None:
    """A claim to a run's directory; ``None`` where there are no locks.

    Raises:
        BlockingIOError: If somebody else has it.
    """
    try:
        return None if is_remote(directory) else RunClaim(directory)
    except BlockingIOError:
        raise
    except OSError:
        return None


def _extended(run_name: str, suffix: str) -> str:
    """The name with something behind it; cut where a long one leaves no room."""
    encoded, room = os.fsencode(run_name), _MAX_NAME_BYTES - len(suffix)
    return (run_name if len(encoded) <= room else encoded[:room].decode(errors="ignore")) + suffix


def _store(
    log_dir: str,
    name: str,
    sinks: Sequence[Sink] | None,
    previous: StoredRun,
    claim: RunClaim | None,
    occupied: str = "",
) -> Store:
    directory = join(log_dir, name)
    journal = None if is_remote(log_dir) else Path(directory) / JOURNAL_NAME
    receiving = (TensorBoardSink(directory),) if sinks is None else tuple(sinks)
    return Store(name, receiving, journal, previous, directory, claim, occupied)
