"""Windows onto one allocator's peak counter, shared by all its readers in this process.

An allocator keeps a single peak that anyone may reset. Each reader here takes the peak since *its own* last reading:
a reader that resets the counter hands the peak it saw to the others.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

__all__ = ["PeakWindow"]

Reading = Callable[[], tuple[int, int]]

# Readers of each counter, by name. A list is replaced, never changed: the garbage collector may close a reader while
# another iterates over it.
_windows: dict[str, list[weakref.ref[PeakWindow]]] = {}


class PeakWindow:
    """The peak of one allocator since this reader last took it.

    Args:
        name: The allocator; readers of the same name share its counter.
        read: Returns in-use bytes and peak.
        read_and_reset: The same, and resets the peak to the bytes in use. With ``None``, this reader never resets, and
            its peak is the highest that it has seen, even if others reset the counter.
    """

    __slots__ = ("__weakref__", "_carried", "_name", "_others", "_raw", "_read", "_resets", "take")

    take: Reading
    """In-use bytes now, and the peak since the last call; begins a new window. Look it up for each call: without other
    readers of the counter, it is the bare reading."""

    def __init__(self, name: str, read: Reading, read_and_reset: Reading | None) -> None:
        self._name, self._read = name, read
        self._raw, self._resets = read_and_reset or read, read_and_reset is not None
        self._carried = [0]  # peak handed over by others, in a cell that closures share
        # Weak references: a reader that ends in an exception is never closed.
        self._others: list[weakref.ref[PeakWindow]] = []
        _windows[name] = [*_windows.get(name, ()), weakref.ref(self)]
        _introduce(name)

    def peek(self) -> tuple[int, int]:
        """In-use bytes now, and the peak since the last ``take``; the window continues."""
        current, peak = self._read()
        return current, max(peak, self._carried[0])

    def close(self) -> None:
        """Stop sharing the counter."""
        _windows[self._name] = [reference for reference in _windows[self._name] if reference() is not self]
        self._others.clear()
        _introduce(self._name)


def _introduce(name: str) -> None:
    """Introduce the readers of a counter to each other. One that is alone, with no peak handed over, just reads."""
    windows = [window for reference in _windows[name] if (window := reference()) is not None]
    _windows[name] = [weakref.ref(window) for window in windows]
    for window in windows:
        window._others[:] = [weakref.ref(other) for other in windows if other is not window]
        shares = bool(window._others) or bool(window._carried[0])
        window.take = _sharing(window) if shares else window._raw


def _sharing(window: PeakWindow) -> Reading:
    """Make a ``take`` that hands over the peak it resets; a closure, as a method in ``window`` would be a cycle."""
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
