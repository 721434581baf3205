"""A real out-of-memory error of TensorFlow's CPU allocator in a fit, caught once, then in a fit of its own uncaught."""

import json
import sys

import keras
import numpy as np
import tensorflow as tf
from fault_kit import Messages

import kerasmemwatch as kmw

messages = Messages()
x = np.ones((64, 8), "float32")


class Hungry(keras.layers.Layer):
    """Asks for a GiB at once where its input says so."""

    def call(self, inputs):
        large = tf.cast(tf.reduce_max(inputs) > 1, tf.int32) * 16_384
        return inputs + tf.reduce_sum(tf.random.uniform((large, 16_384))) * 0


model = keras.Sequential([keras.Input((8,)), Hungry(), keras.layers.Dense(4)])
model.compile("sgd", "mse", jit_compile=False)
watch = kmw.MemoryWatch(log_dir=sys.argv[1], run_name="run")
bad = x.copy()
bad[24:] = 2  # the seventh batch of four


def fit(inputs):
    model.fit(inputs, np.ones((64, 4)), batch_size=4, shuffle=False, verbose=0, callbacks=[watch])


found = {}
try:
    fit(bad)
except tf.errors.ResourceExhaustedError as error:
    found["error"] = [type(error).__name__, error.__cause__ is None, error.__context__ is None]
found["recording"] = watch.recording.samples["step"].tolist()
found["disk"] = kmw.load(sys.argv[1]).samples["step"].tolist()
found["report"] = str(watch.report).splitlines()[0]
fit(x)
found["next fit"] = watch.recording.samples["step"].tolist()
found["messages"] = messages.texts
print(json.dumps(found), flush=True)
fit(bad)
