"""One model, trained by ``fit``, by a session with a function, or by an eager session: what the report says, as JSON.

Called with ``cnn`` or ``lstm``, and ``fit``, ``graph`` or ``eager``.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

import kerasmemwatch as kmw
from kerasmemwatch.analysis.steps.live_set import peak_event
from kerasmemwatch.records.timeline import PHASES

name, way = sys.argv[1:]
layers = keras.layers
inner, shape = {
    "cnn": (
        [
            layers.Conv2D(16, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(32, "relu", name="b"),
        ],
        (24, 24, 3),
    ),
    "lstm": (
        [layers.LSTM(96, name="rnn", return_sequences=True), layers.LSTM(64, name="rnn2")],
        (12, 64),
    ),
}[name]
keras.utils.set_random_seed(1)
model = keras.Sequential([keras.Input(shape), *inner, layers.Dense(4, name="head")])
optimizer = keras.optimizers.Adam()
optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
x = np.random.default_rng(0).normal(size=(32, *shape)).astype("float32")
data = tf.data.Dataset.from_tensors((x, np.ones((32, 4), "float32"))).repeat(6)

if way == "fit":
    watch = kmw.MemoryWatch(None, trace=[4], strict=True)
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(data, shuffle=False, verbose=0, callbacks=[watch])
else:

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.mean_squared_error(y, model(x, training=True)))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    step = tf.function(step) if way == "graph" else step
    with kmw.MemorySession(model, None, trace=[4], strict=True) as watch:
        for x, y in watch.steps(data):
            step(x, y)

report = watch.report
[traced] = watch.recording.steps
timeline = traced.timeline
event = peak_event(timeline)
alive = (timeline.birth <= event) & (timeline.death > event)
rows = [row for row in report.layers if row.class_name]


def sizes(of):
    """By path of the layer that has them, the bytes of variables; the cell of an LSTM has its variables."""
    found = {}
    for layer in model.layers:
        owner = getattr(layer, "cell", layer)
        path = layer.name if owner is layer else f"{layer.name}/{owner.name}"
        total = sum(variable.numpy().nbytes for variable in of(owner))
        if total:
            found[path] = total
    return found


told = {
    "coverage": report.coverage,
    "requested": report.peak.requested_bytes,
    "by category": report.peak.by_category,
    "by phase": {
        phase: int(timeline.requested_bytes[alive & (timeline.phase == code)].sum())
        for code, phase in enumerate(PHASES)
    },
    "weights": {row.path: row.weights_bytes for row in rows if row.weights_bytes},
    "optimizer": {row.path: row.optimizer_bytes for row in rows if row.optimizer_bytes},
    "gradients": traced.gradient_bytes,
    "expected weights": sizes(lambda layer: layer.weights),
    "expected gradients": sizes(lambda layer: layer.trainable_weights),
}
print(json.dumps(told))
