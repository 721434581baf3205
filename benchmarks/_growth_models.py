"""The models of the clean programs: ten families, each small enough for a step of a few milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

__all__ = ["FAMILIES", "Family"]

layers = keras.layers
_CLASSES = 10
_WORDS = 5_000


@dataclass(frozen=True)
class Family:
    """A kind of model, and data of its shape.

    Attributes:
        make: Returns a model that is not compiled.
        inputs: Draws inputs: ``inputs(rng, rows, length)``; the length matters to sequences only.
        targets: Draws targets for the inputs.
        loss: Name of its loss.
        batch: Rows of a batch.
        is_sequence: Whether the length of its inputs may change.
    """

    make: Callable[[], Any]
    inputs: Callable[[np.random.Generator, int, int], Any]
    targets: Callable[[np.random.Generator, Any], Any]
    loss: str = "sparse_categorical_crossentropy"
    batch: int = 32
    is_sequence: bool = False


def _classes(rng: np.random.Generator, x: Any) -> Any:
    return rng.integers(0, _CLASSES, len(x))


def _numbers(*shape: int) -> Callable[[np.random.Generator, int, int], Any]:
    return lambda rng, rows, length: rng.random((rows, *shape), np.float32)


def _steps(features: int) -> Callable[[np.random.Generator, int, int], Any]:
    return lambda rng, rows, length: rng.random((rows, length, features), np.float32)


def _words(rng: np.random.Generator, rows: int, length: int) -> Any:
    return rng.integers(1, _WORDS, (rows, length)).astype(np.int32)


def _dense() -> Any:
    hidden = [layer for width in (128, 96, 64) for layer in (layers.Dense(width, "relu"), layers.Dropout(0.2))]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(_CLASSES, "softmax")])


def _wide() -> Any:
    """One large layer, whose weights and slots are far larger than a batch."""
    return keras.Sequential([keras.Input((784,)), layers.Dense(1024, "relu"), layers.Dense(_CLASSES, "softmax")])


def _cnn() -> Any:
    blocks = [
        layer
        for filters in (8, 16)
        for layer in (layers.Conv2D(filters, 3, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D())
    ]
    head = (layers.Flatten(), layers.Dense(_CLASSES, "softmax"))
    return keras.Sequential([keras.Input((20, 20, 3)), *blocks, *head])


def _residual() -> Any:
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same")(x)
    for _ in range(2):
        branch = layers.SeparableConv2D(8, 3, padding="same", use_bias=False)(x)
        branch = layers.ReLU()(layers.GroupNormalization(4)(branch))
        x = layers.Add()([x, branch])
    return keras.Model(inputs, layers.Dense(_CLASSES, "softmax")(layers.GlobalAveragePooling2D()(x)))


def _autoencoder() -> Any:
    x = inputs = keras.Input((16, 16, 1))
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    for filters in (8, 1):
        x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", activation="sigmoid")(x)
    return keras.Model(inputs, x)


def _lstm() -> Any:
    return keras.Sequential([keras.Input((None, 8)), layers.LSTM(24), layers.Dense(_CLASSES, "softmax")])


def _gru() -> Any:
    embedded = layers.Embedding(_WORDS, 16)
    both = layers.Bidirectional(layers.GRU(12))
    return keras.Sequential([keras.Input((None,), dtype="int32"), embedded, both, layers.Dense(_CLASSES, "softmax")])


def _attention() -> Any:
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(_WORDS, 32)(inputs)
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 16)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(32)(layers.Dense(64, "gelu")(x)))
    return keras.Model(inputs, layers.Dense(_CLASSES, "softmax")(layers.GlobalAveragePooling1D()(x)))


def _convolved_text() -> Any:
    embedded = (layers.Embedding(_WORDS, 24), layers.Conv1D(32, 3, padding="same", activation="relu"))
    head = (layers.GlobalMaxPooling1D(), layers.Dense(_CLASSES, "softmax"))
    return keras.Sequential([keras.Input((None,), dtype="int32"), *embedded, *head])


class Variational(keras.Model):  # type: ignore[misc]
    """A model with a ``call`` of its own that draws random numbers and adds a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential([layers.Dense(64, "relu"), layers.Dense(16)])
        self.decoder = keras.Sequential([layers.Dense(64, "relu"), layers.Dense(64, "sigmoid")])
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs: Any) -> Any:
        mean, spread = keras.ops.split(self.encoder(inputs), 2, axis=-1)
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(mean) + keras.ops.exp(spread) - spread))
        drawn = keras.random.normal(keras.ops.shape(mean), seed=self.seeds)
        return self.decoder(mean + keras.ops.exp(0.5 * spread) * drawn)


FAMILIES = {
    "dense": Family(_dense, _numbers(64), _classes),
    "wide": Family(_wide, _numbers(784), _classes, batch=64),
    "cnn": Family(_cnn, _numbers(20, 20, 3), _classes, batch=16),
    "residual": Family(_residual, _numbers(16, 16, 3), _classes, batch=16),
    "autoencoder": Family(_autoencoder, _numbers(16, 16, 1), lambda rng, x: x, "mse"),
    "lstm": Family(_lstm, _steps(8), _classes, batch=16, is_sequence=True),
    "gru": Family(_gru, _words, _classes, batch=16, is_sequence=True),
    "attention": Family(_attention, _words, _classes, batch=16, is_sequence=True),
    "text": Family(_convolved_text, _words, _classes, batch=32, is_sequence=True),
    "variational": Family(Variational, _numbers(64), lambda rng, x: x, "mse"),
}
