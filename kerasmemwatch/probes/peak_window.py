"""One allocator's peak counter, shared by all who watch it in this process.

An allocator keeps a single peak that anyone may reset. Each reader here takes the peak since *its own* last
reading: whoever resets the counter first hands what it saw to the others.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

__all__ = ["PeakWindow"]

Reading = Callable[[], tuple[int, int]]

# By name, who reads that counter. A list is replaced and never changed: the garbage collector may close a reader while
# another goes through it.
_windows: dict[str, list[weakref.ref[PeakWindow]]] = {}


class PeakWindow:
    """The peak of one allocator since this reader last took it.

    Args:
        name: The allocator; readers of the same name share its counter.
        read: Returns in-use bytes and peak.
        read_and_reset: The same, and sets the peak to what is in use. ``None``: this reader never resets, and its
            peak is the highest it has seen, whoever else resets the counter.

    Example:
        >>> stats = [10, 50]
        >>> def read_and_reset():
        ...     found, stats[1] = tuple(stats), stats[0]
        ...     return found
        >>> window = PeakWindow("toy", lambda: tuple(stats), read_and_reset)
        >>> window.take(), window.take()
        ((10, 50), (10, 10))
    """

    __slots__ = ("__weakref__", "_carried", "_name", "_others", "_raw", "_read", "_resets", "take")

    take: Reading
    """In-use bytes now, and the peak since the last call; begins a new window. Look it up for each call: with nobody
    to share the counter with, it is the bare reading."""

    def __init__(self, name: str, read: Reading, read_and_reset: Reading | None) -> None:
        self._name, self._read = name, read
        self._raw, self._resets = read_and_reset or read, read_and_reset is not None
        self._carried = [0]  # what others have handed over, in a cell that closures share
        # Weakly: whoever ends in an exception closes nothing.
        self._others: list[weakref.ref[PeakWindow]] = []
        _windows[name] = [*_windows.get(name, ()), weakref.ref(self)]
        _introduce(name)

    def peek(self) -> tuple[int, int]:
        """In-use bytes now, and the peak since the last ``take``; the window goes on."""
        current, peak = self._read()
        return current, max(peak, self._carried[0])

    def close(self) -> None:
        """Stop sharing the counter."""
        _windows[self._name] = [reference for reference in _windows[self._name] if reference() is not self]
        self._others.clear()
        _introduce(self._name)


def _introduce(name: str) -> None:
    """Let the readers of a counter know each other. Who is alone, and has nothing left to take over, just reads."""
    windows = [window for reference in _windows[name] if (window := reference()) is not None]
    _windows[name] = [weakref.ref(window) for window in windows]
    for window in windows:
        window._others[:] = [weakref.ref(other) for other in windows if other is not window]
        shares = bool(window._others) or bool(window._carried[0])
        window.take = _sharing(window) if shares else window._raw


def _sharing(window: PeakWindow) -> Reading:
    """A ``take`` that hands over what it resets; a closure, since a method kept in ``window`` would be a cycle."""
    name, read, resets = window._name, window._raw, window._resets
    carried, others = window._carried, window._others

    def take() -> tuple[int, int]:
        found = read()
        alone = True
        for reference in others:
            other = reference()
            if other is not None:
                alone = False
                if resets and found[1] > other._carried[0]:
                    other._carried[0] = found[1]
        if carried[0]:
            found = found[0], max(found[1], carried[0])
            if resets:
                carried[0] = 0
        if alone and not carried[0]:
            _introduce(name)
        return found

    return take
