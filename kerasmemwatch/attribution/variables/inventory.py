"""Inventory of a Keras model's variables, by layer, in bytes.

Known limits: variables in plain Python objects (neither containers nor ``tf.Module``s) and in lookup tables are not
found; a JAX array sharded over devices counts in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kerasmemwatch.attribution.variables.layer_paths import (
    PathedLayer,
    layer_paths,
    paths_of_all,
    post_order,
    unique_path,
)
from kerasmemwatch.attribution.variables.object_walk import Kinds, closure, held_by, is_module
from kerasmemwatch.attribution.variables.optimizer_slots import optimizer_state, optimizer_variables, references, slots
from kerasmemwatch.attribution.variables.variable_ledger import Ledger, VariableMemory
from kerasmemwatch.attribution.variables.variable_size import variable_key
from kerasmemwatch.compat.keras import LOSS, METRICS, SEED_GENERATORS, VARIABLE_LISTS
from kerasmemwatch.errors import InvalidTypeError
from kerasmemwatch.records.layer_memory import LayerMemory

__all__ = ["VariableMemory", "check_model", "inventory", "is_model", "layer_memory", "ledger", "variable_bytes"]


def inventory(
    *models: Any, optimizers: Iterable[Any] = (), variables: Iterable[Any] = ()
) -> tuple[VariableMemory, ...]:
    """List the variables of models: those of layers, metrics and optimizers.

    Nothing is computed or built: only Python attributes are read.

    Args:
        models: Keras models or layers, or ``tf.Module``s. If there are several, a layer's path begins with the
            model's name.
        optimizers: Optimizers of a custom loop that neither the models nor their layers hold.
        variables: Variables that none of them may hold. They count as weights of an owner with their own name.

    Returns:
        Each variable once: layer by layer in the model's order, with the slots of the layer's variables; then the
        state of optimizers and metrics as a whole.

    Raises:
        InvalidTypeError: If one of ``models`` is neither a Keras layer nor a ``tf.Module``.
    """
    return ledger(*models, optimizers=optimizers, variables=variables).in_order()


def ledger(*models: Any, optimizers: Iterable[Any] = (), variables: Iterable[Any] = ()) -> Ledger:
    """Return the ledger that :func:`inventory` lists, with the variables themselves."""
    kinds = Kinds.loaded()
    for model in models:
        check_model(model)
    layers = paths_of_all(models)
    held_optimizers = [item.value for layer in layers for item in layer.held if item.kind == "optimizer"]
    trainers = closure([*held_optimizers, *optimizers], "optimizer", kinds)
    metrics = closure(_metrics(layers), "metric", kinds)
    account = Ledger(reserved={variable_key(v) for owner in trainers for v in optimizer_variables(owner)})
    account.reserved |= {variable_key(variable) for metric in metrics for variable in metric.variables}
    _count_layers(account, layers)
    updated = [variable for optimizer in trainers for variable in references(optimizer)]
    account.layers = layers + _count_loose(account, [*updated, *variables], {layer.path for layer in layers})
    _count_metrics(account, metrics, kinds)
    _count_optimizers(account, trainers, kinds)
    return account


def is_model(value: Any) -> bool:
    """Whether a value is a Keras model or layer, or a ``tf.Module``."""
    return Kinds.loaded().of(value) == "layer" or is_module(value)


def check_model(model: Any) -> None:
    """Raise an ``InvalidTypeError`` unless it is a Keras model or layer, or a ``tf.Module``."""
    if not is_model(model):
        raise InvalidTypeError(
            "Expected model to be a Keras model or layer, or a tf.Module. "
            f"Received: model={model!r} (of type {type(model).__name__})."
        )


def layer_memory(variables: Iterable[VariableMemory]) -> tuple[LayerMemory, ...]:
    """Add variables up by owner.

    Returns:
        One row per owner, exclusive of sub-layers, in the order of the variables. A sum with an unknown part is
        ``None``, and so is everything that only a traced step shows (gradients, activations, totals, ...).
    """
    owners: dict[tuple[str, str], list[VariableMemory]] = {}
    for variable in variables:
        # Includes the class: a layer may be called "metrics".
        owners.setdefault((variable.owner, variable.class_name), []).append(variable)
    return tuple(
        LayerMemory(
            path=path,
            class_name=class_name,
            weights_bytes=variable_bytes(held, "weights"),
            optimizer_bytes=variable_bytes(held, "optimizer"),
            other_bytes=variable_bytes(held, "other"),
            num_variables=len(held),
        )
        for (path, class_name), held in owners.items()
    )


def variable_bytes(variables: Iterable[VariableMemory], category: str | None = None) -> int | None:
    """Add up the bytes of variables on one device, of one category or all; ``None`` if one is unknown."""
    total = 0
    for variable in variables:
        if category in (None, variable.category):
            if variable.bytes is None:
                return None
            total += variable.bytes
    return total


def _metrics(layers: Sequence[PathedLayer]) -> Iterator[Any]:
    for layer in layers:
        yield from METRICS.of(layer.layer) or ()
        yield from (item.value for item in layer.held if item.kind == "metric")
        # A compiled loss is not a metric, but holds one for each part of the loss.
        yield from getattr(LOSS.of(layer.layer), "metrics", None) or ()


def _count_layers(ledger: Ledger, layers: Sequence[PathedLayer]) -> None:
    # Sub-layers first: a parent that keeps its child's variable in an attribute also lists it.
    for layer in post_order(layers):
        for variable in _listed(layer.layer):
            role = "trainable" if getattr(variable, "trainable", False) else "non_trainable"
            ledger.add(variable, layer, "weights", role, f"{layer.path}/{_name(variable)}")
    # The same here: a module lists the variables of the modules within it.
    for layer in post_order(layers):
        seeds = [*(SEED_GENERATORS.of(layer.layer) or ())]
        seeds += [item.value for item in layer.held if item.kind == "seed"]
        for seed in seeds:
            ledger.add(seed.state, layer, "other", "seed", f"{layer.path}/{_name(seed.state)}")
        for item in layer.held:
            if item.kind == "variable":
                ledger.add(item.value, layer, "weights", "raw", f"{layer.path}/{item.where}")


def _count_loose(ledger: Ledger, variables: Iterable[Any], taken: set[str]) -> tuple[PathedLayer, ...]:
    """Count the variables that no layer has; each is its own owner."""
    found = []
    for variable in variables:
        if ledger.find(variable)[0] is None:
            owner = PathedLayer(unique_path(_own_name(variable), taken), variable, 0)
            ledger.add(variable, owner, "weights", "raw", owner.path)
            found.append(owner)
    return tuple(found)


def _listed(layer: Any) -> list[Any]:
    if any(name.is_missing for name in VARIABLE_LISTS):
        return list(getattr(layer, "weights", None) or ())  # including those of its sub-layers
    lists = (name.of(layer) or () for name in VARIABLE_LISTS)
    return [variable for variables in lists for variable in variables]


def _count_metrics(ledger: Ledger, metrics: Iterable[Any], kinds: Kinds) -> None:
    for metric in metrics:
        for variable in metric.variables:
            ledger.add(variable, None, "other", "metric", f"{metric.name}/{_name(variable)}")
        # A metric may hold a whole network that judges outputs (FID, KID), which Keras does not track.
        for item in held_by(metric, kinds):
            inner = layer_paths(item.value) if item.kind == "layer" else ()
            for variable in [v for layer in inner for v in _listed(layer.layer)]:
                ledger.add(variable, None, "other", "metric", f"{metric.name}/{item.where}/{_name(variable)}")


def _count_optimizers(ledger: Ledger, optimizers: Sequence[Any], kinds: Kinds) -> None:
    # All slots before any state: an outer optimizer lists its inner one's slots as its own.
    for optimizer in optimizers:
        for slot, reference, role in slots(optimizer, kinds):
            weight, layer = ledger.find(reference)
            path = f"{weight.path if weight else getattr(reference, 'path', _name(reference))}/{role}"
            ledger.add(slot, layer, "optimizer", f"slot:{role}", path)
    for optimizer in optimizers:
        for variable in optimizer_state(optimizer, kinds):
            ledger.add(variable, None, "optimizer", "state", f"{optimizer.name}/{_name(variable)}")


def _own_name(variable: Any) -> str:
    return str(getattr(variable, "path", "")) or _name(variable).partition(":")[0]


def _name(variable: Any) -> str:
    return str(getattr(variable, "name", "variable"))
