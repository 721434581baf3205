"""Objects that one watch or session tracks: models, and in custom loops optimizers and variables. Held weakly."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from kerasmemwatch.attribution.variables.inventory import VariableMemory, check_model, inventory, ledger
from kerasmemwatch.attribution.variables.layer_paths import PathedLayer, layer_paths, paths_of_all
from kerasmemwatch.attribution.variables.live_objects import live_objects
from kerasmemwatch.attribution.variables.object_walk import Kinds
from kerasmemwatch.attribution.variables.variable_ledger import Ledger
from kerasmemwatch.attribution.variables.variable_size import variable_key
from kerasmemwatch.compat.keras import FUNCTIONAL

__all__ = ["Watched"]

_FOUND = ("layer", "optimizer", "module")


class Watched:
    """Models in the order of their registration; none is kept alive."""

    def __init__(self) -> None:
        self._models: _Weakly = {}
        self._optimizers: _Weakly = {}
        self._variables: _Weakly = {}
        self._names: dict[int, str] = {}

    def find_alive(self) -> None:
        """Watch every live model that is part of no other, and every optimizer, for when no call was seen."""
        kinds = Kinds.loaded()
        found = live_objects(lambda kind: name if (name := kinds.of_class(kind)) in _FOUND else "")
        models = [*found["layer"], *found["module"]]
        held = {id(part.layer) for model in models for part in layer_paths(model)[1:]}
        held |= {id(FUNCTIONAL.of(model)) for model in models}  # the functional model within a Sequential
        for model in models:
            if id(model) not in held and any(memory.bytes for memory in inventory(model)):
                self.add_model(model)
        for optimizer in found["optimizer"]:
            if getattr(optimizer, "built", False):
                self.add_optimizer(optimizer)

    @property
    def models(self) -> list[Any]:
        """Return the models that are alive."""
        return _alive(self._models)

    def add_model(self, model: Any) -> None:
        """Watch another Keras model or layer, or ``tf.Module``. Raises ``InvalidTypeError`` if it is none of them."""
        check_model(model)
        known = self._models.get(id(model))
        if known is None or known() is not model:
            self._models[id(model)] = weakref.ref(model)

    def found(self, model: Any) -> None:
        """Watch a model that a loop has called, unless it is part of a watched one; it replaces its watched parts."""
        if any(layer.layer is model for other in self.models for layer in layer_paths(other)):
            return
        for layer in layer_paths(model):
            self._models.pop(id(layer.layer), None)
        self.add_model(model)

    def add_optimizer(self, optimizer: Any) -> None:
        """Add an optimizer that none of the models may hold, and count its slots."""
        self._optimizers[id(optimizer)] = weakref.ref(optimizer)

    def add_variables(self, variables: Iterable[Any]) -> None:
        """Add variables that none of the models may hold; other objects are ignored."""
        kinds = Kinds.loaded()
        for variable in (each for each in variables if kinds.of(each) == "variable"):
            self._variables[variable_key(variable)] = weakref.ref(variable)

    def optimizers(self) -> list[Any]:
        """Return the optimizers of compiled models, and added ones."""
        compiled = [getattr(model, "optimizer", None) for model in self.models]
        found = {id(optimizer): optimizer for optimizer in (*compiled, *_alive(self._optimizers)) if optimizer}
        return list(found.values())

    def layers(self) -> tuple[PathedLayer, ...]:
        """Return every layer with its path; see :func:`paths_of_all`."""
        return paths_of_all(self.models)

    def renamed(self, layers: Iterable[PathedLayer]) -> dict[str, str]:
        """Return paths that changed since the last call, as when a second model is added: new ones by old ones."""
        before, self._names = self._names, {id(layer.layer): layer.path for layer in layers}
        changed = ((path, self._names.get(key, path)) for key, path in before.items())
        return {old: new for old, new in changed if old != new}

    def ledger(self) -> Ledger:
        """Return the ledger of all variables."""
        return ledger(*self.models, optimizers=self.optimizers(), variables=_alive(self._variables))

    def inventory(self) -> tuple[VariableMemory, ...]:
        """Return all variables, by layer."""
        return self.ledger().in_order()

    def signature(self) -> str:
        """Return a value that changes when there may be more variables: when a model or optimizer is added or built."""
        models = [(id(model), getattr(model, "built", None)) for model in self.models]
        optimizers = [(id(optimizer), getattr(optimizer, "built", None)) for optimizer in self.optimizers()]
        return f"{models} {optimizers} {len(self._variables)}"


_Weakly = dict[int, "weakref.ref[Any]"]


def _alive(references: _Weakly) -> list[Any]:
    # Drops dead objects, because another object may get their id.
    for key in [key for key, reference in references.items() if reference() is None]:
        del references[key]
    found = (reference() for reference in list(references.values()))
    return [value for value in found if value is not None]
