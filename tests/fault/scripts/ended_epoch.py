"""End in the middle of the first epoch, after two traced steps, in the way that is asked for."""

import os
import signal
import sys
import time

import keras
import numpy as np

import kerasmemwatch as kmw

log_dir, ending = sys.argv[1:]
PATIENCE_S = 60


def die() -> None:
    if ending == "killed":
        # As soon as the steps are stored: a test that passes is quick, and one that fails says so.
        deadline = time.monotonic() + PATIENCE_S
        while len(kmw.load(log_dir).steps) < 2 and time.monotonic() < deadline:
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "raises":
        raise MemoryError("the user's")
    if ending == "interrupted":
        raise KeyboardInterrupt
    sys.exit(0)


class Ends(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 12:
            die()


model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
model.compile("sgd", "mse")
watch = kmw.MemoryWatch(log_dir=log_dir, run_name="run")
model.fit(np.ones((400, 8)), np.ones((400, 4)), batch_size=4, verbose=0, callbacks=[watch, Ends()])
