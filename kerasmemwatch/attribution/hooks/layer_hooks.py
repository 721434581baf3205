"""Hooks around layers, losses, metrics, gradients and updates, which tell an :class:`OwnerStack` who is at work.

They change no value and add no operation. They are in place only while a step is traced or its function is made, and
are removed exactly, also after an exception.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.hooks.patching import patched, unseen
from kerasmemwatch.attribution.hooks.recursion_room import RecursionRoom
from kerasmemwatch.attribution.live.batch_spec import eager_tensors, tensor_specs
from kerasmemwatch.attribution.live.tensor_places import host_address
from kerasmemwatch.attribution.variables.layer_paths import PathedLayer, lasting_name, operation_paths, unique_path
from kerasmemwatch.attribution.variables.object_walk import is_module, module_classes
from kerasmemwatch.attribution.variables.watched import Watched
from kerasmemwatch.compat.keras import COMPUTE_LOSS
from kerasmemwatch.records.owners import AFTER_LAYERS, LOSS, METRICS, OPTIMIZER, Frame

__all__ = ["LayerHooks", "makes_function"]

_Around = Callable[[Any], Frame | None]


class LayerHooks:
    """Tells a stack which layer runs.

    Args:
        stack: Who is told.
        watched: The watched models; their layers have paths. Layers found nowhere in them are named below the layer
            that calls them, without the number that Keras puts behind a name of its own.
        discover: Whether a model that is called and is not watched is from then, and optimizers likewise.

    Attributes:
        classes: By path of each layer, in the models' order, its class.
    """

    def __init__(self, stack: OwnerStack, watched: Watched, *, discover: bool = False) -> None:
        self.stack, self.classes = stack, dict[str, str]()
        self._watched, self._discover = watched, discover
        self._paths, self._operations = dict[int, PathedLayer](), dict[int, PathedLayer]()
        self._noted: set[tuple[str, str]] = set()
        self._hooked: set[tuple[type, str]] = set()
        self._exits, self._room = ExitStack(), RecursionRoom()
        self._look()

    def _look(self) -> None:
        """Find where each layer sits."""
        layers = self._watched.layers()
        self.stack.rename(self._watched.renamed(layers))
        self._paths = {id(layer.layer): layer for layer in layers}
        self.classes.clear()  # the captured step that is under way has the same
        self.classes.update((layer.path, type(layer.layer).__name__) for layer in layers)
        several = len(self._watched.models) > 1
        self._operations = {id(found.layer): found for found in operation_paths(layers, several=several)}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have the hooks in place; removes them whatever happens."""
        import keras

        with ExitStack() as exits:
            self._exits = exits
            exits.enter_context(self._room)
            self._reserve_room()
            self._hook(keras.layers.Layer, "__call__", self._layer_frame, self._note_outputs)
            self._hook(keras.Operation, "__call__", self._operation_frame)
            for optimizer in (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer):
                self._hook(optimizer, "apply", self._update_frame)
            self._hook(keras.losses.Loss, "__call__", self._loss_frame)
            if COMPUTE_LOSS.exists:
                self._hook(keras.Model, COMPUTE_LOSS.attribute, self._loss_frame)
            self._hook(keras.Model, "compute_metrics", self._metric_frame)
            self._hook(keras.metrics.Mean, "update_state", self._metric_frame)
            self._hook_models()
            if keras.config.backend() == "tensorflow":
                from kerasmemwatch.attribution.hooks.tensorflow_hooks import tensorflow_hooks

                exits.enter_context(tensorflow_hooks(self.stack))
            try:
                yield
            finally:
                self._exits = ExitStack()
                self._hooked.clear()

    def _hook_models(self) -> None:
        """Hook what the models bring along: classes of metrics, of layers in wrappers, of modules."""
        metrics = {type(metric) for model in self._watched.models for metric in _metrics(model)}
        for metric in metrics | (_metric_classes() if self._discover else set()):
            self._hook(metric, "update_state", self._metric_frame)
        for layer in self._wrapped_layers():
            self._hook(type(layer), "call", self._direct_frame)
        modules = {type(layer.layer) for layer in self._paths.values() if is_module(layer.layer)}
        for owner in modules | (module_classes() if self._discover else set()):
            if "__call__" in {name for base in owner.__mro__[:-1] for name in vars(base)}:
                self._hook(owner, "__call__", self._layer_frame)

    def own_code(self, model: Any, stage: str) -> Frame:
        """Whose the operations are that a step makes outside of all layers: the model's if it has a step of its own."""
        import keras

        method = f"{stage}_step"
        if getattr(type(model), method, None) is getattr(keras.Model, method, None):
            return AFTER_LAYERS
        return (
            Frame(self._paths[id(model)].path, type(model).__name__, "forward")
            if id(model) in self._paths
            else AFTER_LAYERS
        )

    # -- who it is ---------------------------------------------------------------------------------------------

    def _layer_frame(self, layer: Any) -> Frame | None:
        found = self._paths.get(id(layer))
        if found is not None and found.layer is layer:
            return self.stack.layer(found.path, type(layer).__name__)
        parent = self.stack.parent()
        if not parent and self._discover and self._found(layer):
            return self.stack.layer(self._paths[id(layer)].path, type(layer).__name__)
        path = f"{parent}/{lasting_name(layer)}" if parent else lasting_name(layer)
        if path in self.classes:
            path = unique_path(path, set(self.classes))
        return self.stack.layer(path, type(layer).__name__)

    def _found(self, model: Any) -> bool:
        """Watch a model that a loop calls, from now on."""
        import keras

        if not isinstance(model, keras.layers.Layer) and not is_module(model):
            return False
        self._watched.found(model)
        self._look()
        self._hook_models()
        self._reserve_room()
        return id(model) in self._paths

    def _reserve_room(self) -> None:
        self._room.reserve(1 + max((layer.depth for layer in self._paths.values()), default=0))

    def _operation_frame(self, operation: Any) -> Frame | None:
        # A layer's own call is on the stack already. An operation that a functional model was made of is a part of it.
        # Any other was made by the code that calls it, anew for each call: what it allocates is that code's.
        found = self._operations.get(id(operation))
        return None if found is None else self.stack.layer(found.path, type(operation).__name__)

    def _direct_frame(self, layer: Any) -> Frame | None:
        """A layer whose ``call`` a wrapper calls, not the layer itself."""
        frame = self._layer_frame(layer)
        return None if frame is not None and frame.owner == self.stack.parent() else frame

    def _update_frame(self, optimizer: Any) -> Frame:
        if self._discover:
            self._watched.add_optimizer(optimizer)
        return _UPDATE

    def _loss_frame(self, _: Any) -> Frame:
        return Frame(LOSS, "", "forward")

    def _metric_frame(self, _: Any) -> Frame:
        return Frame(METRICS, "", self.stack.top.phase)

    def _wrapped_layers(self) -> list[Any]:
        """The layers that a wrapper holds: ``TimeDistributed`` calls their ``call`` directly."""
        import keras

        inner = (
            getattr(layer.layer, "layer", None)
            for layer in self._paths.values()
            if isinstance(layer.layer, keras.layers.Wrapper)
        )
        return [layer for layer in inner if layer is not None]

    # -- how it is told ----------------------------------------------------------------------------------------

    def _note_outputs(self, frame: Frame, outputs: Any) -> None:
        # The newest call's; within one step the first of a layer that is called several times.
        known = self.stack.outputs
        if frame.phase == "forward" and (self.stack.stage, frame.owner) not in self._noted:
            self._noted.add((self.stack.stage, frame.owner))
            known[self.stack.stage, frame.owner] = tensor_specs(outputs)

    def _hook(
        self, owner: type, name: str, frame_of: _Around, note: Callable[[Frame, Any], None] | None = None
    ) -> None:
        """Hook a method where it is defined, until the hooks are removed."""
        owner = next(base for base in owner.__mro__ if name in vars(base))
        if (owner, name) in self._hooked:
            return
        self._hooked.add((owner, name))
        original, stack = vars(owner)[name], self.stack

        @functools.wraps(original)
        def hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
            with unseen:
                # Bound as it would be without us: a function of TensorFlow's has a trace for each object.
                bound = original.__get__(self, type(self))
                frame = None if stack.foreign() else frame_of(self)
                if frame is None:
                    return bound(*args, **kwargs)
                if stack.is_timing and not stack.depth:
                    stack.arguments |= set(map(host_address, eager_tensors((args, kwargs))))
                stack.push(frame)
                try:
                    outputs = bound(*args, **kwargs)
                finally:
                    stack.pop()
                if note is not None:
                    note(frame, outputs)
                return outputs

        self._exits.enter_context(patched(owner, name, hooked))


_UPDATE = Frame(OPTIMIZER, "", "update")


def execution_mode(model: Any) -> str:
    """How a model's steps run: ``"graph"``, ``"eager"`` or ``"xla"``."""
    tensorflow = sys.modules.get("tensorflow")
    if getattr(model, "run_eagerly", False) or (tensorflow and tensorflow.config.functions_run_eagerly()):
        return "eager"
    return "xla" if getattr(model, "jit_compile", False) else "graph"


def makes_function(model: Any, stage: str) -> bool:
    """Whether what runs a model's step is made by a method of its own; Keras' makes one function of TensorFlow's."""
    import keras

    method = f"make_{stage}_function"
    return getattr(type(model), method, None) is not getattr(keras.Model, method, None)


def _metric_classes() -> set[type]:
    import keras

    found, pending = set[type](), [keras.metrics.Metric]
    while pending:
        subclasses = set(pending.pop().__subclasses__()) - found
        found |= subclasses
        pending += subclasses
    return found


def _metrics(model: Any) -> list[Any]:
    try:
        return list(model.metrics)
    except Exception:  # a model's own property may fail before the model is compiled
        return []
