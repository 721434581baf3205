"""Which objects are older than a moment, without having visited any then."""

from __future__ import annotations

import gc
import itertools
import operator
import sys
from typing import Any

from kerasmemwatch.attribution.variables.live_objects import all_but_tuples

__all__ = ["Moment"]


class Moment:
    """A moment: Python's collector lists objects by age, of which this is one, until a full collection.

    Args:
        step: The newest row's ``step``.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self._order = _order()

    def older(self) -> list[Any] | None:
        """All objects but tuples that were there at the moment and live; ``None`` if that can't be told any more."""
        # Since 3.14 Python promotes objects gradually.
        if sys.version_info >= (3, 14) or _order() != self._order:
            return None
        found: list[Any] = []
        for generation in (2, 1, 0):
            objects = all_but_tuples(generation)
            is_this = map(operator.is_, objects, itertools.repeat(self))
            place = next(itertools.compress(itertools.count(), is_this), None)
            found.extend(objects[:place])
            objects.clear()  # it may be in itself
            if place is not None:
                return found
        found.clear()
        return None


def _order() -> tuple[int, int]:
    """What changes when Python sorts old objects anew: full collections, and objects that are frozen."""
    return gc.get_stats()[-1]["collections"], gc.get_freeze_count()
