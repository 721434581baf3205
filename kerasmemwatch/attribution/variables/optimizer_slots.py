"""Variables of an optimizer, and the model's variable for each of its slots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kerasmemwatch.attribution.variables.object_walk import Kinds, held_by, held_in, is_bookkeeping
from kerasmemwatch.attribution.variables.variable_size import variable_key, variable_size
from kerasmemwatch.compat.keras import OPTIMIZED_VARIABLES, OPTIMIZER_VARIABLES

__all__ = ["optimizer_state", "optimizer_variables", "references", "slots"]


def references(optimizer: Any) -> list[Any]:
    """List the variables that an optimizer updates, in the order of its slots; empty before it is built."""
    return list(OPTIMIZED_VARIABLES.of(optimizer) or ())


def optimizer_variables(optimizer: Any) -> list[Any]:
    """List the variables that an optimizer tracks as its own."""
    listed = getattr(optimizer, "variables", None) or ()
    # It is a method in tf.compat.v1.train.Optimizer.
    tracked = [*(OPTIMIZER_VARIABLES.of(optimizer) or ()), *(() if callable(listed) else listed)]
    # An optimizer with the model's variables in an attribute tracks those, too, although they are not its own.
    updated = {variable_key(variable) for variable in references(optimizer)}
    return [variable for variable in tracked if variable_key(variable) not in updated]


def optimizer_state(optimizer: Any, kinds: Kinds) -> list[Any]:
    """List an optimizer's own variables, and those in its attributes that it does not track."""
    updated = {variable_key(variable) for variable in references(optimizer)}
    held = [item.value for item in held_by(optimizer, kinds) if item.kind == "variable"]
    return optimizer_variables(optimizer) + [variable for variable in held if variable_key(variable) not in updated]


def slots(optimizer: Any, kinds: Kinds) -> Iterator[tuple[Any, Any, str]]:
    """Match an optimizer's slots with their variables.

    Keras optimizers keep lists parallel to the variables that they update: entry i belongs to variable i. All
    attributes are searched for such lists, including nested lists and dicts, and for dicts keyed by variable.

    Yields:
        The slot, its variable, and the attribute's name without leading underscores.
    """
    updated = references(optimizer)
    if not updated:
        return
    own_keys = {variable_key(variable) for variable in updated}
    by_key = {key: variable for variable in updated for key in _keys(variable)}
    for name, attribute in vars(optimizer).items():
        if not is_bookkeeping(name):
            for reference, entry in _pairs(attribute, updated, by_key, kinds):
                for item in held_in(entry, kinds):
                    # An attribute may also hold the updated variables themselves.
                    if item.kind == "variable" and variable_key(item.value) not in own_keys:
                        yield item.value, reference, name.lstrip("_")


def _pairs(attribute: Any, updated: list[Any], by_key: dict[Any, Any], kinds: Kinds) -> Iterator[tuple[Any, Any]]:
    stack, entered = [attribute], set()
    while stack:
        value = stack.pop()
        if not isinstance(value, (list, tuple, dict)) or id(value) in entered:
            continue
        entered.add(id(value))
        if isinstance(value, dict):
            yield from ((by_key[key], entry) for key, entry in value.items() if key in by_key)
            stack.extend(entry for key, entry in value.items() if key not in by_key)
        elif _is_parallel(value, updated, kinds):
            yield from zip(updated, value, strict=True)
        else:
            stack.extend(value)


def _is_parallel(entries: list[Any] | tuple[Any, ...], updated: list[Any], kinds: Kinds) -> bool:
    if len(entries) != len(updated):
        return False
    if all(entry is None or kinds.of(entry) == "variable" for entry in entries):
        return True
    # Entries may hold several variables: either one entry per variable, or one per kind of slot. Shapes decide.
    return all(
        item.kind == "variable" and variable_size(item.value).shape == variable_size(reference).shape
        for entry, reference in zip(entries, updated, strict=True)
        for item in held_in(entry, kinds)
    )


def _keys(variable: Any) -> tuple[Any, ...]:
    # Keras' own `_var_key` is the id; users key by path.
    path = getattr(variable, "path", None)
    return (id(variable),) if path is None else (id(variable), path)
