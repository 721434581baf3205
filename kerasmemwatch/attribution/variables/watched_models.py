"""Inventories of the models that one watch has seen."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kerasmemwatch.attribution.variables.inventory import VariableMemory, inventory, layer_memory
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.run import DeviceInfo

__all__ = ["Inventories", "with_covered_share"]

# A search over thousands of models with one watch keeps the newest ones only.
_MAX_MODELS = 16


@dataclass(frozen=True)
class _Found:
    name: str
    signature: str
    layers: tuple[LayerMemory, ...]


class Inventories:
    """Variables of each watched model."""

    def __init__(self) -> None:
        self._models: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._found: dict[int, _Found] = {}
        self._next = 0

    def __reduce__(self) -> tuple[type[Inventories], tuple[()]]:
        # A copy has seen no models: they belong to the process.
        return Inventories, ()

    def knows(self, model: Any) -> bool:
        """Whether a model's variables are listed, including its optimizer's once that is built."""
        found = self._found.get(self._models.get(model, -1))
        return found is not None and found.signature == _signature(model)

    def has_listed(self, model: Any) -> bool:
        """Whether a model's variables were ever listed."""
        return model in self._models

    def take(self, model: Any) -> tuple[VariableMemory, ...]:
        """List a model's variables, again if they were listed before."""
        variables = inventory(model)
        index = self._models.setdefault(model, self._next)
        self._next = max(self._next, index + 1)
        self._found[index] = _Found(str(model.name), _signature(model), layer_memory(variables))
        for old in sorted(self._found)[:-_MAX_MODELS]:
            del self._found[old]
        return variables

    def layers(self) -> list[LayerMemory]:
        """Return the layers of all models, with the model's name before their paths if there are several models."""
        several = len(self._found) > 1
        return [
            replace(row, path=f"{found.name}/{row.path}") if several else row
            for found in self._found.values()
            for row in found.layers
        ]


def with_covered_share(device: DeviceInfo, variables: Sequence[VariableMemory]) -> DeviceInfo:
    """Add to a partially counting device the share of the variables' bytes that it counts."""
    sizes = [variable.bytes for variable in variables if variable.bytes]
    if device.counting == "exact" or not sizes:
        return device
    counted = sum(size for size in sizes if size >= device.counted_from_bytes)
    return replace(device, covered_share=counted / sum(sizes))


def _signature(model: Any) -> str:
    """Return a value that changes when a model gets an optimizer or builds it, which adds variables."""
    optimizer = getattr(model, "optimizer", None)
    return f"{id(optimizer)} {getattr(optimizer, 'built', None)}"
