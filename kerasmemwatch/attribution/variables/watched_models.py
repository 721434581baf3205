"""Inventories of the models that one watch has seen."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kerasmemwatch.attribution.variables.inventory import VariableMemory, inventory, layer_memory, ledger
from kerasmemwatch.attribution.variables.variable_ledger import Ledger
from kerasmemwatch.attribution.variables.variable_size import variable_key
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
    variables: Mapping[int, weakref.ref[Any]]
    group: int | None  # of models that share variables, whose layers are listed together

    def prefixed(self) -> list[LayerMemory]:
        """The layers with the model's name before their paths."""
        return [replace(row, path=f"{self.name}/{row.path}") for row in self.layers]


class Inventories:
    """Variables of each watched model. Those that models share, as the parts of a GAN, are listed once."""

    def __init__(self) -> None:
        self._models: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._found: dict[int, _Found] = {}
        self._groups: dict[int, tuple[LayerMemory, ...]] = {}
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
        account = ledger(model)
        variables = account.in_order()
        index = self._models.setdefault(model, self._next)
        self._next = max(self._next, index + 1)
        known = self._found.get(index)
        group = None if known is None else known.group
        layers, references = layer_memory(variables), _references(account)
        self._found[index] = _Found(str(model.name), _signature(model), layers, references, group)
        for old in sorted(self._found)[:-_MAX_MODELS]:
            del self._found[old]
        self._list_together(self._sharing(index))
        groups = {found.group for found in self._found.values()}
        self._groups = {group: rows for group, rows in self._groups.items() if group in groups}
        return variables

    def layers(self) -> list[LayerMemory]:
        """Return the layers of all models, with the model's name before their paths if there are several models."""
        several = len(self._found) > 1
        rows: list[LayerMemory] = []
        listed = set()
        for found in self._found.values():
            if found.group is None:
                rows += found.prefixed() if several else found.layers
            elif found.group not in listed:
                listed.add(found.group)
                rows += self._groups[found.group]
        return rows

    def _sharing(self, index: int) -> list[int]:
        """The live models that share variables with one, directly or through others, and that one."""
        live = set(self._models.values()) & set(self._found)
        sharing, new = {index}, [index]
        while new:
            one = self._found[new.pop()]
            for other in live - sharing:
                found = self._found[other]
                if (one.group is not None and one.group == found.group) or _share(one, found):
                    sharing.add(other)
                    new.append(other)
        return sorted(sharing)

    def _list_together(self, indices: Sequence[int]) -> None:
        before = {group for index in indices if (group := self._found[index].group) is not None}
        if len(indices) == 1 and not before:
            return
        models = {index: model for model, index in self._models.items()}
        if len(indices) == 1:  # the others died
            listed: Sequence[LayerMemory] = self._found[indices[0]].prefixed()
        else:
            listed = layer_memory(inventory(*(models[index] for index in indices)))
        rows = {row.owner: row for row in listed}
        for group in before:
            # What models had that died since stays listed, as that of any dead model does.
            if self._has_dead(group, indices):
                rows = {row.owner: row for row in self._groups[group]} | rows
        for index in [index for index, found in self._found.items() if index in indices or found.group in before]:
            self._found[index] = replace(self._found[index], group=indices[0])
        self._groups[indices[0]] = tuple(rows.values())

    def _has_dead(self, group: int, live: Sequence[int]) -> bool:
        return any(found.group == group and index not in live for index, found in self._found.items())


def _references(account: Ledger) -> dict[int, weakref.ref[Any]]:
    return {variable_key(variable): weakref.ref(variable) for _, variable in account.variables()}


def _share(one: _Found, other: _Found) -> bool:
    """Whether two models have a live variable in common."""
    common = one.variables.keys() & other.variables.keys()
    # A dead variable's key may be another's now.
    return any((variable := one.variables[key]()) is not None and variable is other.variables[key]() for key in common)


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
