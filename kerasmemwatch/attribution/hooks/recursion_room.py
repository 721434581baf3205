"""Room under Python's recursion limit for the frames that hooks add to nested calls."""

from __future__ import annotations

import sys
from types import TracebackType

__all__ = ["RecursionRoom"]

# A hooked layer adds a frame to `Layer.__call__` and one to `Operation.__call__`, a wrapper's one more. CPython 3.11
# also counts each call that passes through C.
_COUNTS_PER_LEVEL = 8
# For layers that no watched model lists, and for our calls at the bottom of the stack.
_SPARE = 200


class RecursionRoom:
    """Raises the recursion limit while hooks are in place, so that a model nests as deeply as without them.

    The limit goes up by what the hooks need and no more: endless recursion in the user's code still ends in a
    ``RecursionError``. It is put back at the end, unless somebody else has set it in the meantime.

    Example:
        >>> before = sys.getrecursionlimit()
        >>> with RecursionRoom() as room:
        ...     room.reserve(3)
        ...     sys.getrecursionlimit() > before
        True
        >>> sys.getrecursionlimit() == before
        True
    """

    def __init__(self) -> None:
        self._before = self._ours = 0

    def __enter__(self) -> RecursionRoom:
        self._before = self._ours = sys.getrecursionlimit()
        return self

    def reserve(self, levels: int) -> None:
        """Make room for a model of so many levels of layers; never takes room back."""
        wanted = self._before + _COUNTS_PER_LEVEL * levels + _SPARE
        if sys.getrecursionlimit() == self._ours < wanted:
            sys.setrecursionlimit(wanted)
            self._ours = wanted

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.getrecursionlimit() == self._ours:
            sys.setrecursionlimit(self._before)
