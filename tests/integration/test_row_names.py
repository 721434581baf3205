"""Rows keep one name: over stages, over runs, and beside another run; what a call makes anew each time has none."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.comparison import compare
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

MODES: dict[str, dict[str, bool]] = {
    "graph": {"jit_compile": False},
    "eager": {"run_eagerly": True, "jit_compile": False},
    "xla": {"jit_compile": True},
}
BATCH, LENGTH, WIDTH = 16, 8, 64
PADDED_BYTES = BATCH * LENGTH * (WIDTH + 2) * 4


class Block(keras.layers.Layer):
    """Makes an operation object, two layers that Keras names and one that has its own name, in each call."""

    def call(self, x: Any) -> Any:
        x = keras.ops.pad(x, [[0, 0], [0, 0], [1, 1]])
        x = keras.layers.Activation("tanh")(x)
        x = keras.layers.Activation("sigmoid")(x)
        return keras.layers.LayerNormalization(center=False, scale=False, name="own_7")(x)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="net")
        self.block, self.head = Block(name="block"), keras.layers.Dense(4, name="head")

    def call(self, x: Any) -> Any:
        return self.head(keras.ops.mean(keras.ops.pad(self.block(x), [[0, 0], [0, 0], [1, 1]]), 1))


def functional() -> keras.Model:
    inputs = keras.Input((LENGTH, WIDTH))
    x = Block(name="block")(keras.layers.ZeroPadding1D(1, name="pad_it")(inputs))
    return keras.Model(inputs, keras.layers.Dense(4, name="head")(keras.layers.Flatten(name="flat")(x)), name="net")


def fitted(model: keras.Model, mode: str) -> MemoryWatch:
    model.compile("sgd", "mse", **MODES[mode])
    x, y = np.ones((4 * BATCH, LENGTH, WIDTH), np.float32), np.ones((4 * BATCH, 4), np.float32)
    watch = MemoryWatch(None, trace=[3, 7], strict=True)
    model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[watch], validation_data=(x, y), validation_batch_size=BATCH)
    assert [(step.step, step.stage) for step in watch.recording.steps] == [(3, "train"), (7, "test")]
    return watch


def layers_of(step: Any) -> set[tuple[str, str]]:
    return {(path, kind) for path, kind in zip(step.timeline.owners, step.timeline.classes, strict=True) if kind}


@pytest.mark.parametrize(
    ("make", "mode"),
    [*((Subclassed, mode) for mode in MODES), (functional, "graph"), (functional, "eager")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_rows_have_the_same_names_in_every_stage_and_run(make: Any, mode: str) -> None:
    known = {
        ("net", "Subclassed"),
        ("block", "Block"),
        ("head", "Dense"),
        ("block/activation", "Activation"),
        ("block/own_7", "LayerNormalization"),
        ("pad_it", "ZeroPadding1D"),
        ("flat", "Flatten"),
    }
    watches = [fitted(make(), mode) for _ in range(2)]
    first, second = ([layers_of(step) for step in watch.recording.steps] for watch in watches)
    assert first == second
    assert first[0] | first[1] <= known
    compared = compare(*(watch.recording for watch in watches))
    assert {(row.path, row.class_name) for row in compared.by_layer if row.class_name} <= known
    if mode == "graph":
        # What the operations of a call allocate is the layer's whose call it is.
        rows = {row.path: row for row in watches[0].report.layers if row.class_name}
        for path in ("block", "net" if make is Subclassed else "pad_it"):
            assert rows[path].activations_bytes + rows[path].temporaries_bytes >= PADDED_BYTES


def test_operations_that_a_functional_model_is_made_of_are_its_own() -> None:
    inputs = keras.Input((LENGTH, WIDTH))
    inner = keras.Model(inputs, keras.layers.ReLU()(keras.ops.mean(inputs, 1)), name="inner")
    outer = keras.Input((LENGTH, WIDTH))
    x = keras.layers.Dense(WIDTH, name="first")(outer)
    spread = keras.ops.tanh(x)
    model = keras.Model(outer, keras.layers.Dense(4, name="head")(inner(spread)))
    names = {type(operation).__name__: operation.name for operation in (*model._operations, *inner._operations)}
    owners = [layers_of(step) for step in fitted(model, "eager").recording.steps]
    for found in owners:
        assert {(names["Tanh"], "Tanh"), (f"inner/{names['Mean']}", "Mean")} <= found


def test_a_layer_made_in_a_call_is_told_from_one_that_its_parent_holds() -> None:
    class Both(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="both")
            self.activation = keras.layers.Activation("tanh", name="activation")

        def call(self, x: Any) -> Any:
            return keras.layers.Activation("sigmoid")(self.activation(x))

    model = keras.Sequential([Both(), keras.layers.Flatten(), keras.layers.Dense(4, name="head")])
    for found in [layers_of(step) for step in fitted(model, "eager").recording.steps]:
        assert {("both/activation", "Activation"), ("both/activation#2", "Activation")} <= found
