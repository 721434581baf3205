"""Which objects are older than a moment, without having visited any then."""

from __future__ import annotations

import gc
import itertools
import operator
import sys
from typing import Any

from kerasmemwatch.attribution.variables.live_objects import all_but_tuples

__all__ = ["Moment", "full_collections"]


class Moment:
    """A moment: Python's collector lists objects by age, of which this is one, until a full collection.

    Args:
        step: The newest row's ``step``.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self._collections = full_collections()

    def older(self) -> list[Any] | None:
        """All objects but tuples that were there at the moment and live; ``None`` if that can't be told any more."""
        # Since 3.14 Python promotes objects gradually.
        if sys.version_info >= (3, 14) or full_collections() != self._collections:
            return None
        every: list[Any] = []
        for generation in (2, 1, 0):
            objects = all_but_tuples(generation)
            every += objects
            objects.clear()  # it may be in itself
        place, oldest = _place(self, every), _place(vars(sys), every)
        # One that was frozen is not listed, and once it is unfrozen it is listed after others.
        if place is None or (oldest is not None and oldest > place):
            every.clear()
            return None
        del every[place:]
        return every


def full_collections() -> int:
    """How many full collections have run in this process: Python sorts old objects anew in each."""
    return int(gc.get_stats()[-1]["collections"])


def _place(value: object, objects: list[Any]) -> int | None:
    is_this = map(operator.is_, objects, itertools.repeat(value))
    return next(itertools.compress(itertools.count(), is_this), None)
