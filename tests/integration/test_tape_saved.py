"""What the forward pass of a graph leaves for the backward pass, against arithmetic on what each gradient reads."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf

import kerasmemwatch as kmw

pytestmark = pytest.mark.usefixtures("exact_counting")

BATCH, WIDTH, FLOAT = 128, 256, 4
# Outputs and inner values that the gradients of a layer and of its activation read.
KEPT = {"tanh": 1, "relu": 1, "sigmoid": 1, "gelu": 3}


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("activation", KEPT)
def test_each_layer_keeps_its_own(activation: str, count: int) -> None:
    layers = [keras.layers.Dense(WIDTH, activation=activation) for _ in range(count)]
    model = keras.Sequential([keras.Input((WIDTH,)), *layers])
    x, tapes = tf.ones((BATCH, WIDTH)), list[Any]()

    @tf.function
    def train(x: Any) -> Any:
        with kmw.MemoryTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 2)
        tapes[:] = [tape]
        return [tf.reduce_sum(value) for value in tape.gradient(loss, model.trainable_variables)]

    with kmw.MemorySession(model, log_dir=None, trace=[3]) as session:
        for _ in range(4):
            with session.step():
                train(x)
    saved, tensor = tapes[0].memory.saved_for_backward_bytes, BATCH * WIDTH * FLOAT
    assert count * tensor <= saved <= (KEPT[activation] * count + 1) * tensor
    assert saved >= 0.9 * session.report.peak.by_category["activations"]
