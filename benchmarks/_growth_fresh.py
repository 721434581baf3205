"""Clean programs that were recorded once a rule was fixed: models, shapes of data and stages that no other one has."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from _growth_models import Family
from _growth_programs import Program

__all__ = ["FRESH", "FRESH_FAMILIES"]

layers = keras.layers
_CLASSES = 7


def _drawn_classes(rng: np.random.Generator, x: Any) -> Any:
    return rng.integers(0, _CLASSES, len(x))


def _head(x: Any) -> Any:
    return layers.Dense(_CLASSES, "softmax")(x)


def _signal() -> Any:
    """Dilated convolutions over a long signal."""
    x = inputs = keras.Input((400, 2))
    for dilation in (1, 4, 16):
        x = layers.Conv1D(12, 5, dilation_rate=dilation, padding="causal", activation="relu")(x)
    return keras.Model(inputs, _head(layers.GlobalAveragePooling1D()(x)))


def _u_net() -> Any:
    x = inputs = keras.Input((32, 32, 1))
    first = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.AveragePooling2D(2)(first))
    x = layers.Concatenate()([first, layers.UpSampling2D(2)(x)])
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


def _patches() -> Any:
    """A vision transformer."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Reshape((16, 48))(layers.Conv2D(48, 8, strides=8)(inputs))
    for _ in range(2):
        x = x + layers.MultiHeadAttention(4, 12)(layers.LayerNormalization()(x), x)
        x = x + layers.Dense(48)(layers.Dense(96, "gelu")(layers.LayerNormalization()(x)))
    return keras.Model(inputs, _head(layers.Flatten()(x)))


def _volume() -> Any:
    conv = layers.Conv3D(6, 3, activation="relu")
    return keras.Sequential([keras.Input((10, 10, 10, 1)), conv, layers.Flatten(), layers.Dense(_CLASSES, "softmax")])


def _twins() -> Any:
    """Two halves of the input pass one tower; the output is one number."""
    inputs = keras.Input((2, 40))
    tower = keras.Sequential([layers.Dense(64, "tanh"), layers.Dense(24)])
    one, other = tower(inputs[:, 0]), tower(inputs[:, 1])
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(keras.ops.abs(one - other)))


def _stacked() -> Any:
    inputs = keras.Input((None, 5))
    x = layers.LSTM(16, return_sequences=True, recurrent_dropout=0.1)(inputs)
    return keras.Model(inputs, _head(layers.GRU(16)(x)))


def _shaped(*shape: int) -> Any:
    return lambda rng, rows, length: rng.random((rows, *shape), np.float32)


def _pairs(rng: np.random.Generator, x: Any) -> Any:
    return rng.integers(0, 2, (len(x), 1)).astype(np.float32)


FRESH_FAMILIES = {
    "signal": Family(_signal, _shaped(400, 2), _drawn_classes, batch=24),
    "u-net": Family(_u_net, _shaped(32, 32, 1), lambda rng, x: x, "binary_crossentropy", batch=12),
    "patches": Family(_patches, _shaped(32, 32, 3), _drawn_classes, batch=20),
    "volume": Family(_volume, _shaped(10, 10, 10, 1), _drawn_classes, batch=10),
    "twins": Family(_twins, _shaped(2, 40), _pairs, "binary_crossentropy", batch=48),
    "stacked": Family(
        _stacked,
        lambda rng, rows, length: rng.random((rows, length, 5), np.float32),
        _drawn_classes,
        batch=14,
        is_sequence=True,
    ),
}
_ALL: list[tuple[str, str, dict[str, Any]]] = [
    ("signal", "fit", {"data": "prefetch", "epochs": 5, "validation": "arrays"}),
    ("u-net", "fit", {"data": "cache", "callbacks": ["early stopping"], "validation": "split", "epochs": 4}),
    ("patches", "fit", {"data": "parallel map", "compile": {"optimizer": "adamw"}, "epochs": 3}),
    ("volume", "fit", {"data": "workers", "compile": {"steps_per_execution": 3}, "epochs": 4}),
    ("twins", "fit", {"data": "cached repeat", "epochs": 8}),
    ("signal", "fit", {"data": "batches cached repeat", "epochs": 6}),
    ("stacked", "fit", {"data": "buckets", "fits": 4, "epochs": 2}),
    ("patches", "predictions", {"data": "prefetch"}),
    ("u-net", "predictions", {"data": "parallel map"}),
    ("volume", "predictions", {"evaluate": True}),
    ("twins", "predictions", {"evaluate": True, "data": "shuffle"}),
    ("stacked", "loop", {"data": "lengths", "epochs": 3, "validate": True}),
    ("twins", "loop", {"data": "cache", "epochs": 0}),
    ("signal", "fine_tuning", {}),
    ("patches", "rounds", {"batches": 5, "data": "shuffle"}),
]
FRESH = tuple(
    Program(f"fresh-{number:02d}-{family}-{runs.replace('_', '-')}", family, runs, options, number % 3 != 2)
    for number, (family, runs, options) in enumerate(_ALL)
)
