"""The models whose memory is attributed: small data, three modes, a step well below two seconds on two cores.

Names are here, the models in modules beside, so that listing them loads no framework.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["APPLICATIONS", "MODELS", "MODES", "OPTIMIZERS", "ZooModel", "build"]

MODES: dict[str, dict[str, bool]] = {
    "graph": {"run_eagerly": False, "jit_compile": False},
    "eager": {"run_eagerly": True, "jit_compile": False},
    "xla": {"run_eagerly": False, "jit_compile": True},
}
# Each module has a function of the model's name. It takes what goes to ``compile``, and returns a compiled model, one
# batch of inputs and one of targets (``None`` if the inputs are the targets).
MODELS = {
    "mlp": "_zoo_images",
    "cnn": "_zoo_images",
    "resnet50": "_zoo_images",
    "mobilenet_v2": "_zoo_images",
    "efficientnet_v2_b0": "_zoo_images",
    "transformer": "_zoo_sequences",
    "bilstm": "_zoo_sequences",
    "gru": "_zoo_sequences",
    "unet": "_zoo_images",
    "siamese": "_zoo_images",
    "nested": "_zoo_sequences",
    "gan": "_zoo_custom",
    "vae": "_zoo_custom",
    "mixed_precision_cnn": "_zoo_images",
    "raw_variable": "_zoo_custom",
    "sparse_embedding": "_zoo_custom",
}
# One of each other family of keras.applications, at small inputs, with AdamW; a small model with each optimizer.
APPLICATIONS = dict.fromkeys(
    (
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "inception_resnet_v2",
        "inception_v3",
        "mobilenet",
        "mobilenet_v3_small",
        "nasnet_mobile",
        "resnet50_v2",
        "vgg16",
        "vgg19",
        "xception",
    ),
    "_zoo_applications",
)
OPTIMIZERS = dict.fromkeys(
    (
        "adadelta",
        "adafactor",
        "adagrad",
        "adam",
        "adamax",
        "adamw",
        "ftrl",
        "lamb",
        "lion",
        "loss_scale",
        "muon",
        "nadam",
        "rmsprop",
        "sgd",
    ),
    "_zoo_optimizers",
)


@dataclass(frozen=True)
class ZooModel:
    """A compiled model, and a batch that is fed to it again and again.

    Attributes:
        model: Compiled, perhaps not built.
        x: One batch of inputs, an array or a tuple of arrays.
        y: One batch of targets, or ``None``.
        batch_size: Rows of a batch.
    """

    model: Any
    x: Any
    y: Any
    batch_size: int

    def fit(self, steps: int, callbacks: Sequence[Any] = (), **options: Any) -> Any:
        """Fit on arrays of so many batches, as most people do: the input pipeline takes part."""
        import keras

        x, y = (keras.tree.map_structure(lambda array: self._repeated(array, steps), data) for data in (self.x, self.y))
        options = {"batch_size": self.batch_size, "shuffle": False, "verbose": 0, **options}
        return self.model.fit(x, y, callbacks=list(callbacks), **options)

    @property
    def weights_bytes(self) -> int:
        """All variables of its layers, by their own shapes and dtypes; raw ones that Keras does not list, too."""
        return _count([*self.model.weights, *self.raw_variables()])

    @property
    def optimizer_bytes(self) -> int:
        """All variables of its optimizers, by their own shapes and dtypes."""
        return _count(variable for optimizer in self.optimizers for variable in optimizer.variables)

    @property
    def optimizers(self) -> list[Any]:
        """Its optimizers, each once."""
        import keras

        held = {id(each): each for each in vars(self.model).values() if isinstance(each, keras.optimizers.Optimizer)}
        return list(held.values())

    def raw_variables(self) -> list[Any]:
        import tensorflow as tf

        layers = self.model._flatten_layers()
        return [value for layer in layers for value in vars(layer).values() if isinstance(value, tf.Variable)]

    def _repeated(self, array: Any, steps: int) -> Any:
        return None if array is None else np.resize(array, (steps * self.batch_size, *array.shape[1:]))


def build(name: str, mode: str) -> ZooModel:
    """Make a model of the zoo for one of the modes, always with the same weights and data."""
    import keras

    modules = {**MODELS, **APPLICATIONS, **OPTIMIZERS}
    make = getattr(importlib.import_module(modules[name]), name)
    keras.utils.set_random_seed(0)
    model, x, y = make(**MODES[mode])
    return ZooModel(model, x, y, len(keras.tree.flatten(x)[0]))


def _count(variables: Iterable[Any]) -> int:
    import tensorflow as tf

    return sum(math.prod(variable.shape) * tf.as_dtype(variable.dtype).size for variable in variables)
