"""Search for live objects of given kinds among all objects, for those that nothing else leads to."""

from __future__ import annotations

import gc
import itertools
import operator
import sys
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

__all__ = ["Census", "all_but_tuples", "hashable", "live_objects"]

_Found = defaultdict[str, list[Any]]
# Beyond this many, a full search is cheaper; a search that finds nothing counts as well.
_MAX_NOTED, _A_SEARCH = 100_000, 100


def live_objects(kind_of: Callable[[type], str]) -> _Found:
    """Return objects known to Python's garbage collector by kind; visits all of them except tuples.

    Args:
        kind_of: Names the kind of a class, called once per class. Objects of kind ``""`` are left out.
    """
    return _sorted(all_but_tuples(), kind_of)


class Census:
    """Live objects of some kinds, now and later, without visiting all objects again.

    It keeps no object alive in the meantime.
    """

    def __init__(self, kind_of: Callable[[type], str]) -> None:
        self._kind_of, self._num_noted = kind_of, 0
        self._references = defaultdict[str, list[weakref.ref[Any]]](list)
        # Whether new objects are known or young; otherwise all objects are visited again.
        self.is_current = sys.version_info < (3, 14)  # since 3.14 Python promotes objects gradually
        if self.is_current:
            self._follow()
        self._note(live_objects(kind_of))

    def again(self) -> _Found:
        """Return the objects that are alive now, by kind."""
        if not self.is_current:
            return live_objects(self._kind_of)
        found = self.young()
        for kind in tuple(self._references):
            young = set(map(id, found[kind]))
            found[kind] += [each for each in self.left(kind) if id(each) not in young]
        return found

    def left(self, kind: str) -> list[Any]:
        """Return the objects of a kind that were alive then, or have been promoted since, and are still alive."""
        found = {id(each): each for reference in self._references[kind] if (each := reference()) is not None}
        return list(found.values())

    def young(self) -> _Found:
        """Return the objects that are new and not promoted yet, and perhaps some others."""
        # One list at a time: a list that both are put into would find itself, and keep all of them alive.
        found = _sorted(all_but_tuples(0), self._kind_of)
        for kind, objects in _sorted(all_but_tuples(1), self._kind_of).items():
            found[kind] += objects
        return found

    def _follow(self) -> None:
        """Record the objects that Python promotes: until then, they are in one of the two younger generations."""
        reference = weakref.ref(self)

        def collecting(phase: str, info: dict[str, int]) -> None:
            census = reference()
            if census is not None and census.is_current and phase == "start" and info["generation"]:
                try:
                    census._note(census.young())
                except Exception:  # Python prints any exception raised in here
                    census.is_current = False

        gc.callbacks.append(collecting)
        weakref.finalize(self, _remove, collecting).atexit = False

    def _note(self, found: _Found) -> None:
        self._num_noted += _A_SEARCH + sum(map(len, found.values()))
        try:
            for kind, objects in found.items():
                self._references[kind] += map(weakref.ref, objects)
        except TypeError:  # a user's class with slots and without weak references
            self.is_current = False
        if self._num_noted > _MAX_NOTED:
            self.is_current = False


def _remove(callback: Callable[[str, dict[str, int]], None]) -> None:
    with suppress(ValueError):  # other code has emptied the list
        gc.callbacks.remove(callback)


def all_but_tuples(generation: int | None = None) -> list[Any]:
    """Return the objects of a generation of the garbage collector, or all, without tuples.

    Those whose class has no hash, because its metaclass compares classes, are left out as well.

    Another thread may be in the middle of ``tuple(generator)``, which fails with a ``SystemError`` if the unfinished
    tuple has another reference at its end. So references to tuples are dropped before any other thread runs: there is
    one call, of ``list``, and it runs C code only.
    """
    every = list[Any]()
    extend, delete = cast(Callable[..., bool], every.extend), cast(Callable[..., bool], every.__delitem__)
    # Each runs once, when the chain reaches it, and adds nothing to the chain.
    fill = filter(None, map(extend, map(gc.get_objects, (generation,))))
    empty = filter(None, map(delete, (slice(None),)))
    others = map(operator.is_not, map(type, iter(every)), itertools.repeat(tuple))
    objects = list(itertools.compress(itertools.chain(fill, iter(every), empty), others))
    if _has_unhashable_classes():
        objects[:] = hashable(objects)
    return objects


def hashable(values: Iterable[Any]) -> list[Any]:
    """Those whose class has a hash, unlike one whose metaclass compares classes."""
    return [each for each in values if type(type(each)).__hash__ is not None]


def _has_unhashable_classes() -> bool:
    pending = [type]
    while pending:
        metaclass = pending.pop()
        if metaclass.__hash__ is None:
            return True
        pending += type.__subclasses__(metaclass)
    return False


def _sorted(objects: list[Any], kind_of: Callable[[type], str]) -> _Found:
    found, kinds = defaultdict[str, list[Any]](list), _Kinds(kind_of)
    try:
        # There are a thousand times more objects than classes, so no object runs Python code.
        for item in itertools.compress(objects, map(kinds.__getitem__, map(type, objects))):
            found[kinds[type(item)]].append(item)
    finally:
        objects.clear()  # the list is in itself, and would keep all of them alive
    return found


class _Kinds(dict[type, str]):
    """Kinds of classes, computed on first use."""

    def __init__(self, kind_of: Callable[[type], str]) -> None:
        super().__init__()
        self._kind_of = kind_of

    def __missing__(self, kind: type) -> str:
        self[kind] = name = self._kind_of(kind)
        return name
