"""A batch that does not fit into the memory that TensorFlow may use, wherever steps run; prints what is recorded."""

import json
import os
import sys
import threading
import traceback
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import kerasmemwatch as kmw
from kerasmemwatch.reports.report import Report
from kerasmemwatch.watch import last_words

# A machine that is busy with other tests takes longer.
last_words._STEPS_S = last_words._PAGE_S = 60

log_dir, where, mode, fails_at = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
layers = keras.layers
model = keras.Sequential([keras.Input((512,)), layers.Dense(2048, "tanh", name="wide"), layers.Dense(1, name="head")])
model.compile("sgd", "mse", jit_compile=mode == "xla", run_eagerly=mode == "eager")


def batches(fails_at=fails_at):
    for step in range(1, 6):
        rows = 8192 if step == fails_at else 8
        yield np.ones((rows, 512), "float32"), np.ones((rows, 1), "float32")


kind = (tf.TensorSpec((None, 512)), tf.TensorSpec((None, 1)))
data = tf.data.Dataset.from_generator(batches, output_signature=kind)


def train(x, y):
    with tf.GradientTape() as tape:
        loss = keras.ops.mean((model(x, training=True) - y) ** 2)
    model.optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)


def within_watch(stage):
    for x, y in batches():
        with watcher.batch(model, stage):
            model.train_on_batch(x, y)


def within_step():
    with watcher:
        for x, y in data:
            with watcher.step(x):
                train(x, y)


def over_steps():
    with watcher:
        for x, y in watcher.steps(data):
            train(x, y)


def caught_within():
    with watcher:
        try:
            for x, y in watcher.steps(data):
                train(x, y)
        except tf.errors.ResourceExhaustedError as error:
            caught.append([*error.__notes__])
            raise


def by_tape():
    with watcher:
        for x, y in data:
            with watcher.step(), kmw.MemoryTape(session=watcher) as tape:
                loss = keras.ops.mean((model(x, training=True) - y) ** 2)
            model.optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)


def retried():
    x, y = np.ones((8192, 512), "float32"), np.ones((8192, 1), "float32")
    for size in (8192, 4096, 64):
        try:
            model.fit(x, y, batch_size=size, steps_per_epoch=2, verbose=0, callbacks=[watcher])
        except tf.errors.ResourceExhaustedError as error:
            caught.append(error)
    raise caught[-1]


def anew():
    """Each try with a watch and a model of its own."""
    global watcher
    x, y = np.ones((8192, 512), "float32"), np.ones((8192, 1), "float32")
    for size in (8192, 4096, 64):
        tried = keras.Sequential([keras.Input((512,)), layers.Dense(2048, "tanh"), layers.Dense(1)])
        tried.compile("sgd", "mse")
        watcher = kmw.MemoryWatch(log_dir, trace=False)
        try:
            tried.fit(x, y, batch_size=size, steps_per_epoch=2, verbose=0, callbacks=[watcher])
        except tf.errors.ResourceExhaustedError as error:
            caught.append(error)
    raise caught[-1]


def short():
    """The host has no memory left, either: none for a thread, and not as much as a page takes."""

    def no_memory(*_, **__):
        raise MemoryError

    def no_thread(self):
        if self.name == "kerasmemwatch-last-words":
            raise RuntimeError("can't start new thread")
        start(self)

    start, threading.Thread.start = threading.Thread.start, no_thread
    Report.to_html = no_memory
    model.fit(data, verbose=0, callbacks=[watcher])


caught = []
runs = {
    "fit": lambda: model.fit(data, verbose=0, callbacks=[watcher]),
    "evaluate": lambda: model.evaluate(data, verbose=0, callbacks=[watcher]),
    "predict": lambda: model.predict(data.map(lambda x, y: x), verbose=0, callbacks=[watcher]),
    "train_on_batch": lambda: within_watch("train"),
    "step": within_step,
    "steps": over_steps,
    "steps_caught": caught_within,
    "step_tape": by_tape,
    "retried": retried,
    "anew": anew,
    "short": short,
}
kept = {"run_name": "run", "trace": "auto"}
watcher = kmw.MemorySession(model, log_dir, **kept) if where.startswith("step") else kmw.MemoryWatch(log_dir, **kept)
found = {}
try:
    runs[where]()
except tf.errors.ResourceExhaustedError as error:
    stack = "".join(traceback.format_tb(error.__traceback__))
    found = {
        "raised": type(error).__name__,
        "note": "\n".join(getattr(error, "__notes__", [])).splitlines(),
        "notes": [len(getattr(error, "__notes__", [])), len(caught)],
        "plain": [error.__cause__ is None, "kerasmemwatch" in str(error), "last_words" in stack],
        # Before the exception has left this block.
        "stored": len(kmw.load(log_dir).run.deaths),
        "page": sum(each.read_text().count('<section id="death"') for each in Path(log_dir).glob("run/*.html")),
    }
samples = watcher.recording.samples
found |= {
    "ended": samples["ended"].tolist(),
    "peaks": samples["device_peak_bytes"][:, 0].tolist(),
    "limit": watcher.report.run.devices[0].limit_bytes,
    "text": " ".join(str(watcher.report).split()),
    "faults": [note for note in watcher.report.notes if "out of memory:" in note],
}
print(json.dumps(found), flush=True)
os._exit(0)  # after an error in a compiled step, TensorFlow aborts the process as it exits
