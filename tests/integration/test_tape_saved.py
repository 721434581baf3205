"""What the forward pass of a graph leaves for the backward pass, against arithmetic on what each gradient reads."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf

import kerasmemwatch as kmw
from kerasmemwatch.analysis.steps.live_set import by_category, peak_event

pytestmark = pytest.mark.usefixtures("exact_counting")

BATCH, WIDTH, FLOAT = 128, 256, 4
# Outputs and inner values that the gradients of a layer and of its activation read.
KEPT = {"tanh": 1, "relu": 1, "sigmoid": 1, "gelu": 3}


@pytest.mark.parametrize(
    ("activation", "count"), [("tanh", 2), ("tanh", 5), ("relu", 5), ("sigmoid", 2), ("gelu", 2), ("gelu", 5)]
)
def test_each_layer_keeps_its_own(activation: str, count: int) -> None:
    layers = [keras.layers.Dense(WIDTH, activation=activation) for _ in range(count)]
    model = keras.Sequential([keras.Input((WIDTH,)), *layers])
    [(saved, activations)] = kept_by_tape(model, tf.ones((BATCH, WIDTH)), [3])
    tensor = BATCH * WIDTH * FLOAT
    assert count * tensor <= saved <= (KEPT[activation] * count + 1) * tensor
    assert saved >= 0.9 * activations


def kept_by_tape(model: Any, x: Any, trace: list[int]) -> list[tuple[int, int]]:
    """What a tape says that the forward pass leaves, and the activations at the peak, of each traced step."""
    tapes = list[Any]()

    @tf.function
    def train(x: Any) -> Any:
        with kmw.MemoryTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 2)
        tapes[:] = [tape]
        return [tf.reduce_sum(value) for value in tape.gradient(loss, model.trainable_variables)]

    saved = list[int]()
    with kmw.MemorySession(model, log_dir=None, trace=trace) as session:
        for number in range(1, trace[-1] + 2):
            with session.step():
                train(x)
            if number in trace:
                assert tapes[0].memory.step == number
                saved.append(int(tapes[0].memory.saved_for_backward_bytes))
    lines = [step.timeline for step in session.recording.steps]
    activations = [by_category(line, peak_event(line))["activations"] for line in lines]
    return list(zip(saved, activations, strict=True))


ROWS, LENGTH, DEPTH, HEADS = 8, 32, 64, 4
HIDDEN = ROWS * LENGTH * DEPTH * FLOAT


def attention(x: Any) -> Any:
    made = keras.layers.MultiHeadAttention(HEADS, DEPTH // HEADS)(x, x)
    return keras.layers.Add()([x, made])


def normalized(x: Any) -> Any:
    return keras.layers.Dense(DEPTH)(keras.layers.LayerNormalization()(x))


def dropped(x: Any) -> Any:
    return keras.layers.Dense(DEPTH)(keras.layers.Dropout(0.3)(x))


# At least what each block's gradients read: the block's input, queries, keys, values, their sums and the scores; the
# input and what it is normalized to; what is left of the input.
BLOCKS = {
    "attention": (attention, 5 * HIDDEN + ROWS * HEADS * LENGTH * LENGTH * FLOAT),
    "normalized": (normalized, 2 * HIDDEN),
    "dropout": (dropped, HIDDEN),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_more_blocks_keep_more(name: str) -> None:
    block, at_least = BLOCKS[name]
    found = {}
    for count in (2, 3, 4):
        inputs = hidden = keras.Input((LENGTH, DEPTH))
        for _ in range(count):
            hidden = block(hidden)
        model, x = keras.Model(inputs, hidden), tf.ones((ROWS, LENGTH, DEPTH))
        # TensorFlow's threads may let one more tensor go just after the backward pass has begun, and never one fewer.
        saved, activations = min(kept_by_tape(model, x, [3, 4, 5]))
        assert saved >= max((count - 1) * at_least, 0.9 * activations)
        found[count] = saved
    # Each block keeps as much as any other; the first has no gradient to hand on.
    assert found[4] - found[3] == found[3] - found[2] >= at_least
