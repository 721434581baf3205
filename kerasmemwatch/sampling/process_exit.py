"""Clean-up of all recorders of this process: as it exits or forks, or as a recorder is garbage collected."""

from __future__ import annotations

import atexit
import os
import weakref
from collections import deque
from typing import Protocol

from kerasmemwatch.sampling.probe_set import ProbeSet
from kerasmemwatch.storage.run_writer import RunWriter

__all__ = ["enlist", "release", "store_when_garbage"]


class _Recorder(Protocol):
    dropped: bool

    @property
    def directory(self) -> str | None: ...

    def close(self) -> None: ...

    def drop(self) -> None: ...

    def release(self) -> None: ...


_live: weakref.WeakSet[_Recorder] = weakref.WeakSet()
# Logs of recorders that are gone, kept until they have certainly been stored.
_retired: deque[RunWriter] = deque(maxlen=16)


def enlist(recorder: _Recorder, probes: ProbeSet) -> None:
    """Close a recorder as the process exits, drop it in a forked child, and close its probes once it is garbage."""
    _live.add(recorder)
    # A weak reference: a user's probe may refer to the recorder, which would then never be garbage. If both are garbage
    # in a cycle, the probes' files are closed with them.
    weakref.finalize(recorder, _abandon, weakref.ref(probes), os.getpid()).atexit = False


def store_when_garbage(recorder: _Recorder, log: RunWriter) -> None:
    """Store a recorder's log once the recorder is garbage."""
    weakref.finalize(recorder, _retire, log, os.getpid()).atexit = False


def release(directory: str) -> None:
    """Make this process's recorder of a run release it, because another is about to continue it."""
    for recorder in list(_live):
        if not recorder.dropped and recorder.directory == directory:
            recorder.release()
    for log in list(_retired):
        if log.directory == directory:
            log.close()  # its thread may not have done so yet


def _abandon(reference: weakref.ref[ProbeSet], pid: int) -> None:
    probes = reference()
    if probes is not None and os.getpid() == pid:
        probes.abandon()


def _retire(log: RunWriter, pid: int) -> None:
    if os.getpid() == pid:
        _retired.append(log)
        log.retire()


def _close_all() -> None:
    for recorder in list(_live):
        recorder.close()
    while _retired:
        _retired.popleft().close()


def _drop_all() -> None:
    """In a forked child: the journal is the parent's, and an open descriptor still reads the parent."""
    for recorder in list(_live):
        recorder.drop()
    _live.clear()
    while _retired:
        _retired.popleft().disown()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_all)
