"""Gradients that have a row for each look-up: a graph may not know how many there will be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

layers = keras.layers
BATCH, WORDS, VOCABULARY, WIDTH = 16, 12, 500, 24
STEPS, TRACED, FLOAT = 5, 4, 4
VALUES = BATCH * WORDS * WIDTH * FLOAT


class Table(layers.Layer):
    """Looks rows of a weight up, in one of several ways."""

    def __init__(self, look_up: Callable[[Any, Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self._look_up = look_up

    def build(self, _: Any) -> None:
        self.table = self.add_weight(shape=(VOCABULARY, WIDTH))

    def call(self, inputs: Any) -> Any:
        return self._look_up(self.table, inputs)


def pooled(*between: Any) -> list[Any]:
    return [*between, layers.GlobalAveragePooling1D()]


TABLES: dict[str, Callable[[], Any]] = {
    "Embedding": lambda: layers.Embedding(VOCABULARY, WIDTH, name="it"),
    "masked": lambda: layers.Embedding(VOCABULARY, WIDTH, mask_zero=True, name="it"),
    "bfloat16": lambda: layers.Embedding(VOCABULARY, WIDTH, name="it", dtype="mixed_bfloat16"),
    "take": lambda: Table(lambda table, x: keras.ops.take(table, x, axis=0), name="it"),
    "gather": lambda: Table(lambda table, x: tf.gather(tf.convert_to_tensor(table), x), name="it"),
}
HEADS: dict[str, Callable[[], list[Any]]] = {
    "pool": pooled,
    "relu": lambda: pooled(layers.ReLU()),
    "gelu": lambda: pooled(layers.Activation("gelu")),
    "dropout": lambda: [layers.Dropout(0.3), layers.GlobalMaxPooling1D()],
    "several": lambda: pooled(layers.Activation("tanh"), layers.Dropout(0.2), layers.Activation("silu")),
    "normalized": lambda: pooled(layers.LayerNormalization()),
    "dense": lambda: pooled(layers.Dense(8)),
    "flatten": lambda: [layers.Flatten()],
}
CASES = [
    *((table, "pool", "adam") for table in TABLES),
    *(("Embedding", head, "adam") for head in HEADS if head != "pool"),
    ("Embedding", "pool", "sgd"),
    ("gather", "pool", "sgd"),
    ("Embedding", "dense", "sgd"),
]


def gradient(model: Any, optimizer: Any, mode: dict[str, bool]) -> int:
    """The gradients of the layer ``it`` in a step of batches whose size the graph does not know."""
    model.compile(optimizer, "mse", **mode)
    model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
    x = np.random.default_rng(0).integers(1, VOCABULARY, (BATCH * STEPS, WORDS), np.int32)
    data = tf.data.Dataset.from_tensor_slices((x, np.ones((len(x), 1), np.float32))).batch(BATCH)
    assert data.element_spec[0].shape[0] is None
    watch = MemoryWatch(None, trace=[TRACED], strict=True)
    model.fit(data, shuffle=False, verbose=0, callbacks=[watch])
    [found] = [layer.gradients_bytes for layer in watch.report.layers if layer.path == "it"]
    return int(found)


@pytest.mark.parametrize(("table", "head", "optimizer"), CASES)
def test_a_row_for_each_look_up(table: str, head: str, optimizer: str) -> None:
    model = keras.Sequential(
        [keras.Input((WORDS,), dtype="int32"), TABLES[table](), *HEADS[head](), layers.Dense(1, name="head")]
    )
    assert gradient(model, optimizer, {"jit_compile": False}) == VALUES


@pytest.mark.parametrize("mode", [{"jit_compile": True}, {"jit_compile": False, "run_eagerly": True}], ids=str)
def test_a_row_for_each_look_up_otherwise(mode: dict[str, bool]) -> None:
    model = keras.Sequential(
        [keras.Input((WORDS,), dtype="int32"), TABLES["Embedding"](), layers.GlobalAveragePooling1D(), layers.Dense(1)]
    )
    assert gradient(model, "adam", mode) == VALUES


def test_a_table_that_is_used_twice_has_the_rows_of_both() -> None:
    inputs, table = keras.Input((WORDS,), dtype="int32"), TABLES["Embedding"]()
    one = layers.GlobalAveragePooling1D()(table(inputs))
    other = layers.GlobalMaxPooling1D()(table(keras.ops.flip(inputs, 1)))
    model = keras.Model(inputs, layers.Dense(1)(layers.Add()([one, other])))
    assert gradient(model, "adam", {"jit_compile": False}) == 2 * VALUES


def test_a_sum_on_the_way_is_the_sum() -> None:
    # Each row serves five: what is summed up for it is larger than its gradient.
    inputs, table = keras.Input((WORDS,), dtype="int32"), TABLES["Embedding"]()
    five = keras.ops.expand_dims(table(inputs), 2) * np.ones((1, 1, 5, WIDTH), np.float32)
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(keras.ops.tanh(five))))
    assert gradient(model, "sgd", {"jit_compile": False}) == VALUES
