"""Hooks around layers, losses, metrics, gradients and updates, which push owners onto an :class:`OwnerStack`.

They change no value and add no operation. They are in place only while a step or its function is traced, and are
removed exactly, even after an exception.
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
    """Pushes each running layer onto a stack.

    Args:
        watched: The watched models, whose layers have paths. Other layers are named below the layer that calls them,
            without the number that Keras appends to its own names.
        discover: Whether to watch models that are called from then on, and optimizers likewise.

    Attributes:
        classes: By layer path, the layer's class, in the models' order.
    """

    def __init__(self, stack: OwnerStack, watched: Watched, *, discover: bool = False) -> None:
        self.stack, self.classes = stack, dict[str, str]()
        self._watched, self._discover = watched, discover
        self._paths, self._operations = dict[int, PathedLayer](), dict[int, PathedLayer]()
        self._noted: set[tuple[str, str]] = set()
        self._hooked: set[tuple[type, str]] = set()
        self._exits, self._room = ExitStack(), RecursionRoom()
        self._find_paths()

    def _find_paths(self) -> None:
        """Find the path of each layer."""
        layers = self._watched.layers()
        self.stack.rename(self._watched.renamed(layers))
        self._paths = {id(layer.layer): layer for layer in layers}
        self.classes.clear()  # the running captured step has the same
        self.classes.update((layer.path, type(layer.layer).__name__) for layer in layers)
        several = len(self._watched.models) > 1
        self._operations = {id(found.layer): found for found in operation_paths(layers, several=several)}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install the hooks, and remove them in any case."""
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
        """Hook classes from the models: of metrics, of layers in wrappers, of modules."""
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
        """Return the owner of operations outside of all layers: the model if it has its own step."""
        import keras

        method = f"{stage}_step"
        if getattr(type(model), method, None) is getattr(keras.Model, method, None):
            return AFTER_LAYERS
        return (
            Frame(self._paths[id(model)].path, type(model).__name__, "forward")
            if id(model) in self._paths
            else AFTER_LAYERS
        )

    # -- finding the owner -------------------------------------------------------------------------------------

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
        """Watch a model that a loop calls from now on, and return whether that succeeded."""
        import keras

        if not isinstance(model, keras.layers.Layer) and not is_module(model):
            return False
        self._watched.found(model)
        self._find_paths()
        self._hook_models()
        self._reserve_room()
        return id(model) in self._paths

    def _reserve_room(self) -> None:
        self._room.reserve(1 + max((layer.depth for layer in self._paths.values()), default=0))

    def _operation_frame(self, operation: Any) -> Frame | None:
        # A layer's own call is on the stack already. Operations of a functional model belong to the model. The calling
        # code makes any other operation anew for each call: it owns its allocations.
        found = self._operations.get(id(operation))
        return None if found is None else self.stack.layer(found.path, type(operation).__name__)

    def _direct_frame(self, layer: Any) -> Frame | None:
        """Return the frame of a layer whose ``call`` a wrapper calls directly."""
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
        """Return the layers in wrappers: ``TimeDistributed`` calls their ``call`` directly."""
        import keras

        inner = (
            getattr(layer.layer, "layer", None)
            for layer in self._paths.values()
            if isinstance(layer.layer, keras.layers.Wrapper)
        )
        return [layer for layer in inner if layer is not None]

    # -- recording it ------------------------------------------------------------------------------------------

    def _note_outputs(self, frame: Frame, outputs: Any) -> None:
        # The newest call counts; within one step, the first call of a layer.
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
                # Bound as without our hooks: a function of TensorFlow's has a trace for each object.
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
    """Return how a model's steps run: ``"graph"``, ``"eager"`` or ``"xla"``."""
    tensorflow = sys.modules.get("tensorflow")
    if getattr(model, "run_eagerly", False) or (tensorflow and tensorflow.config.functions_run_eagerly()):
        return "eager"
    return "xla" if getattr(model, "jit_compile", False) else "graph"


def makes_function(model: Any, stage: str) -> bool:
    """Whether a model's own method makes its step function; Keras' methods make one function of TensorFlow's."""
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
