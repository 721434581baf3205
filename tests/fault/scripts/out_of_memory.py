"""A batch that does not fit into the memory that TensorFlow may use, in a fit or a loop; prints what is recorded."""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

import kerasmemwatch as kmw

log_dir, where, fails_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
layers = keras.layers
model = keras.Sequential([keras.Input((512,)), layers.Dense(2048, "tanh", name="wide"), layers.Dense(1, name="head")])
model.compile("sgd", "mse", jit_compile=False)


def batches():
    for step in range(1, 6):
        rows = 8192 if step == fails_at else 8
        yield np.ones((rows, 512), "float32"), np.ones((rows, 1), "float32")


kind = (tf.TensorSpec((None, 512)), tf.TensorSpec((None, 1)))
data = tf.data.Dataset.from_generator(batches, output_signature=kind)
raised = None
try:
    if where == "fit":
        watcher = kmw.MemoryWatch(log_dir, run_name="run")
        model.fit(data, verbose=0, callbacks=[watcher])
    else:
        watcher = kmw.MemorySession(model, log_dir, run_name="run")
        with watcher:
            for x, y in watcher.steps(data):
                model.train_on_batch(x, y)
except tf.errors.ResourceExhaustedError as error:
    raised = type(error).__name__
samples = watcher.recording.samples
print(
    json.dumps(
        {
            "raised": raised,
            "ended": samples["ended"].tolist(),
            "peaks": samples["device_peak_bytes"][:, 0].tolist(),
            "limit": watcher.report.run.devices[0].limit_bytes,
            "text": " ".join(str(watcher.report).split()),
        }
    ),
    flush=True,
)
