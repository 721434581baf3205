"""Gradients in a step that XLA compiled: never more than the variables they are of."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.reports.report import Report
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

layers = keras.layers
FLOAT, BATCH, STEPS, TRACED = 4, 16, 4, 3


def convolutions(activation: Any, *, normalized: bool = False) -> Any:
    between = [layers.LayerNormalization] if normalized else []
    stack = [
        layer
        for _ in range(3)
        for layer in (layers.Conv2D(8, 3, padding="same", activation=activation), *(made() for made in between))
    ]
    return keras.Sequential([keras.Input((16, 16, 8)), *stack, layers.GlobalAveragePooling2D(), layers.Dense(1)])


def square_inputs() -> Any:
    # Inputs, outputs and weights are of one size.
    stack = [layers.Dense(BATCH, "gelu") for _ in range(3)]
    return keras.Sequential([keras.Input((BATCH,)), *stack, layers.Dense(1)])


def shared() -> Any:
    inputs, encoder = keras.Input((32,)), layers.Dense(32, "tanh")
    return keras.Model(inputs, layers.Dense(1)(layers.Add()([encoder(inputs), encoder(encoder(inputs))])))


def recurrent() -> Any:
    return keras.Sequential(
        [keras.Input((6, 12)), layers.LSTM(12, return_sequences=True), layers.GRU(12), layers.Dense(1)]
    )


ACTIVATIONS: dict[str, Any] = {
    **{name: name for name in ("gelu", "silu", "softplus", "relu", "elu", "softsign", "mish")},
    "log": lambda x: keras.ops.log(keras.ops.square(x) + 2),
    "square": keras.ops.square,
}
MODELS: dict[str, Callable[[], Any]] = {
    **{name: functools.partial(convolutions, activation) for name, activation in ACTIVATIONS.items()},
    "normalized": lambda: convolutions("gelu", normalized=True),
    "square inputs": square_inputs,
    "shared": shared,
    "recurrent": recurrent,
}


@dataclass(frozen=True)
class Fit:
    """What is known of a traced fit whose model is gone."""

    report: Report
    variables_bytes: int


@functools.cache
def fitted(name: str, optimizer: str) -> Fit:
    """One fit for all tests that ask for it: compiling takes the longest."""
    model = MODELS[name]()
    chosen = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()) if optimizer == "scaled" else optimizer
    model.compile(chosen, "mse", jit_compile=True)
    model.optimizer.build(model.trainable_variables)  # else TensorFlow compiles the step twice
    x = np.random.default_rng(0).random((BATCH * STEPS, *model.input_shape[1:]), np.float32)
    watch = MemoryWatch(None, trace=[TRACED], strict=True)
    model.fit(x, np.ones((len(x), 1), np.float32), batch_size=BATCH, verbose=0, callbacks=[watch])
    return Fit(watch.report, sum(FLOAT * math.prod(variable.shape) for variable in model.trainable_variables))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("gelu", "adam"),
        ("silu", "sgd"),
        ("relu", "sgd"),
        ("normalized", "adam"),
        ("square inputs", "sgd"),
        ("shared", "adam"),
        ("recurrent", "adam"),
    ],
)
def test_no_more_than_the_variables(name: str, optimizer: str) -> None:
    fit = fitted(name, optimizer)
    assert fit.report.peak.by_category["gradients"] <= fit.variables_bytes
    found = {layer.path: layer for layer in fit.report.layers if layer.class_name}
    assert all(layer.gradients_bytes <= layer.weights_bytes for layer in found.values())
    if optimizer == "adam":
        # Also those in the places that the optimizer's variables are to have.
        assert all(layer.gradients_bytes == layer.weights_bytes for layer in found.values())
    # Those of an update that reads them once are never whole.
    assert 0 < sum(layer.gradients_bytes for layer in found.values()) <= fit.variables_bytes


@pytest.mark.parametrize("name", ["gelu", "elu"])
def test_what_backward_reads_are_activations(name: str) -> None:
    layers_of_fit = fitted(name, "adam").report.layers
    held = [layer.activations_bytes for layer in layers_of_fit if layer.class_name == "Conv2D"]
    assert min(held) >= BATCH * 16 * 16 * 8 * FLOAT


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("softplus", "sgd"), ("log", "adam"), ("square", "scaled"), ("softsign", "scaled"), ("mish", "adam")],
)
def test_what_waits_for_the_backward_pass_is_activations(name: str, optimizer: str) -> None:
    # A derivative that needs no incoming gradient is made with its layer, before the forward pass ends.
    found = {layer.path: layer for layer in fitted(name, optimizer).report.layers if layer.class_name == "Conv2D"}
    # What a layer's derivative needs, and what the next one's kernel needs: at least one of the layer's output each.
    output = FLOAT * BATCH * 16 * 16 * 8
    assert len(found) == 3
    assert all((layer.activations_bytes or 0) >= output for layer in found.values())
