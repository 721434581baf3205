"""Room under Python's recursion limit for the Python frames that hooks add to nested calls."""

from __future__ import annotations

import sys
from types import TracebackType

__all__ = ["RecursionRoom"]

# A hooked layer adds a Python frame to `Layer.__call__` and one to `Operation.__call__`, and a wrapper adds one more.
# CPython 3.11 also counts each call that passes through C.
_COUNTS_PER_LEVEL = 8
# For layers that no watched model lists, and for our own calls at the bottom of the stack.
_SPARE = 200


class RecursionRoom:
    """Raises the recursion limit while hooks are in place, so that models nest as deeply as without them.

    The limit rises by no more than the hooks need: endless recursion in the user's code still raises a
    ``RecursionError``. It is restored at the end, unless other code has changed it in the meantime.
    """

    def __init__(self) -> None:
        self._before = self._ours = 0

    def __enter__(self) -> RecursionRoom:
        self._before = self._ours = sys.getrecursionlimit()
        return self

    def reserve(self, levels: int) -> None:
        """Make room for a model with this many levels of layers; never takes room back."""
        wanted = self._before + _COUNTS_PER_LEVEL * levels + _SPARE
        if sys.getrecursionlimit() == self._ours < wanted:
            sys.setrecursionlimit(wanted)
            self._ours = wanted

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.getrecursionlimit() == self._ours:
            sys.setrecursionlimit(self._before)
