"""One visit of all objects: how many there are of each class, who holds those of some, and who refers to given ones."""

from __future__ import annotations

import gc
import itertools
import math
import operator
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)
from typing import TYPE_CHECKING, Any

from kerasmemwatch.attribution.variables.live_objects import all_but_tuples
from kerasmemwatch.leaks.evidence.roots import globals_of_libraries

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["LEAST_SEARCHES_S", "SEARCHES_S", "Heap", "Holders"]

_CHUNK, _SMALL_CHUNK = 500, 20
_MANY_ALIKE, _ALIKE = 1000, 50
SEARCHES_S, LEAST_SEARCHES_S = 0.4, 0.25
_NO_DATA = (
    FunctionType,
    BuiltinFunctionType,
    ModuleType,
    type,
    property,
    staticmethod,
    classmethod,
    weakref.ref,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
    MappingProxyType,
    GenericAlias,
    UnionType,
)
# Modules of Python's own whose classes describe code: a third of all references of a program with TensorFlow.
_DESCRIBE_CODE = frozenset(("inspect", "typing", "dataclasses", "_frozen_importlib", "_frozen_importlib_external"))
# By the holder's id: the holder, and what it holds.
Holders = dict[int, tuple[Any, list[Any]]]


class Heap:
    """All objects that Python's garbage collector knows, for the time of a ``with`` block.

    The objects stay alive for that time only. Entering takes about 0.3 s of CPU time.

    Args:
        kinds: Classes whose instances' holders are wanted. The collector need not know the instances themselves.
        more: Objects that the collector does not know, such as dicts of plain values in local variables.
        searches_s: CPU time of all searches for referrers together, from the first on; if the visit of all objects
            took longer, as much.
        most_s: CPU time, from entering on, after which searches end sooner, but not before ``LEAST_SEARCHES_S``.

    Attributes:
        counts: Number of live objects of each class.
        held: Who holds instances of ``kinds`` directly, and which.
    """

    def __init__(
        self,
        kinds: Iterable[type],
        more: Iterable[Any] = (),
        *,
        searches_s: float = SEARCHES_S,
        most_s: float = math.inf,
    ) -> None:
        self._more, self._searches_s, self._most_s = list(more), searches_s, most_s
        self._kinds = frozenset(kinds)
        self._objects: list[Any] = []
        self._data: list[Any] = []
        self._data_kinds: list[type] = []
        self._ids: npt.NDArray[np.int64] | None = None
        self._own: set[int] = set()
        self._begun_s, self._visit_s, self._late_s = 0.0, 0.0, math.inf
        self.counts: Counter[type] = Counter()
        self.held: Holders = {}

    def __enter__(self) -> Heap:
        self._begun_s = time.thread_time()
        try:
            self._visit()
        except BaseException:
            self.__exit__()
            raise
        self._visit_s = time.thread_time() - self._begun_s
        return self

    def _visit(self) -> None:
        self._objects = all_but_tuples()
        self._objects.extend(self._more)
        kinds = list(map(type, self._objects))
        self.counts = Counter(kinds)
        # Most objects are functions and parts of classes, which hold no data.
        are_data = {kind: _is_data(kind) for kind in self.counts}
        data = list(itertools.compress(self._objects, map(are_data.__getitem__, kinds)))
        # This list may be in itself, as long as it is.
        self._data = waiting = _without(data, {id(self._objects), *globals_of_libraries()})
        # Tuples that others hold: none of them is still being made, so they may have one more reference. And dicts of
        # plain values and arrays, which the collector doesn't track.
        found: dict[int, Any] = {}
        others: list[Any] = []
        wanted = frozenset((tuple, dict, *self._kinds))
        while waiting:
            before = len(found)
            for chunk in _chunks(waiting):
                objects = gc.get_referents(*chunk)
                some = list(itertools.compress(objects, map(wanted.__contains__, map(type, objects))))
                if not self._kinds.isdisjoint(map(type, some)):
                    self._note(chunk)
                found.update(zip(map(id, some), some, strict=True))
            waiting = list(filter(_is_unknown, itertools.islice(found.values(), before, None)))
            others += waiting
        self._own = {id(each) for each in (self._objects, self._data, self._more, self.held, self.counts, vars(self))}
        self._own.add(id(self))
        for key in self._own:
            self.held.pop(key, None)
        self._data += others
        self._data_kinds = list(map(type, self._data))
        self._objects += others

    def __exit__(self, *error: object) -> None:
        self._objects.clear()  # it may be in itself
        self._data.clear()
        self._data_kinds.clear()
        self._more.clear()
        self.held.clear()
        self.counts.clear()

    def _note(self, chunk: list[Any]) -> None:
        for small in _chunks(chunk, _SMALL_CHUNK):
            if self._kinds.isdisjoint(map(type, gc.get_referents(*small))):
                continue
            for each in small:
                held = [item for item in gc.get_referents(each) if type(item) in self._kinds]
                if held:
                    self.held[id(each)] = each, held

    def of(self, kinds: Iterable[type]) -> list[Any]:
        """The live objects of some classes."""
        wanted = frozenset(kinds).intersection(self.counts)
        if not wanted:
            return []
        if all(map(_is_data, wanted)):
            objects, kinds = self._data, self._data_kinds
        else:
            objects, kinds = self._objects, list(map(type, self._objects))
        return list(itertools.compress(objects, map(wanted.__contains__, kinds)))

    @property
    def is_late(self) -> bool:
        """Whether searches for referrers have taken as much time as all of them may."""
        return time.thread_time() > self._late_s

    def referrers(self, targets: Sequence[Any]) -> Holders:
        """Who refers to a few given objects, and to which; of classes with many such objects, some.

        One visit takes 0.05 s of CPU time, of many targets more.
        """
        if self._late_s == math.inf:
            now = time.thread_time()
            late_s = min(now + max(self._searches_s, self._visit_s), self._begun_s + self._most_s)
            self._late_s = max(late_s, now + LEAST_SEARCHES_S)
        wanted = frozenset(map(id, targets))
        found: Holders = {}
        referrers = _some_alike(gc.get_referrers(*targets))
        for each in itertools.compress(referrers, self._are_known(referrers)):  # the others are our own lists
            held = [item for item in gc.get_referents(each) if id(item) in wanted]
            if held:
                found[id(each)] = each, held
        return found

    def closing_over(self, cells: Iterable[CellType]) -> Holders:
        """The functions that close over the given variables, and over which; takes 0.05 s."""
        wanted = frozenset(map(id, cells))
        kinds = map(type, self._objects)
        functions = itertools.compress(self._objects, map(operator.is_, kinds, itertools.repeat(FunctionType)))
        found: Holders = {}
        for each in functions:
            closure = each.__closure__
            if closure and not wanted.isdisjoint(map(id, closure)):
                found[id(each)] = each, [cell for cell in closure if id(cell) in wanted]
        return found

    def holders_of(self, targets: Iterable[Any]) -> Holders:
        """As ``referrers``, for any number of targets, without functions and parts of classes; takes 0.2 s."""
        wanted = frozenset(map(id, targets))
        found: Holders = {}
        for large in _chunks(self._data):
            if wanted.isdisjoint(map(id, gc.get_referents(*large))):
                continue
            for chunk in _chunks(large, _SMALL_CHUNK):
                if wanted.isdisjoint(map(id, gc.get_referents(*chunk))):
                    continue
                for each in chunk:
                    held = [item for item in gc.get_referents(each) if id(item) in wanted]
                    if held and id(each) not in self._own:
                        found[id(each)] = each, held
        return found

    def _are_known(self, values: Sequence[Any]) -> list[bool]:
        """Which objects were there when all were visited, or are closures' tuples, which only functions hold."""
        import numpy as np

        if self._ids is None:
            # An array: a set would make as many numbers as there are objects.
            self._ids = np.fromiter(map(id, self._objects), np.int64, len(self._objects))
            self._ids.sort()
        ids = np.fromiter(map(id, values), np.int64, len(values))
        places = np.searchsorted(self._ids, ids).clip(max=max(0, len(self._ids) - 1))
        known = (self._ids[places] == ids).tolist() if len(self._ids) else [False] * len(values)
        return [
            (is_known and id(value) not in self._own) or _is_closure(value)
            for value, is_known in zip(values, known, strict=True)
        ]


