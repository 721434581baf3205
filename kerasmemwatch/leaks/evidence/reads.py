"""Reads of objects that run no code of their classes, such as proxies, which may raise or load modules."""

from __future__ import annotations

from collections import deque
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

__all__ = ["attributes_of", "default_of", "file_of", "is_a", "is_full", "items_of", "most_of", "size_of", "variable_of"]

_CONTAINERS: tuple[type[Any], ...] = (list, dict, tuple, set, frozenset, deque)


def is_a(value: Any, kinds: type | tuple[type, ...]) -> bool:
    """As ``isinstance``, which would also ask the object what its class is."""
    return issubclass(type(value), kinds)


def attributes_of(value: Any) -> dict[str, Any] | None:
    """The dict of an object's attributes, or of a module's globals; ``None`` if it has none."""
    if type(value) is ModuleType:
        return vars(value)
    for kind in type(value).__mro__:
        descriptor: Any = vars(kind).get("__dict__")
        if type(descriptor) in (GetSetDescriptorType, MemberDescriptorType):
            found = descriptor.__get__(value)
            return found if is_a(found, dict) else None
    return None


def file_of(module: Any) -> str:
    """Path of a module's source; ``""`` if unknown."""
    return str((attributes_of(module) or {}).get("__file__") or "")


def size_of(value: Any) -> int | None:
    """How many things a container holds; ``None`` of anything else."""
    kind = next((each for each in _CONTAINERS if is_a(value, each)), None)
    return None if kind is None else int(kind.__len__(value))


def most_of(value: Any) -> int | None:
    """How many things a container may hold, as a deque with ``maxlen``; ``None`` if there is no limit."""
    return deque.maxlen.__get__(value) if is_a(value, deque) else None


def is_full(value: Any) -> bool:
    """Whether a container holds as many things as it may."""
    most = most_of(value)
    return most is not None and (size_of(value) or 0) >= most


def items_of(value: Any) -> list[tuple[Any, Any]]:
    """A dict's keys and values, or numbers and values of a list, tuple or deque; none of anything else."""
    if is_a(value, dict):
        return list(dict.items(value))
    kind = next((each for each in (list, tuple, deque) if is_a(value, each)), None)
    return [] if kind is None else list(enumerate(list(kind.__iter__(value))))


def default_of(function: FunctionType, item: Any) -> str:
    """The parameter whose default value an item is; ``""`` if it is none's."""
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][code.co_argcount - len(values) :]
    pairs = [*zip(names, values, strict=False), *items_of(function.__kwdefaults__ or {})]
    return next((name for name, value in pairs if value is item), "")


def variable_of(function: FunctionType, item: Any) -> str:
    """The variable in which a function holds an item; ``""`` if it does not."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            if cell.cell_contents is item:
                return name
        except ValueError:  # not filled yet
            continue
    return ""
