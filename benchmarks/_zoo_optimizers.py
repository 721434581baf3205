"""One small model of the zoo with each of Keras' optimizers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, optimizers

_NAMES = (
    *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl"),
    *("Lamb", "Lion", "Muon", "Nadam", "RMSprop", "SGD"),
)
_MADE = {
    **{
        name.lower(): getattr(optimizers, name)
        for name in [
            "Adadelta",
            "Adafactor",
            "Adagrad",
            "Adam",
            "AdamW",
            "Adamax",
            "Ftrl",
            "Lamb",
            "Lion",
            "Muon",
            "Nadam",
            "RMSprop",
            "SGD",
        ]
    },
    "loss_scale": lambda: optimizers.LossScaleOptimizer(optimizers.Adam()),
}


def __getattr__(name: str) -> Callable[..., tuple[keras.Model, Any, Any]]:
    if name not in _MADE:
        raise AttributeError(name)
    return functools.partial(_small, _MADE[name])


def _small(optimizer: Callable[[], Any], **compiled: bool) -> tuple[keras.Model, Any, Any]:
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(96, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(96),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer(), "mse", **compiled)
    x = np.random.default_rng(0).random((32, 64), np.float32)
    return model, x, np.ones((32, 1), np.float32)
