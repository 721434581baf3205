"""One of several workers that train each by itself: a fit, telling each step in a line.

It begins at a line of input, so that several do at once.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

import kerasmemwatch as kmw

log_dir, batches, run_name, sample_every = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None, int(sys.argv[4])


class Teller(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print(batch + 1, flush=True)


model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")], name="worker")
model.compile("sgd", "mse", jit_compile=False)
data = tf.data.Dataset.from_tensors((np.ones((8, 8), "float32"), np.ones((8, 4), "float32"))).repeat(batches)
watch = kmw.MemoryWatch(log_dir, run_name=run_name, sample_every=sample_every, strict=True)
print("ready", flush=True)
sys.stdin.readline()
model.fit(data, verbose=0, callbacks=[watch, Teller()])
