"""What one watch or session looks at: models, and for custom loops optimizers and single variables. Held weakly."""

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
    """Models in the order in which they came; none of them is kept alive.

    Example:
        >>> import keras
        >>> watched = Watched()
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])
        >>> watched.add_model(model)
        >>> watched.layers()[-1].path
        'head'
    """

    def __init__(self) -> None:
        self._models: _Weakly = {}
        self._optimizers: _Weakly = {}
        self._variables: _Weakly = {}
        self._names: dict[int, str] = {}

    def find_alive(self) -> None:
        """Watch every model that is alive and part of no other, and every optimizer: where no call could be seen."""
        kinds = Kinds.loaded()
        found = live_objects(lambda kind: name if (name := kinds.of_class(kind)) in _FOUND else "")
        models = [*found["layer"], *found["module"]]
        held = {id(part.layer) for model in models for part in layer_paths(model)[1:]}
        held |= {id(FUNCTIONAL.of(model)) for model in models}  # a Sequential model's other self
        for model in models:
            if id(model) not in held and any(memory.bytes for memory in inventory(model)):
                self.add_model(model)
        for optimizer in found["optimizer"]:
            if getattr(optimizer, "built", False):
                self.add_optimizer(optimizer)

    @property
    def models(self) -> list[Any]:
        """The models that are alive."""
        return _alive(self._models)

    def add_model(self, model: Any) -> None:
        """Watch a Keras model or layer, or a ``tf.Module``, too.

        Raises:
            InvalidTypeError: If it is none of them.
        """
        check_model(model)
        known = self._models.get(id(model))
        if known is None or known() is not model:
            self._models[id(model)] = weakref.ref(model)

    def found(self, model: Any) -> None:
        """Watch a model that a loop has called, unless it is a part of one; what is a part of it is so no longer."""
        if any(layer.layer is model for other in self.models for layer in layer_paths(other)):
            return
        for layer in layer_paths(model):
            self._models.pop(id(layer.layer), None)
        self.add_model(model)

    def add_optimizer(self, optimizer: Any) -> None:
        """Count the slots of an optimizer that none of the models may hold."""
        self._optimizers[id(optimizer)] = weakref.ref(optimizer)

    def add_variables(self, variables: Iterable[Any]) -> None:
        """Count variables that none of the models may hold; what is no variable is left out."""
        kinds = Kinds.loaded()
        for variable in (each for each in variables if kinds.of(each) == "variable"):
            self._variables[variable_key(variable)] = weakref.ref(variable)

    def optimizers(self) -> list[Any]:
        """The optimizers: those of compiled models, and those that were added."""
        compiled = [getattr(model, "optimizer", None) for model in self.models]
        found = {id(optimizer): optimizer for optimizer in (*compiled, *_alive(self._optimizers)) if optimizer}
        return list(found.values())

    def layers(self) -> tuple[PathedLayer, ...]:
        """Every layer with its path; see :func:`paths_of_all`."""
        return paths_of_all(self.models)

    def renamed(self, layers: Iterable[PathedLayer]) -> dict[str, str]:
        """Paths that are others than at the last call, as when a second model came: the new by the old."""
        before, self._names = self._names, {id(layer.layer): layer.path for layer in layers}
        changed = ((path, self._names.get(key, path)) for key, path in before.items())
        return {old: new for old, new in changed if old != new}

    def ledger(self) -> Ledger:
        """The account of all variables."""
        return ledger(*self.models, optimizers=self.optimizers(), variables=_alive(self._variables))

    def inventory(self) -> tuple[VariableMemory, ...]:
        """All variables, by layer."""
        return inventory(*self.models, optimizers=self.optimizers(), variables=_alive(self._variables))

    def signature(self) -> str:
        """Changes when there may be more variables: another model or optimizer, or one that has been built."""
        models = [(id(model), getattr(model, "built", None)) for model in self.models]
        optimizers = [(id(optimizer), getattr(optimizer, "built", None)) for optimizer in self.optimizers()]
        return f"{models} {optimizers} {len(self._variables)}"


_Weakly = dict[int, "weakref.ref[Any]"]


def _alive(references: _Weakly) -> list[Any]:
    # Without those that died: another object may get their id.
    for key in [key for key, reference in references.items() if reference() is None]:
        del references[key]
    found = (reference() for reference in list(references.values()))
    return [value for value in found if value is not None]
