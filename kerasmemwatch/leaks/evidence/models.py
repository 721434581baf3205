"""The live models that are part of no other, and what holds them."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from kerasmemwatch.attribution.variables.variable_size import variable_size
from kerasmemwatch.compat.keras import FUNCTIONAL, LAYERS
from kerasmemwatch.leaks.evidence.chains import Chain, find_chain, place_of
from kerasmemwatch.leaks.evidence.heap import Heap
from kerasmemwatch.leaks.evidence.piles import class_name
from kerasmemwatch.leaks.evidence.places import Place
from kerasmemwatch.leaks.evidence.references import Referrers
from kerasmemwatch.leaks.evidence.roots import registries, user_roots

__all__ = ["FEW_MODELS", "Models", "find_models", "follow_models", "followed"]

_MAX_MODELS, FEW_MODELS = 1, 2


@dataclass(frozen=True)
class Models:
    """The live models that are part of no other.

    Attributes:
        count: How many.
        num_bytes: Bytes of their variables.
        chains: What holds some of the older ones.
        place: The line that keeps them, if found.
        more: How many more there are than when classes were counted before; ``None`` if they were not.
    """

    count: int
    num_bytes: int
    chains: tuple[Chain, ...] = ()
    place: Place | None = None
    more: int | None = None


def follow_models(every: Sequence[Any], frame: FrameType | None, most_s: float) -> Models:
    """What holds one of some models that are known to live, without a visit of all objects.

    Args:
        every: The models, oldest first.
        frame: Innermost frame of the stack whose functions' variables may hold them.
        most_s: CPU time that the search may take.
    """
    outer = _without_parts(every)
    found = Models(len(outer), sum(map(_variable_bytes, outer)))
    with Referrers(most_s) as referrers:
        return followed(found, outer, lambda each: find_chain(referrers, each, user_roots(frame), registries()))


def find_models(heap: Heap, before: Mapping[str, int] | None) -> tuple[list[Any], Models]:
    """The live models, and how many they are.

    Args:
        before: Number of objects by class when they were counted; ``None`` if they were not.
    """
    base = getattr(sys.modules.get("keras"), "Model", None)
    kinds = [kind for kind in heap.counts if base in kind.__mro__]
    every = heap.of(kinds)
    outer = _without_parts(every)
    more = None
    if before is not None and every:
        more = len(every) - sum(before.get(class_name(kind), 0) for kind in kinds)
        more = round(more * len(outer) / len(every))
    return outer, Models(len(outer), sum(map(_variable_bytes, outer)), more=more)


def _without_parts(every: Sequence[Any]) -> list[Any]:
    parts = {id(part) for model in every for part in _parts_of(model)}
    parts |= _earlier_parts(model for model in every if id(model) not in parts)
    return [model for model in every if id(model) not in parts]


def _earlier_parts(every: Iterable[Any]) -> set[int]:
    """Ids of the functional models that a Sequential made before, with fewer layers: it keeps them.

    Each has other layers, so two of the same layers are models of the user's.
    """
    whole: dict[int, tuple[type, frozenset[int]]] = {}
    by_layers: defaultdict[tuple[type, frozenset[int]], list[int]] = defaultdict(list)
    for model in every:
        inner, layers = FUNCTIONAL.of(model), _layers_of(model)
        if inner is not None:
            whole.update((layer, (type(inner), layers)) for layer in layers)
        by_layers[type(model), layers].append(id(model))
    return {
        ids[0]
        for (kind, layers), ids in by_layers.items()
        if len(ids) == 1 and any(kind is whole[each][0] and layers < whole[each][1] for each in layers & whole.keys())
    }


def _layers_of(model: Any) -> frozenset[int]:
    return frozenset(map(id, LAYERS.of(model, None) or ()))


def _parts_of(model: Any) -> Iterator[Any]:
    inner = FUNCTIONAL.of(model)
    if inner is not None:
        yield inner
    waiting = [model]
    for _ in range(1000):
        if not waiting:
            return
        layers = LAYERS.of(waiting.pop(), None) or ()
        for layer in layers:
            yield layer
            waiting.append(layer)


def _variable_bytes(model: Any) -> int:
    try:
        variables = [*getattr(model, "variables", ()), *getattr(getattr(model, "optimizer", None), "variables", ())]
    except Exception:  # a property of the user's
        return 0
    return sum(variable_size(each).bytes or 0 for each in {id(each): each for each in variables}.values())


def followed(models: Models, others: list[Any], follow: Callable[[Any], Chain]) -> Models:
    """With what holds one of the older models, if there are more than a few."""
    some = others[len(others) // 4 :][:_MAX_MODELS] if models.count > FEW_MODELS else []
    chains = tuple(map(follow, some))
    some.clear()
    return replace(models, chains=chains, place=next(filter(None, map(place_of, chains)), None))
