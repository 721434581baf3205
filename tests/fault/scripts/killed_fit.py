"""Train without end, telling each step in a line, until killed."""

import sys

import keras
import numpy as np

import kerasmemwatch as kmw

log_dir = sys.argv[1]


class Teller(keras.callbacks.Callback):
    step = 0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step == 3:
            while not kmw.load(log_dir).layers:  # the inventory is stored by a thread
                pass
        print(self.step, flush=True)


model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")], name="killed")
model.compile("sgd", "mse")
watch = kmw.MemoryWatch(log_dir=log_dir, run_name="run", tags=["killed", "<b>"])
model.fit(np.ones((4096, 8)), np.ones((4096, 4)), batch_size=1, verbose=0, callbacks=[watch, Teller()])
