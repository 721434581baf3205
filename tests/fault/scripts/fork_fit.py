"""Fork in the middle of a real fit, in a callback: children that exit in each way, and a pool of workers."""

import json
import multiprocessing
import os
import sys
import warnings

import keras
import numpy as np

import kerasmemwatch as kmw
from kerasmemwatch.sampling.process_exit import _close_all

warnings.simplefilter("ignore")  # Python 3.12 warns of forks in a process with threads
log_dir = sys.argv[1]
watch = kmw.MemoryWatch(log_dir=log_dir, run_name="run")
found = {}


def hooks(first: int, last: int) -> None:
    """The calls of a fit; a real one needs TensorFlow's threads, which a forked child has not."""
    watch.set_params({"verbose": 0})
    watch.on_train_begin()
    watch.on_epoch_begin(0)
    for batch in range(first, last):
        watch.on_train_batch_begin(batch)
        watch.on_train_batch_end(batch)
    watch.on_epoch_end(0)
    watch.on_train_end()


def go_on(leave) -> list:
    """What a child does that goes on with the fit it was forked in, and then begins its own."""
    seen = watch.recording.samples.num_samples
    watch.on_train_batch_begin(40)
    watch.on_train_batch_end(40)
    watch.on_epoch_end(0, {})
    watch.on_train_end()
    after = watch.recording.samples.num_samples
    hooks(0, 3)
    recording = watch.recording
    told = [seen, after, recording.run.name, recording.samples.num_samples, [layer.path for layer in recording.layers]]
    return leave(told)


def child(leave) -> None:
    reader, writer = os.pipe()
    if not os.fork():
        go_on(lambda told: (os.write(writer, json.dumps(told).encode()), leave(0)))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        found.setdefault("children", []).append(json.loads(pipe.read()))
    found.setdefault("statuses", []).append(os.waitstatus_to_exitcode(os.wait()[1]))


def work(_) -> int:
    return watch.recording.samples.num_samples


class Forks(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 9:
            child(os._exit)
        if batch == 19:
            # What we have registered with atexit. All of it hangs, or is a segmentation fault, in TensorFlow.
            child(lambda code: (_close_all(), os._exit(code)))
        if batch == 29:
            with multiprocessing.get_context("fork").Pool(2) as pool:
                found["pool"] = pool.map(work, range(4))


model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
model.compile("sgd", "mse")
model.fit(np.ones((40, 8)), np.ones((40, 4)), batch_size=1, verbose=0, callbacks=[watch, Forks()])
found["parent"] = watch.recording.samples["step"].tolist()
print(json.dumps(found))
