"""Layer paths: where each layer sits in the watched model, by containment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.attribution.holdings import Kinds, held_by

__all__ = ["PathedLayer", "layer_paths", "post_order"]


@dataclass(frozen=True, eq=False)
class PathedLayer:
    """A layer with its place in the model.

    Attributes:
        path: ``"encoder/block_3/attention"``; the watched model itself has its own name.
        layer: The Keras layer.
        depth: Number of levels under the watched model, which is at 0.
    """

    path: str
    layer: Any
    depth: int


def layer_paths(model: Any) -> tuple[PathedLayer, ...]:
    """Name every layer of a model by containment, the model's own name left out.

    A shared layer has its first path. A second, different layer of the same name and parent is ``"name#2"``.
    Layers that Keras does not track (in a ``tf.Module``, say) come last. Any width, depth and cycle is fine.

    Args:
        model: The watched Keras model or layer.

    Returns:
        The model, then its layers, each before its sub-layers.
    """
    seen, taken = {id(model)}, dict[str, int]()
    found = [PathedLayer("", model, 0)]
    found += _descend([(child, "", 1) for child in _children(model)], seen, taken)
    kinds = Kinds.loaded()
    # A hidden reference to a layer must not take its place in the model, so tracked layers are named first.
    for parent in found:
        hidden = [item.value for item in held_by(parent.layer, kinds) if item.kind == "layer"]
        prefix = f"{parent.path}/" if parent.depth else ""
        found += _descend([(layer, prefix, parent.depth + 1) for layer in hidden], seen, taken)
    found[0] = PathedLayer(_unique(_name(model), taken), model, 0)
    return tuple(found)


def post_order(layers: Sequence[PathedLayer]) -> Iterator[PathedLayer]:
    """Reorder what :func:`layer_paths` returns so that each layer comes after its sub-layers."""
    unfinished: list[PathedLayer] = []
    for layer in layers:
        while unfinished and unfinished[-1].depth >= layer.depth:
            yield unfinished.pop()
        unfinished.append(layer)
    yield from reversed(unfinished)


def _descend(start: list[tuple[Any, str, int]], seen: set[int], taken: dict[str, int]) -> list[PathedLayer]:
    # A stack of our own: models nest deeper than Python's recursion limit.
    found, stack = [], start[::-1]
    while stack:
        layer, prefix, depth = stack.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        path = _unique(prefix + _name(layer), taken)
        found.append(PathedLayer(path, layer, depth))
        stack.extend((child, f"{path}/", depth + 1) for child in reversed(_children(layer)))
    return found


def _children(layer: Any) -> list[Any]:
    children = getattr(layer, "_layers", None)
    if children is None:
        children = getattr(layer, "layers", None)
    return list(children or ())


def _name(layer: Any) -> str:
    return str(getattr(layer, "name", None) or type(layer).__name__)


def _unique(path: str, taken: dict[str, int]) -> str:
    candidate = path
    while candidate in taken:
        taken[path] += 1
        candidate = f"{path}#{taken[path]}"
    taken[candidate] = 1
    return candidate
