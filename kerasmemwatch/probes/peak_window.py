"""One allocator's peak counter, shared by all who watch it in this process.

An allocator keeps a single peak that anyone may reset. Each reader here takes the peak since *its own* last
reading: whoever resets the counter first hands what it saw to the others.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

__all__ = ["PeakWindow"]

_windows: dict[str, weakref.WeakSet[PeakWindow]] = {}


class PeakWindow:
    """The peak of one allocator since this reader last took it.

    Args:
        name: The allocator; readers of the same name share its counter.
        read: ``read(name)`` returns ``{"current": bytes, "peak": bytes}``.
        reset: ``reset(name)`` sets the allocator's peak to what is in use now.
        resets: Whether this reader may reset; if not, its peak is the allocator's own, a maximum since
            whoever reset it last.

    Example:
        >>> stats = {"current": 10, "peak": 50}
        >>> window = PeakWindow("toy", lambda _: dict(stats), lambda _: stats.update(peak=stats["current"]))
        >>> window.take(), window.take()
        ((10, 50), (10, 10))
    """

    __slots__ = ("__weakref__", "_carried", "_name", "_others", "_read", "_reset", "_resets")

    def __init__(
        self, name: str, read: Callable[[str], Mapping[str, int]], reset: Callable[[str], None], *, resets: bool = True
    ) -> None:
        self._name, self._read, self._reset, self._resets = name, read, reset, resets
        self._carried = 0
        self._others: tuple[PeakWindow, ...] = ()
        _windows.setdefault(name, weakref.WeakSet()).add(self)
        _introduce(name)

    def take(self) -> tuple[int, int]:
        """In-use bytes now, and the peak since the last call; begins a new window."""
        info = self._read(self._name)
        peak = info["peak"]
        if self._resets:
            self._reset(self._name)
            for other in self._others:
                if peak > other._carried:
                    other._carried = peak
        if self._carried > peak:
            peak = self._carried
        self._carried = 0
        return info["current"], peak

    def peek(self) -> tuple[int, int]:
        """In-use bytes now, and the peak since the last ``take``; the window goes on."""
        info = self._read(self._name)
        return info["current"], max(info["peak"], self._carried)

    def close(self) -> None:
        """Stop sharing the counter."""
        _windows[self._name].discard(self)
        _introduce(self._name)


def _introduce(name: str) -> None:
    windows = tuple(_windows[name])
    for window in windows:
        window._others = tuple(other for other in windows if other is not window)
