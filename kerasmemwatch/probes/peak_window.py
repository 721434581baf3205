"""One allocator's peak counter, shared by all who watch it in this process.

An allocator keeps a single peak that anyone may reset. Each reader here takes the peak since *its own* last
reading: whoever resets the counter first hands what it saw to the others.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

__all__ = ["PeakWindow"]

_windows: dict[str, weakref.WeakSet[PeakWindow]] = {}


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

    __slots__ = ("__weakref__", "_carried", "_name", "_others", "_read", "_read_and_reset")

    def __init__(
        self, name: str, read: Callable[[], tuple[int, int]], read_and_reset: Callable[[], tuple[int, int]] | None
    ) -> None:
        self._name, self._read, self._read_and_reset = name, read, read_and_reset
        self._carried = 0
        # Weakly: whoever ends in an exception closes nothing.
        self._others: tuple[weakref.ref[PeakWindow], ...] = ()
        _windows.setdefault(name, weakref.WeakSet()).add(self)
        _introduce(name)

    def take(self) -> tuple[int, int]:
        """In-use bytes now, and the peak since the last call; begins a new window."""
        if self._read_and_reset is None:
            found = self._read()
        else:
            found = self._read_and_reset()
            for reference in self._others:
                other = reference()
                if other is not None and found[1] > other._carried:
                    other._carried = found[1]
        if self._carried:
            found = found[0], max(found[1], self._carried)
            if self._read_and_reset is not None:
                self._carried = 0
        return found

    def peek(self) -> tuple[int, int]:
        """In-use bytes now, and the peak since the last ``take``; the window goes on."""
        current, peak = self._read()
        return current, max(peak, self._carried)

    def close(self) -> None:
        """Stop sharing the counter."""
        _windows[self._name].discard(self)
        self._others = ()
        _introduce(self._name)


def _introduce(name: str) -> None:
    windows = tuple(_windows[name])
    for window in windows:
        window._others = tuple(weakref.ref(other) for other in windows if other is not window)
