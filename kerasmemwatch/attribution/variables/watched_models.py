"""The inventories of the models that one watch has seen."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kerasmemwatch.attribution.variables.inventory import VariableMemory, inventory, layer_memory
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.run import DeviceInfo

__all__ = ["Inventories", "with_covered_share"]

# A search over thousands of models with one watch keeps the newest.
_MOST_MODELS = 16


@dataclass(frozen=True)
class _Found:
    name: str
    signature: str
    layers: tuple[LayerMemory, ...]


class Inventories:
    """Which variables each watched model holds."""

    def __init__(self) -> None:
        self._models: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._found: dict[int, _Found] = {}
        self._next = 0

    def __reduce__(self) -> tuple[type[Inventories], tuple[()]]:
        # A copy has seen no models: those belong to the process, and to whoever trains them.
        return Inventories, ()

    def knows(self, model: Any) -> bool:
        """Whether a model's variables are listed, its optimizer's too once it has been built."""
        found = self._found.get(self._models.get(model, -1))
        return found is not None and found.signature == _signature(model)

    def take(self, model: Any) -> tuple[VariableMemory, ...]:
        """List a model's variables, anew if they were listed before."""
        variables = inventory(model)
        index = self._models.setdefault(model, self._next)
        self._next = max(self._next, index + 1)
        self._found[index] = _Found(str(model.name), _signature(model), layer_memory(variables))
        for old in sorted(self._found)[:-_MOST_MODELS]:
            del self._found[old]
        return variables

    def layers(self) -> list[LayerMemory]:
        """The layers of all models; with the model's name before their paths where there are several."""
        several = len(self._found) > 1
        return [
            replace(row, path=f"{found.name}/{row.path}") if several else row
            for found in self._found.values()
            for row in found.layers
        ]


def with_covered_share(device: DeviceInfo, variables: Sequence[VariableMemory]) -> DeviceInfo:
    """A partially counting device with the share of the variables' bytes that it counts."""
    sizes = [variable.bytes for variable in variables if variable.bytes]
    if device.counting == "exact" or not sizes:
        return device
    counted = sum(size for size in sizes if size >= device.counted_from_bytes)
    return replace(device, covered_share=counted / sum(sizes))


def _signature(model: Any) -> str:
    """Changes when an optimizer is put on a model or is built, which is when there are more variables."""
    optimizer = getattr(model, "optimizer", None)
    return f"{id(optimizer)} {getattr(optimizer, 'built', None)}"
