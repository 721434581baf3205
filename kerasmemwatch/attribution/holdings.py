"""What an object keeps in its attributes: variables, layers, metrics, optimizers, seed generators.

Keras lists only what it tracks. Raw ``tf.Variable``s, and whatever sits in a ``tf.Module``, are found by looking.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Held", "Kinds", "closure", "held_by", "held_in", "is_bookkeeping"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes)

# Attributes in which Keras, TensorFlow and PyTorch index what is also somewhere else: children, graphs, checkpoints.
_BOOKKEEPING = frozenset(
    {
        "_buffers",
        "_compiled_trainable_state",
        "_functional",
        "_inbound_nodes",
        "_inputs_struct",
        "_layers",
        "_loss_ids",
        "_losses",
        "_metrics",
        "_modules",
        "_nodes",
        "_nodes_by_depth",
        "_non_trainable_variables",
        "_operations",
        "_operations_by_depth",
        "_outbound_nodes",
        "_outputs_struct",
        "_parameters",
        "_seed_generators",
        "_tracked",
        "_tracker",
        "_trainable_variables",
        "_variables",
    }
)


@dataclass(frozen=True, eq=False)
class Held:
    """One thing found in an object's attributes.

    Attributes:
        where: How to reach it, from the object: ``"tables[0]"``, ``"helper.scale"``.
        value: The thing itself.
        kind: ``"variable"``, ``"layer"``, ``"metric"``, ``"optimizer"`` or ``"seed"``.
    """

    where: str
    value: Any
    kind: str


@dataclass(frozen=True)
class Kinds:
    """The classes to look for, of the libraries that are loaded already."""

    by_name: tuple[tuple[str, tuple[type, ...]], ...]
    modules: tuple[type, ...]

    @classmethod
    def loaded(cls) -> Kinds:
        """Look the classes up without importing a library."""
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
        """Tell the kind of a value; ``None`` if it is none of them."""
        return next((name for name, classes in self.by_name if isinstance(value, classes)), None)


def _classes(*places: tuple[Any, str]) -> tuple[type, ...]:
    found = (getattr(module, name, None) for module, name in places)
    return tuple(value for value in found if isinstance(value, type))


def is_bookkeeping(name: str) -> bool:
    """Whether an attribute only indexes what is held elsewhere."""
    # TensorFlow's checkpoint dependencies of any trackable object start with "_self_".
    return name in _BOOKKEEPING or name.startswith("_self_")


def held_by(owner: Any, kinds: Kinds) -> Iterator[Held]:
    """Find what an object holds in its attributes, also in containers and ``tf.Module``s, at any depth.

    Nothing is called or computed: only ``vars()`` and containers are read, so no property runs.

    Args:
        owner: A layer, model or optimizer.
        kinds: The classes to look for.

    Yields:
        What was found, in the order of the attributes; a thing held twice is yielded twice.
    """
    for name, value in _attributes(owner):
        yield from held_in(value, kinds, name)


def held_in(value: Any, kinds: Kinds, where: str = "") -> Iterator[Held]:
    """Find what a value is or contains; see :func:`held_by`."""
    stack, entered = [(where, value)], set()
    while stack:
        where, value = stack.pop()
        kind = kinds.of(value)
        if kind is not None:
            yield Held(where, value, kind)
        elif id(value) not in entered:
            parts = _parts(where, value, kinds)
            if parts:
                # Only containers are remembered, and they outlive the walk: their ids stay theirs.
                entered.add(id(value))
                stack.extend(reversed(parts))


def closure(start: Iterable[Any], kind: str, kinds: Kinds) -> list[Any]:
    """Follow things of one kind into what they hold of the same kind.

    Args:
        start: Optimizers, say.
        kind: ``"optimizer"``, then.
        kinds: The classes to look for.

    Returns:
        Each thing once, an outer one before what it holds.
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
