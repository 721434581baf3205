"""Which objects refer to given ones: by an index of all references, or by a visit for each question."""

from __future__ import annotations

import bisect
import gc
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kerasmemwatch.attribution.variables.live_objects import hashable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Holders", "References", "Referrers", "some_alike"]

# By the holder's id: the holder, and what it holds.
Holders = dict[int, tuple[Any, list[Any]]]

_CHUNK, _BLOCK = 200, 1 << 20
_MANY_ALIKE, _ALIKE = 1000, 50
# Ids are multiples of 16, and this many of the bits above tell them apart well enough for a first sieve.
_SHIFT, _BITS = 4, 20


class References:
    """What many objects refer to.

    An index of a million references takes 8 MB and 0.15 s, and a question to it some 5 ms.
    """

    def __init__(self) -> None:
        self._chunks: list[list[Any]] = []
        self._lengths: list[int] = []
        self._parts: list[npt.NDArray[np.int64]] = []

    def visit(self, objects: list[Any]) -> Iterator[list[Any]]:
        """Add objects, those of a class together; yields what they refer to, of some hundred objects at a time."""
        import numpy as np

        for start in range(0, len(objects), _CHUNK):
            chunk = objects[start : start + _CHUNK]
            referents = gc.get_referents(*chunk)
            self._chunks.append(chunk)
            self._lengths.append(len(referents))
            self._parts.append(np.fromiter(map(id, referents), np.int64, len(referents)))
            yield referents

    def clear(self) -> None:
        """Let go of all objects."""
        self._chunks.clear()
        self._lengths.clear()
        self._parts.clear()

    def holders(self, targets: Iterable[Any], *, some: bool = False) -> Holders:
        """Who refers to given objects, and to which of them.

        Args:
            some: Whether some holders are enough of a class that has a thousand.
        """
        wanted, counts = frozenset(map(id, targets)), Counter[type]()
        found: Holders = {}
        for number, places in self._places(wanted):
            chunk = self._chunks[number]
            kind = type(chunk[0])
            if some and counts[kind] > _MANY_ALIKE and kind is type(chunk[-1]) and kind.__module__ != "builtins":
                continue
            every = list(map(gc.get_referents, chunk))
            # Objects may have changed since the visit, and with them the places of all that follow.
            is_same = sum(map(len, every)) == self._lengths[number]
            inner, start = places.tolist(), 0
            for each, referents in zip(chunk, every, strict=True):
                begin = bisect.bisect_left(inner, start)
                start += len(referents)
                if is_same and bisect.bisect_left(inner, start) == begin:
                    continue
                held = [item for item in referents if id(item) in wanted]
                if held:
                    found[id(each)] = each, held
                    counts[type(each)] += 1
        return some_alike(found) if some else found

    def _places(self, wanted: frozenset[int]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """The chunks with references to the wanted, each with their places among its references."""
        import numpy as np

        if not self._parts or not wanted:
            return
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        [every], lengths = self._parts, np.array(self._lengths)
        if not len(every):
            return
        starts = np.cumsum(lengths) - lengths
        ids = np.fromiter(wanted, np.int64, len(wanted))
        sieve = np.zeros(1 << _BITS, np.bool_)
        sieve[_hashes(ids)] = True
        blocks = range(0, len(every), _BLOCK)  # their hashes would take as much as all ids
        places = np.concatenate([np.flatnonzero(sieve[_hashes(every[at : at + _BLOCK])]) + at for at in blocks])
        places = places[np.isin(every[places], ids)]
        if not len(places):
            return
        chunks, first = np.unique(np.searchsorted(starts, places, "right") - 1, return_index=True)
        for number, inner in zip(chunks.tolist(), np.split(places, first[1:]), strict=True):
            yield number, inner - starts[number]


class Referrers:
    """The holders of given objects without an index, for a few questions: each takes 0.07 s of CPU time.

    What was made since Python's collector ran last is left out, so that our own is: the collector is off in the
    meantime, else that would look older.

    Args:
        most_s: CPU time after which there should be no more questions.
    """

    def __init__(self, most_s: float) -> None:
        self._late_s = time.thread_time() + most_s
        self._was_enabled = gc.isenabled()

    def __enter__(self) -> Referrers:
        gc.disable()
        return self

    def __exit__(self, *error: object) -> None:
        if self._was_enabled:
            gc.enable()

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return time.thread_time() > self._late_s

    def referrers(self, targets: Sequence[Any]) -> Holders:
        """Who refers to given objects, and to which; of classes with many such objects, some."""
        wanted, young = frozenset(map(id, targets)), _young_ids()
        found: Holders = {}
        for each in hashable(gc.get_referrers(*targets)):
            held = [item for item in gc.get_referents(each) if id(item) in wanted] if id(each) not in young else []
            if held:
                found[id(each)] = each, held
        return some_alike(found)


def _young_ids() -> set[int]:
    """Ids of the objects of the youngest generation, in one call of C code.

    Another thread's unfinished tuple may be among them, and must not have a reference of ours when that thread runs.
    """
    return set(map(id, itertools.chain.from_iterable(map(gc.get_objects, (0,)))))


def some_alike(holders: Holders) -> Holders:
    """Leave out most holders of classes that have many here, such as a tree's nodes that know their parent."""
    counts = Counter(type(holder) for holder, _ in holders.values())
    many = {kind for kind, count in counts.items() if count > _MANY_ALIKE and kind.__module__ != "builtins"}
    if not many:
        return holders
    left = dict.fromkeys(many, _ALIKE)
    found: Holders = {}
    for key, (holder, held) in holders.items():
        kind = type(holder)
        if kind in left:
            left[kind] -= 1
            if left[kind] < 0:
                continue
        found[key] = holder, held
    return found


def _hashes(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return (ids >> _SHIFT) & ((1 << _BITS) - 1)
