"""Child processes of this one: what each is, and how much memory is its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Child", "list_children"]

_SPAWNED = ("multiprocessing.spawn", "--multiprocessing-fork", "multiprocessing.forkserver", "loky")
_HELPERS = ("multiprocessing.resource_tracker", "semaphore_tracker")


@dataclass(frozen=True)
class Child:
    """A process that this one started, or one of those did.

    Attributes:
        kind: ``"forked"`` (a copy of this process, such as a worker of Keras' or ``multiprocessing.Pool``),
            ``"spawned"`` (a Python of its own for ``multiprocessing`` or joblib), or the program's name.
        uss_bytes: Bytes of it alone.
        rss_bytes: Bytes with those that it shares with others.
    """

    kind: str
    uss_bytes: int
    rss_bytes: int


def list_children() -> tuple[Child, ...]:
    """The children that can be read, those with most memory of their own first; takes a millisecond each."""
    import psutil

    own = psutil.Process()
    found = []
    for process in own.children(recursive=True):
        try:
            command = process.cmdline()
            if any(helper in each for each in command for helper in _HELPERS):
                continue
            memory = process.memory_full_info()
            found.append(Child(_kind(command, own.cmdline(), process.name()), int(memory.uss), int(memory.rss)))
        except (psutil.Error, AttributeError):  # it ended, is another user's, or the system counts no USS
            continue
    return tuple(sorted(found, key=lambda child: -child.uss_bytes))


def _kind(command: Sequence[str], own: Sequence[str], name: str) -> str:
    if command == own:
        return "forked"
    if any(mark in each for each in command for mark in _SPAWNED):
        return "spawned"
    return os.path.basename(command[0]) if command and command[0] else name
