"""Contents of an object's attributes: variables, layers, metrics, optimizers and seed generators.

Keras lists only what it tracks. Raw ``tf.Variable``s, and the contents of a ``tf.Module``, have to be searched.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kerasmemwatch.compat.keras import BOOKKEEPING

__all__ = [
    "Held",
    "Kinds",
    "closure",
    "held_by",
    "held_in",
    "is_bookkeeping",
    "is_module",
    "module_classes",
    "modules_of",
]

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


@dataclass(frozen=True, eq=False)
class Held:
    """One thing found in an object's attributes."""

    where: str  # its path from the object: `"tables[0]"`, `"helper.scale"`
    value: Any  # the thing itself
    kind: str  # `"variable"`, `"layer"`, `"metric"`, `"optimizer"` or `"seed"`


@dataclass(frozen=True)
class Kinds:
    """The classes to look for, of libraries that are already loaded."""

    by_name: tuple[tuple[str, tuple[type, ...]], ...]
    modules: tuple[type, ...]
    # By class: a model with thousands of layers has few. For one walk only, as it keeps users' classes alive.
    _known: dict[type, str | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def loaded(cls) -> Kinds:
        """Look up the classes without importing a library."""
        keras, tensorflow = sys.modules.get("keras"), sys.modules.get("tensorflow")
        return cls(
            by_name=(
                ("variable", _classes((keras, "Variable"), (tensorflow, "Variable"))),
                # A user's class may be both a metric and a layer; Keras then treats it as a metric.
                ("metric", _classes((getattr(keras, "metrics", None), "Metric"))),
                ("layer", _classes((keras, "Layer"))),
                ("optimizer", _classes((getattr(keras, "optimizers", None), "Optimizer"))),
                ("seed", _classes((getattr(keras, "random", None), "SeedGenerator"))),
            ),
            modules=_classes((tensorflow, "Module")),
        )

    def of(self, value: Any) -> str | None:
        """Return the kind of a value; ``None`` if it is none of them."""
        kind = type(value)
        if kind in self._known:
            return self._known[kind]
        found = next((name for name, classes in self.by_name if isinstance(value, classes)), None)
        if getattr(value, "__class__", kind) is kind:  # a proxy counts as the object that it represents
            self._known[kind] = found
        return found

    def of_class(self, kind: type) -> str | None:
        """Return the kind of a class's instances; a user's ``tf.Module`` is a ``"module"``."""
        # Compares the bases themselves: issubclass of an abstract class asks each of its subclasses in turn.
        bases = set(kind.__mro__)
        found = next((name for name, classes in self.by_name if bases.intersection(classes)), None)
        is_users = str(kind.__module__).partition(".")[0] not in ("tensorflow", "keras")
        return found or ("module" if is_users and bases.intersection(self.modules) else None)


def _classes(*places: tuple[Any, str]) -> tuple[type, ...]:
    found = (getattr(module, name, None) for module, name in places)
    return tuple(value for value in found if isinstance(value, type))


def is_bookkeeping(name: str) -> bool:
    """Whether an attribute only indexes objects that are held elsewhere."""
    # TensorFlow's checkpoint dependencies of any trackable object begin with "_self_".
    return name in BOOKKEEPING or name.startswith("_self_")


def is_module(value: Any, kinds: Kinds | None = None) -> bool:
    """Whether a value is a ``tf.Module`` without a kind of its own."""
    kinds = kinds or Kinds.loaded()
    return bool(kinds.modules) and isinstance(value, kinds.modules) and kinds.of(value) is None


def module_classes() -> set[type]:
    """Return the user's ``tf.Module`` classes: neither TensorFlow's own nor of another kind."""
    kinds = Kinds.loaded()
    with_kinds = tuple(kind for _, classes in kinds.by_name for kind in classes)
    found, pending = set[type](), list[Any](kinds.modules)
    while pending:
        subclasses = {each for each in pending.pop().__subclasses__() if not issubclass(each, with_kinds)} - found
        found |= subclasses
        pending += subclasses
    return {each for each in found if each.__module__.partition(".")[0] not in ("tensorflow", "keras")}


def modules_of(module: Any) -> list[Any]:
    """Return the ``tf.Module``s and Keras layers that a ``tf.Module`` holds directly or in containers, in order."""
    kinds = Kinds.loaded()
    found, entered = list[Any](), set()
    stack = [value for _, value in reversed(_attributes(module))]
    while stack:
        value = stack.pop()
        if id(value) in entered:
            continue
        entered.add(id(value))
        if kinds.of(value) == "layer" or is_module(value, kinds):
            found.append(value)
        elif kinds.of(value) is None:
            stack.extend(part for _, part in reversed(_parts("", value, kinds)))
    return found


def held_by(owner: Any, kinds: Kinds) -> Iterator[Held]:
    """Find the contents of an object's attributes, including containers and ``tf.Module``s, at any depth.

    Nothing is called or computed: only ``vars()`` and containers are read, so no property runs.

    Yields:
        Each finding, in the order of the attributes; an object held twice is yielded twice.
    """
    for name, value in _attributes(owner):
        yield from held_in(value, kinds, name)


def held_in(value: Any, kinds: Kinds, where: str = "") -> Iterator[Held]:
    """Find the contents of a value, including itself; see :func:`held_by`."""
    stack, entered = [(where, value)], set()
    while stack:
        where, value = stack.pop()
        kind = kinds.of(value)
        if kind is not None:
            yield Held(where, value, kind)
        elif id(value) not in entered:
            parts = _parts(where, value, kinds)
            if parts:
                # Only containers are remembered. They outlive the walk, so no other object gets their ids.
                entered.add(id(value))
                stack.extend(reversed(parts))


def closure(start: Iterable[Any], kind: str, kinds: Kinds) -> list[Any]:
    """Find objects of one kind, and the objects of the same kind that they hold.

    Returns:
        Each object once, an outer one before those that it holds.
    """
    found: dict[int, Any] = {}
    pending = deque(start)
    while pending:
        value = pending.popleft()
        if id(value) not in found:
            found[id(value)] = value
            pending.extend(item.value for item in held_by(value, kinds) if item.kind == kind)
    return list(found.values())


def _attributes(owner: Any) -> list[tuple[str, Any]]:
    attributes = getattr(owner, "__dict__", {})
    return [(k, v) for k, v in attributes.items() if type(v) not in _PLAIN and not is_bookkeeping(k)]


def _parts(where: str, value: Any, kinds: Kinds) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        items = [(k, v) for k, v in value.items() if type(v) not in _PLAIN]
        return [(f"{where}[{k!r}]" if type(k) in _PLAIN else f"{where}[...]", v) for k, v in items]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return [(f"{where}[{i}]", item) for i, item in enumerate(value) if type(item) not in _PLAIN]
    if kinds.modules and isinstance(value, kinds.modules):
        return [(f"{where}.{name}", item) for name, item in _attributes(value)]
    return []
