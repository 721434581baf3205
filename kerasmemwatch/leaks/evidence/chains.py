"""The way from a name in user code, or from a registry of a library, to a live object."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import BuiltinFunctionType, CellType, FrameType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

from kerasmemwatch.leaks.evidence.heap import Heap
from kerasmemwatch.leaks.evidence.places import Place, adding_line, calling_line
from kerasmemwatch.leaks.evidence.reads import attributes_of, default_of, file_of, is_a, items_of, size_of, variable_of
from kerasmemwatch.leaks.evidence.references import Referrers
from kerasmemwatch.leaks.evidence.roots import (
    Root,
    is_library_file,
    is_python_file,
    is_user_file,
    local_of,
    module_of_dict,
)

__all__ = ["FINALIZER_FIX", "LRU_CACHE", "Chain", "Step", "find_chain", "place_of"]

_CLOSES_OVER, _DEFAULT = "closes over ", "default value of "
_FINALIZERS = "weakref", "finalize._registry"
LRU_CACHE = type(functools.lru_cache(is_library_file)).__name__
FINALIZER_FIX = (
    "weakref.finalize() keeps its function and arguments until the object dies: give it a function and values that "
    "don't lead back to the object, as a method of it does."
)

_MANY = 8
_MAX_DEPTH, _MAX_FRONTIER, _MAX_BEYOND_LIBRARY = 12, 48, 3
_CONTAINERS = (list, dict, tuple, set, frozenset, CellType, FunctionType, MethodType)


@dataclass(frozen=True)
class Step:
    """One object on the way, as values: nothing of it is kept.

    Attributes:
        access: How the one before leads to it: ``".model"``, ``"[3]"``, ``"['x']"``; ``""`` if unknown.
        class_name: Its class.
        module: Its class's module.
        size: How many things it holds, if it is a container.
        file: Source of a function, also of one within an ``lru_cache``; ``""`` of anything else.
        line: Its first line; 0 of anything else.
    """

    access: str
    class_name: str
    module: str
    size: int | None = None
    file: str = ""
    line: int = 0


@dataclass(frozen=True)
class Chain:
    """A way to an object.

    Attributes:
        root: Where it begins; ``None`` if nothing leads to the object that the collector sees.
        steps: The objects from the root's value to the object.
        is_cut: Whether the search ended, for lack of time or too far away, before a root was found.
    """

    root: Root | None
    steps: tuple[Step, ...] = field(default=())
    is_cut: bool = False

    @property
    def is_librarys(self) -> bool:
        """Whether a module of a library holds the object by itself, as TensorFlow's caches are held.

        Python's own modules hold what they are told to hold, as ``weakref.finalize`` is.
        """
        root = self.root
        is_held = root is not None and root.kind in ("global", "class")
        return root is not None and is_held and is_library_file(root.file) and not is_python_file(root.file)

    @property
    def outer(self) -> Chain:
        """The way to the function that holds the object in a variable of its own; else the whole way."""
        is_own = len(self.steps) > 1 and _own_variable(self.steps[-1].access)
        return replace(self, steps=self.steps[:-1]) if is_own else self

    @property
    def is_default(self) -> bool:
        """Whether a function holds the object as the default value of a parameter."""
        return bool(self.steps) and self.steps[-1].access.startswith(_DEFAULT)

    @property
    def is_finalizers(self) -> bool:
        """Whether ``weakref.finalize`` holds the object, for a function that it is to call."""
        return self.root is not None and (self.root.scope, self.root.name) == _FINALIZERS

    def holder(self, count: int) -> str:
        """What holds so many objects like this one, as an expression: the largest container on the way."""
        sizes = [(step.size or 0, number) for number, step in enumerate(self.steps[:-1])]
        most, last = max(sizes, default=(0, 0))
        if min(count, most) >= _MANY:
            return replace(self, steps=self.steps[: last + 1]).expression
        return self.expression.rpartition("[")[0] if self.expression.endswith("]") else self.expression

    @property
    def expression(self) -> str:
        """The object as an expression of the user's: ``"trainer.history[0]"``; ``""`` without a root."""
        name = "" if self.root is None else self.root.name
        for step in self.steps:
            name = _own_variable(step.access) or name + step.access
        return name


