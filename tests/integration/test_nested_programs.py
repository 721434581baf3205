"""Functions that XLA compiles within a step that it does not: what their programs allocate is the calling layer's."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasmemwatch as kmw
from kerasmemwatch.attribution import step_attribution
from kerasmemwatch.attribution.owners.call_spans import call_spans
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

layers = keras.layers
FLOAT, BATCH, STEPS, SIZE, CHANNELS, UNITS = 4, 16, 6, 16, 16, 64
TRACED = [3, 4, 5]
IMAGE_BYTES = FLOAT * BATCH * SIZE * SIZE * CHANNELS
HIDDEN_BYTES = IMAGE_BYTES // CHANNELS * UNITS


class Compiled(layers.Layer):
    """A layer with a compiled function of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

        @tf.function(jit_compile=True)
        def run(x: Any, kernel: Any) -> Any:
            return tf.matmul(tf.tanh(tf.matmul(x, kernel)), kernel, transpose_b=True)

        self.run = run

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight((shape[-1], UNITS))

    def call(self, inputs: Any) -> Any:
        return self.run(inputs, tf.convert_to_tensor(self.kernel))


@tf.function(jit_compile=True)
def squared(x: Any) -> Any:
    return tf.square(tf.sin(x))


class Calling(layers.Layer):
    """A layer that calls a function which others call, too."""

    def call(self, inputs: Any) -> Any:
        return squared(inputs)


def grouped(name: str) -> Any:
    return layers.Conv2D(CHANNELS, 3, padding="same", groups=4, name=name)


# The layers of each kind, and what either keeps at least for the backward pass beside its input.
MODELS = {
    "grouped convolutions": (grouped, 0),
    "functions of their own": (lambda name: Compiled(name=name), HIDDEN_BYTES),
    "a shared function": (lambda name: Calling(name=name), IMAGE_BYTES),
}


def fitted(kind: str, *, eager: bool) -> Any:
    keras.backend.clear_session()
    layer, _ = MODELS[kind]
    images = keras.Input((SIZE, SIZE, CHANNELS))
    # The layer between gives the compiled ones inputs of their own to keep.
    x = layers.Activation("tanh", name="between")(layer("one")(layers.Dense(CHANNELS, name="before")(images)))
    model = keras.Model(images, layers.Dense(1, name="head")(layers.GlobalAveragePooling2D()(layer("two")(x))))
    model.compile("adam", "mse", jit_compile=False, run_eagerly=eager)
    model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
    watch = MemoryWatch(None, trace=TRACED, strict=True)
    count = BATCH * STEPS
    images = np.random.default_rng(0).random((count, SIZE, SIZE, CHANNELS), np.float32)
    model.fit(images, np.ones((count, 1), np.float32), batch_size=BATCH, verbose=0, callbacks=[watch])
    return watch, model


def born(step: Any, owner: str, category: str = "") -> int:
    """Bytes that an owner allocated within a step."""
    made = step.timeline
    owners = [name == owner for name in made.owners]
    mine = (made.birth >= 0) & np.array(owners)[made.owner]
    if category:
        mine &= made.category == CATEGORIES.index(category)
    return int(made.requested_bytes[mine].sum())


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("kind", MODELS)
def test_programs_belong_to_the_layers_that_call_them(kind: str, eager: bool) -> None:
    watch, model = fitted(kind, eager=eager)
    kept = MODELS[kind][1]
    steps = watch.recording.steps
    assert [step.mode for step in steps] == ["eager" if eager else "graph"] * len(TRACED)
    for step in steps:
        nobodys = born(step, "unattributed") + born(step, "functions")
        everybodys = int(step.timeline.requested_bytes[step.timeline.birth >= 0].sum())
        assert nobodys <= 0.01 * everybodys
        # Either layer runs the same program, so each has what the other has.
        one, two = (born(step, name, "activations") for name in ("one", "two"))
        assert one == pytest.approx(two, abs=IMAGE_BYTES + 1024)
        assert min(one, two) >= kept
        for name in ("one", "two"):
            weights = FLOAT * sum(math.prod(v.shape) for v in model.get_layer(name).trainable_variables)
            assert step.gradient_bytes.get(name, 0) == weights


UNSEEN = {
    "forward": "two_1/PartitionedCall",
    "backward": "/PartitionedCall_1",
    "both forward": ("one_1/PartitionedCall", "two_1/PartitionedCall"),
    "all": ("PartitionedCall", "PartitionedCall_1"),
}


@pytest.mark.parametrize("unseen", UNSEEN)
def test_a_call_that_the_capture_does_not_see_end(unseen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(space: Any) -> Any:
        return (span for span in call_spans(space) if not span.op.endswith(UNSEEN[unseen]))

    monkeypatch.setattr(step_attribution, "call_spans", ended)
    watch, _ = fitted("a shared function", eager=False)
    for step in watch.recording.steps:
        assert born(step, "unattributed") <= 1024
        assert born(step, "one", "activations") == pytest.approx(born(step, "two", "activations"), abs=IMAGE_BYTES)


@pytest.mark.parametrize("compiled", ["graph", "eager", "xla"])
def test_a_loop_with_a_compiled_layer_is_not_taken_for_a_compiled_one(compiled: str) -> None:
    model = keras.Sequential([keras.Input((SIZE, SIZE, CHANNELS)), Compiled(name="one"), layers.Dense(1, name="head")])
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)

    def train(x: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    function = train if compiled == "eager" else tf.function(train, jit_compile=compiled == "xla")
    x = tf.ones((BATCH, SIZE, SIZE, CHANNELS))
    with kmw.MemorySession(model, log_dir=None, trace=[3], strict=True) as session:
        for _ in range(4):
            with session.step():
                function(x)
    [step] = session.recording.steps
    assert step.mode == compiled
    assert born(step, "one") >= HIDDEN_BYTES
    assert born(step, "unattributed") + born(step, "functions") <= 0.01 * HIDDEN_BYTES
