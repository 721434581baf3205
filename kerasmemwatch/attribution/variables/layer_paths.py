"""Layer paths: the place of each layer in the watched model, by containment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from kerasmemwatch.attribution.variables.object_walk import Held, Kinds, held_by, is_module, modules_of
from kerasmemwatch.compat.keras import LAYERS, OPERATIONS

__all__ = [
    "PathedLayer",
    "lasting_name",
    "layer_paths",
    "operation_paths",
    "paths_of_all",
    "post_order",
    "unique_path",
]


@dataclass(frozen=True, eq=False)
class PathedLayer:
    """A layer with its place in the model."""

    path: str  # `"encoder/block_3/attention"`; the watched model itself has its own name
    layer: Any  # the Keras layer, or the `tf.Module`
    depth: int  # number of levels under the watched model, which is at 0
    held: tuple[Held, ...] = ()  # what the layer holds in its attributes


def layer_paths(model: Any) -> tuple[PathedLayer, ...]:
    """Name every layer of a model by containment, without the model's own name.

    A shared layer has its first path. A second, different layer with the same name and parent is ``"name#2"``. Layers
    that Keras does not track (such as in a ``tf.Module``) come last. Any width, depth and cycles are supported.

    Returns:
        The model, then its layers, each before its sub-layers.
    """
    seen, taken, kinds = {id(model)}, set[str](), Kinds.loaded()
    found = [PathedLayer("", model, 0, tuple(held_by(model, kinds)))]
    found += _descend([(child, "", 1) for child in _children(model, kinds)], seen, taken, kinds)
    # A hidden reference to a layer must not take its place in the model, so tracked layers are named first.
    for parent in found:
        hidden = [item.value for item in parent.held if item.kind == "layer"]
        prefix = f"{parent.path}/" if parent.depth else ""
        found += _descend([(layer, prefix, parent.depth + 1) for layer in hidden], seen, taken, kinds)
    found[0] = replace(found[0], path=unique_path(_name(model), taken))
    return tuple(found)


def paths_of_all(models: Iterable[Any]) -> tuple[PathedLayer, ...]:
    """Name every layer of several models, after the model's name if there is more than one.

    A layer that several models hold has its path in the first of them.

    Example:
        >>> import keras
        >>> models = [keras.Sequential([keras.layers.Dense(1, name="head")], name=name) for name in ("one", "two")]
        >>> [layer.path for layer in paths_of_all(models)]
        ['one', 'one/head', 'two', 'two/head']
    """
    models = list(models)
    if len(models) == 1:
        return layer_paths(models[0])
    seen, taken = set[int](), set[str]()
    found: list[PathedLayer] = []
    for model in models:
        of_model = [layer for layer in layer_paths(model) if id(layer.layer) not in seen]
        if of_model:
            root = unique_path(_name(model), taken)
            paths = (f"{root}/{layer.path}" if layer.layer is not model else root for layer in of_model)
            found += [replace(layer, path=path) for layer, path in zip(of_model, paths, strict=True)]
            seen |= {id(layer.layer) for layer in of_model}
    return tuple(found)


def operation_paths(layers: Sequence[PathedLayer], *, several: bool = False) -> tuple[PathedLayer, ...]:
    """Name the operations of functional models that are not layers, such as ``keras.ops.mean(x)``.

    Args:
        several: Whether there are several models, so that paths contain the models' names.

    Returns:
        Each operation, by containment like the layers.

    Example:
        >>> import keras
        >>> x = keras.Input((4,))
        >>> model = keras.Model(x, keras.layers.ReLU()(keras.ops.mean(x, 1)))
        >>> [type(operation.layer).__name__ for operation in operation_paths(layer_paths(model))]
        ['Mean']
    """
    seen, taken = {id(layer.layer) for layer in layers}, {layer.path for layer in layers}
    found: list[PathedLayer] = []
    for parent in layers:
        prefix = f"{parent.path}/" if parent.depth or several else ""
        for operation in OPERATIONS.of(parent.layer) or ():
            if id(operation) not in seen:
                seen.add(id(operation))
                path = unique_path(prefix + _name(operation), taken)
                found.append(PathedLayer(path, operation, parent.depth + 1))
    return tuple(found)


def lasting_name(layer: Any) -> str:
    """Return a layer's name without the number that Keras counts up, which differs in each object that a call makes.

    Example:
        >>> import keras
        >>> [lasting_name(keras.layers.ReLU()) for _ in range(2)], lasting_name(keras.layers.ReLU(name="re_lu_mine"))
        (['re_lu', 're_lu'], 're_lu_mine')
    """
    name = _name(layer)
    words, _, number = name.rpartition("_")
    own = "".join(character for character in type(layer).__name__ if character.isalnum()).lower()
    return words if number.isdecimal() and words.replace("_", "") == own else name


def post_order(layers: Sequence[PathedLayer]) -> Iterator[PathedLayer]:
    """Reorder the result of :func:`layer_paths` so that each layer comes after its sub-layers."""
    unfinished: list[PathedLayer] = []
    for layer in layers:
        while unfinished and unfinished[-1].depth >= layer.depth:
            yield unfinished.pop()
        unfinished.append(layer)
    yield from reversed(unfinished)


def _descend(start: list[tuple[Any, str, int]], seen: set[int], taken: set[str], kinds: Kinds) -> list[PathedLayer]:
    # A stack of our own: models nest deeper than Python's recursion limit.
    found, stack = [], start[::-1]
    while stack:
        layer, prefix, depth = stack.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        path = unique_path(prefix + _name(layer), taken)
        found.append(PathedLayer(path, layer, depth, tuple(held_by(layer, kinds))))
        stack.extend((child, f"{path}/", depth + 1) for child in reversed(_children(layer, kinds)))
    return found


def _children(layer: Any, kinds: Kinds) -> list[Any]:
    if is_module(layer, kinds):
        return modules_of(layer)
    children = LAYERS.of(layer)
    if children is None:
        children = getattr(layer, "layers", None)
    return list(children or ())


def _name(layer: Any) -> str:
    return str(getattr(layer, "name", None) or type(layer).__name__)


def unique_path(path: str, taken: set[str]) -> str:
    """Return the path, with a number appended if it is taken, and mark it as taken."""
    numbered = (f"{path}#{number}" for number in count(2))
    found = path if path not in taken else next(candidate for candidate in numbered if candidate not in taken)
    taken.add(found)
    return found