def find_chain(heap: Heap | Referrers, target: Any, roots: Mapping[int, Root], registries: Mapping[int, str]) -> Chain:
    """Find the shortest way to an object, from a user's name if there is one and the heap's time allows.

    Args:
        roots: Users' names, by the id of what they hold.
        registries: Names of libraries' registries, by id.
    """
    children: dict[int, Any] = {}
    frontier, seen, library = [target], {id(target)}, None
    if id(target) in roots:
        return Chain(roots[id(target)], (_step("", target),))
    if heap.is_late:
        return Chain(None, (_step("", target),), is_cut=True)
    beyond = 0
    for _ in range(_MAX_DEPTH):
        found = heap.referrers(frontier)
        nearer = [(each, held[0]) for each, held in found.values() if id(each) not in seen]
        following = []
        for each, child in nearer:
            seen.add(id(each))
            children[id(each)] = child
            root, is_users = _root(each, child, roots, registries)
            if root is not None and is_users:
                return _chain(root, each, children, target)
            if root is not None:
                library = library or _chain(root, each, children, target)
            elif not is_a(each, (FrameType, ModuleType, BuiltinFunctionType)):
                following.append(each)
        beyond += library is not None
        # Of a class with many objects, such as a tree's nodes that know their parent, a few are enough.
        alike = Counter(map(type, following))
        frontier = sorted(following, key=lambda each: (_rank(each), alike[type(each)]))[:_MAX_FRONTIER]
        if not frontier or beyond > _MAX_BEYOND_LIBRARY or heap.is_late:
            break
    return library or Chain(None, (_step("", target),), is_cut=bool(frontier))


def place_of(chain: Chain, *, assigned: bool = True) -> Place | None:
    """The line that adds to the container at the end of a way, or that assigns the name nearest to it."""
    is_named = False
    scope: int | str
    for number in range(len(chain.steps) - 1, 0, -1):
        before, access = chain.steps[number - 1], chain.steps[number].access
        if before.class_name == LRU_CACHE and is_user_file(before.file):
            return Place.read(before.file, before.line)
        if _own_variable(access):
            file, name, scope = before.file, _own_variable(access), before.line
        elif access.startswith("."):
            file, name, scope = file_of(sys.modules.get(before.module)), access[1:], before.class_name
        else:
            continue
        # An attribute of a library's class, such as a queue's list, is filled by a call on what holds it.
        if is_user_file(file):
            is_named = True
            found = adding_line(file, name, scope, assigned=assigned)
            if found is not None:
                return found
    root = chain.root
    if chain.is_finalizers:
        files = filter(is_user_file, dict.fromkeys(map(file_of, sys.modules.copy().values())))
        lines = list(filter(None, (calling_line(file, "weakref", "finalize") for file in files)))
        return lines[0] if len(lines) == 1 else None
    if root is None or not is_user_file(root.file) or (is_named and assigned):
        return None
    return adding_line(root.file, root.name.rpartition(".")[2], root.line, assigned=assigned)


def _root(each: Any, child: Any, roots: Mapping[int, Root], registries: Mapping[int, str]) -> tuple[Root | None, bool]:
    """The root that an object is, and whether it is a user's."""
    if id(each) in roots:
        return roots[id(each)], True
    if id(each) in registries:
        return Root("registry", registries[id(each)], "", ""), False
    module = module_of_dict(each)
    if module is not None:
        name = _key(each, child)
        return Root("global", name, *module), is_user_file(module[1])
    if is_a(each, GeneratorType):
        code = each.gi_code
        name = local_of(each.gi_frame, child) or code.co_name
        root = Root("generator", name, code.co_name, code.co_filename, code.co_firstlineno)
        return root, is_user_file(code.co_filename)
    if is_a(each, type):
        module_name = str(each.__module__)
        file = file_of(sys.modules.get(module_name))
        return Root("class", each.__qualname__.rpartition(".")[2], module_name, file), not _is_library(module_name)
    return None, False


