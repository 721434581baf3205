"""Ledger of a model's variables: each is counted once, for one owner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kerasmemwatch.attribution.variables.layer_paths import PathedLayer
from kerasmemwatch.attribution.variables.variable_size import variable_key, variable_size
from kerasmemwatch.records.owners import METRICS, OPTIMIZER

__all__ = ["Ledger", "VariableMemory"]


@dataclass(frozen=True)
class VariableMemory:
    """Bytes of one variable."""

    path: str  # the owner's path and the variable's name; for a slot, its variable's path and the role
    owner: str  # the layer's path, or `"optimizer"` or `"metrics"`
    class_name: str  # class of the layer; `""` for an owner that is not a layer
    category: str  # `"weights"`, `"optimizer"` or `"other"`
    bytes: int | None  # bytes of one replica; `None` if the shape or the size of an item is unknown
    shape: tuple[int | None, ...]  # its dimensions, `None` where unknown; `(None,)` if even their number is
    dtype: str  # name of the type it is stored in
    replicas: int = 1  # number of copies, one per device, under a `tf.distribute` strategy
    # `"trainable"`, `"non_trainable"`, `"raw"` (a variable that Keras does not list), `"seed"`, `"metric"`,
    # `"slot:momentums"` or `"state"` (of an optimizer, for no single variable).
    role: str = ""


@dataclass
class Ledger:
    """Variables counted so far, each once, by :func:`variable_key`."""

    reserved: set[int] = field(default_factory=set)  # variables of optimizers and metrics, which are not weights
    layers: tuple[PathedLayer, ...] = ()  # all that own any, in the model's order
    _counted: dict[int, tuple[VariableMemory, PathedLayer | None]] = field(default_factory=dict)
    _variables: dict[int, Any] = field(default_factory=dict)

    def add(self, variable: Any, owner: PathedLayer | None, category: str, role: str, path: str) -> None:
        """Count a variable, unless it is counted already; without an owner, its category determines the owner."""
        key = variable_key(variable)
        if key in self._counted or (category == "weights" and key in self.reserved):
            return
        size = variable_size(variable)
        memory = VariableMemory(
            path=path,
            owner=owner.path if owner else OPTIMIZER if category == "optimizer" else METRICS,
            class_name=type(owner.layer).__name__ if owner else "",
            category=category,
            bytes=size.bytes,
            shape=size.shape,
            dtype=size.dtype,
            replicas=size.replicas,
            role=role,
        )
        self._counted[key] = memory, owner
        self._variables[key] = variable

    def find(self, variable: Any) -> tuple[VariableMemory | None, PathedLayer | None]:
        """Look up a variable that may have been counted, and the layer that it belongs to."""
        return self._counted.get(variable_key(variable), (None, None))

    def variables(self) -> list[tuple[VariableMemory, Any]]:
        """Return each variable with its record."""
        return [(memory, self._variables[key]) for key, (memory, _) in self._counted.items()]

    def in_order(self) -> tuple[VariableMemory, ...]:
        """List the counted variables: by layer, in the order of the layers, then optimizers', then metrics'."""
        owners = [(layer.path, type(layer.layer).__name__) for layer in self.layers]
        rank = {owner: i for i, owner in enumerate([*owners, (OPTIMIZER, ""), (METRICS, "")])}
        return tuple(
            sorted((memory for memory, _ in self._counted.values()), key=lambda v: rank[v.owner, v.class_name])
        )