def _is_data(kind: type) -> bool:
    return not issubclass(kind, _NO_DATA) and str(kind.__module__) not in _DESCRIBE_CODE


def _is_unknown(value: Any) -> bool:
    """Whether a value that another holds is not among what the collector told."""
    return type(value) is tuple or (type(value) is dict and not gc.is_tracked(value))


def _without(objects: list[Any], ids: set[int]) -> list[Any]:
    """Objects without some, which are told by their ids: to compare them would call their own methods."""
    return list(itertools.compress(objects, map(operator.not_, map(ids.__contains__, map(id, objects)))))


def _some_alike(objects: list[Any]) -> list[Any]:
    """Leave out most objects of classes that have many here, such as a tree's nodes that know their parent."""
    counts = Counter(map(type, objects))
    many = {kind for kind, count in counts.items() if count > _MANY_ALIKE and kind.__module__ != "builtins"}
    if not many:
        return objects
    some = [each for kind in many for each in itertools.islice((one for one in objects if type(one) is kind), _ALIKE)]
    return [*(each for each in objects if type(each) not in many), *some]


def _is_closure(value: Any) -> bool:
    return type(value) is tuple and bool(value) and all(type(each) is CellType for each in value)


def _chunks(objects: list[Any], size: int = _CHUNK) -> Iterator[list[Any]]:
    for start in range(0, len(objects), size):
        yield objects[start : start + size]