def _chain(root: Root, first: Any, children: Mapping[int, Any], target: Any) -> Chain:
    """The objects from a root's value to the target, without the module or class whose name the root is."""
    path = [first]
    while path[-1] is not target:
        path.append(children[id(path[-1])])
    starts_within = root.kind in ("class", "generator") or (root.kind == "global" and module_of_dict(first) is not None)
    if starts_within:
        del path[0]
    if root.kind == "class" and len(path) > 1 and type(path[0]) is dict:
        root = replace(root, name=f"{root.name}.{_key(path[0], path[1])}")
        del path[0]
    return Chain(root, tuple(_steps(path)))


def _steps(path: Sequence[Any]) -> list[Step]:
    found, before = [], None
    skipped: Any = None
    for index, each in enumerate(path):
        following = path[index + 1] if index + 1 < len(path) else None
        # The dict of an object's or a class's attributes belongs to the one before.
        is_within = type(each) is dict and before is not None and following is not None
        if is_within and (is_a(before, type) or attributes_of(before) is each):
            skipped = each
            continue
        is_closure = is_a(before, FunctionType) and any(one is each for one in _inner(before))
        if (is_closure or type(each) is CellType) and following is not None:
            continue
        found.append(_step("" if before is None else _access(before, each, skipped), each))
        before, skipped = each, None
    return found


def _inner(function: Any) -> tuple[Any, ...]:
    """What holds a function's own variables: its cells, and the default values of its parameters."""
    return function.__closure__, function.__defaults__, function.__kwdefaults__


def _step(access: str, value: Any) -> Step:
    kind = type(value)
    name = value.__qualname__ if is_a(value, FunctionType) else kind.__name__
    function: Any = (attributes_of(value) or {}).get("__wrapped__") if name == LRU_CACHE else value
    code = function.__code__ if is_a(function, FunctionType) else None
    file, line = ("", 0) if code is None else (code.co_filename, code.co_firstlineno)
    module = str((value if is_a(value, type) else kind).__module__)
    return Step(access, name, module, size_of(value), file, line)


def _access(holder: Any, value: Any, attributes: Any = None) -> str:
    if attributes is not None:
        return f".{_key(attributes, value)}"
    if size_of(holder) is not None:
        key = next((key for key, each in items_of(holder) if each is value), None)
        return f"[{repr(key)[:80]}]" if type(key) in (str, bytes, int, float, bool) else "[...]"
    if is_a(holder, FunctionType):
        name = variable_of(holder, value)
        default = "" if name else default_of(holder, value)
        return f"{_CLOSES_OVER}{name}" if name else f"{_DEFAULT}{default}" if default else ""
    own = attributes_of(holder)
    name = _key(own, value) if own else ""
    return f".{name}" if name else ""


def _own_variable(access: str) -> str:
    """The variable of a function that leads to its value: one that it closes over, or a parameter."""
    for before in (_CLOSES_OVER, _DEFAULT):
        if access.startswith(before):
            return access.removeprefix(before)
    return ""


def _key(names: dict[str, Any], value: Any) -> str:
    return next((key[:80] for key, each in items_of(names) if each is value and type(key) is str), "")


def _is_library(module: str) -> bool:
    return module.partition(".")[0] in ("tensorflow", "keras", "numpy", "builtins", "kerasmemwatch")


def _rank(value: Any) -> int:
    """Users' objects first, then containers and callbacks; a library's inner objects come last."""
    kind = type(value)
    if kind in _CONTAINERS or kind.__name__ == "deque":
        return 1
    return 0 if not _is_library(str(kind.__module__)) else 2 if "callback" in str(kind.__module__) else 3
