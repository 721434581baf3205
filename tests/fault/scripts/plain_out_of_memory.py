"""A fit that runs out of memory, by somebody who has never heard of us: for ``kerasmemwatch run``."""

import sys

import keras
import numpy as np

layers = keras.layers
model = keras.Sequential([keras.Input((512,)), layers.Dense(2048, "tanh", name="wide"), layers.Dense(1, name="head")])
model.compile("sgd", "mse", jit_compile=False)
x, y = np.ones((8192, 512), "float32"), np.ones((8192, 1), "float32")
if sys.argv[1] == "fit":
    model.fit(x, y, batch_size=8192, verbose=0)
else:
    model.train_on_batch(x, y)
