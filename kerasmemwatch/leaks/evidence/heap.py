"""One visit of all objects: how many there are of each class, who holds those of some, and who refers to given ones."""

from __future__ import annotations

import gc
import itertools
import math
import operator
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import (
    BuiltinFunctionType,
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
from typing import Any

from kerasmemwatch.attribution.variables.live_objects import all_but_tuples, hashable
from kerasmemwatch.leaks.evidence.references import Holders, References
from kerasmemwatch.leaks.evidence.roots import globals_of_libraries

__all__ = ["LEAST_SEARCHES_S", "SEARCHES_S", "Heap"]

SEARCHES_S, LEAST_SEARCHES_S = 0.4, 0.25
# Parts of code that hold other objects, and those that hold nothing but parts of code.
_CODE = (
    FunctionType,
    BuiltinFunctionType,
    ModuleType,
    type,
    property,
    staticmethod,
    classmethod,
    weakref.ref,
    MappingProxyType,
)
_INNER_CODE = (
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
    GenericAlias,
    UnionType,
)
# Modules of Python's own whose classes describe code: a third of all references of a program with TensorFlow.
_DESCRIBE_CODE = frozenset(("inspect", "typing", "dataclasses", "_frozen_importlib", "_frozen_importlib_external"))


class Heap:
    """All objects that Python's garbage collector knows, for the time of a ``with`` block.

    The objects stay alive for that time only. Entering takes about 0.4 s of CPU time.

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
        self._by_kind: dict[type, list[Any]] = {}
        self._globals: list[Any] = []
        self._references = self._code_references = References()
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
        objects = all_but_tuples()
        self._references, self._code_references = References(), References()  # only now: they are not among them
        try:
            objects += self._more
            self._sort(objects, {id(objects), id(self), *map(id, (vars(self), *vars(self).values()))})
        finally:
            objects.clear()  # it may be in itself
        held = {id(each): each for each in self._index_data()}
        self.held = self._references.holders(held.values())

    def _sort(self, objects: list[Any], own: set[int]) -> None:
        """Tell the objects apart by class, without our own and those that describe code."""
        kinds = list(map(type, objects))
        self.counts = Counter(kinds)
        found: dict[type, list[Any]] = {}
        found.update((kind, []) for kind in self.counts if _is_data(kind) or issubclass(kind, _CODE))
        for each, kind in zip(objects, kinds, strict=True):
            if kind in found:
                found[kind].append(each)
        self._globals += globals_of_libraries()
        own.update(map(id, self._globals))
        for kind in (dict, list, Counter, Heap):
            found[kind] = [each for each in found.get(kind, ()) if id(each) not in own]
        self._by_kind = found

    def _index_data(self) -> Iterator[Any]:
        """Index what holds data, unlike most objects, which are functions; yields the instances of ``kinds``."""
        # Tuples that others hold: none of them is still being made, so they may have one more reference. And dicts of
        # plain values and arrays, which the collector doesn't track.
        found: dict[int, Any] = {}
        wanted, containers = frozenset((tuple, dict, *self._kinds)), frozenset((tuple, dict))
        waiting = list(itertools.chain.from_iterable(self._of(_is_data)))
        while waiting:
            before = len(found)
            for referents in self._references.visit(waiting):
                some = list(_of_kinds(referents, wanted))
                kinds = list(map(type, some))
                unknown = list(filter(_is_unknown, itertools.compress(some, map(containers.__contains__, kinds))))
                found.update(zip(map(id, unknown), unknown, strict=True))
                yield from itertools.compress(some, map(self._kinds.__contains__, kinds))
            waiting = list(itertools.islice(found.values(), before, None))
        for each in found.values():
            self._by_kind.setdefault(type(each), []).append(each)

    def _index_code(self) -> None:
        """Index functions, classes and modules; of libraries' functions those that close over something."""
        libraries = set(map(id, self._globals))
        code = list(self._globals)
        for objects in self._of(lambda kind: issubclass(kind, _CODE) and kind is not FunctionType):
            code += objects
        for each in self.of([FunctionType]):
            if each.__closure__ or id(each.__globals__) not in libraries:
                code.append(each)
        # Variables that functions close over, and defaults of parameters: functions only hold these.
        found: dict[int, Any] = {}
        for referents in self._code_references.visit(code):
            tuples = itertools.compress(referents, map(operator.is_, map(type, referents), itertools.repeat(tuple)))
            tracked = list(filter(gc.is_tracked, tuples))
            found.update(zip(map(id, tracked), tracked, strict=True))
        for _ in self._code_references.visit(list(found.values())):
            pass

    def _of(self, is_wanted: Callable[[type], bool]) -> Iterator[list[Any]]:
        return (objects for kind, objects in self._by_kind.items() if objects and is_wanted(kind))

    def __exit__(self, *error: object) -> None:
        for each in (self._more, self._by_kind, self._globals, self._references, self._code_references):
            each.clear()
        self.held.clear()
        self.counts.clear()

    def of(self, kinds: Iterable[type]) -> list[Any]:
        """The live objects of some classes."""
        return [each for kind in dict.fromkeys(kinds) for each in self._by_kind.get(kind, ())]

    @property
    def is_late(self) -> bool:
        """Whether searches for referrers have taken as much time as all of them may."""
        return time.thread_time() > self._late_s

    def referrers(self, targets: Sequence[Any]) -> Holders:
        """Who refers to given objects, and to which; of classes with many such objects, some.

        The first search takes 0.1 s of CPU time, any other 0.01 s.
        """
        if self._late_s == math.inf:
            self._index_code()
            now = time.thread_time()
            late_s = min(now + max(self._searches_s, self._visit_s), self._begun_s + self._most_s)
            self._late_s = max(late_s, now + LEAST_SEARCHES_S)
        return {
            **self._references.holders(targets, some=True),
            **self._code_references.holders(targets, some=True),
        }

    def holders_of(self, targets: Iterable[Any]) -> Holders:
        """As ``referrers``, without functions, classes and modules, and without leaving out any."""
        return self._references.holders(targets)


def _of_kinds(values: list[Any], kinds: frozenset[type]) -> Iterator[Any]:
    try:
        yield from list(itertools.compress(values, map(kinds.__contains__, map(type, values))))
    except TypeError:  # a class without a hash is among theirs
        yield from (each for each in hashable(values) if type(each) in kinds)


def _is_data(kind: type) -> bool:
    return not issubclass(kind, (*_CODE, *_INNER_CODE)) and str(kind.__module__) not in _DESCRIBE_CODE


def _is_unknown(value: Any) -> bool:
    """Whether a tuple or a dict that another object holds is not among what the collector told."""
    return type(value) is tuple or not gc.is_tracked(value)
