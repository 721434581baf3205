"""Fits that fail in many ways in one process, each with a watch; what came of it is printed as JSON at the end.

The last fit raises and nobody catches it.
"""

import json
import os
import shutil
import sys
import traceback
import warnings

import keras
import numpy as np
from fault_kit import Messages, ToyProbe

import kerasmemwatch as kmw

top = sys.argv[1]
messages = Messages()
found = {}
x, y = np.ones((40, 8), "float32"), np.ones((40, 4), "float32")
methods = ("fit", "evaluate", "predict", "train_on_batch", "make_train_function")
originals = {name: getattr(keras.Model, name) for name in methods}
list_originals = dict(vars(keras.callbacks.CallbackList))


class OwnError(ValueError):
    pass


class Raises(keras.callbacks.Callback):
    """Raises at the end of the sixth batch."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        if batch == 5 and self.error is not None:
            raise self.error


class RaisingModel(keras.Sequential):
    error = None
    steps = 0

    def train_step(self, *args, **kwargs):
        self.steps += 1
        if self.error is not None and self.steps == 7:
            raise self.error
        return super().train_step(*args, **kwargs)


def make_model(**options):
    model = RaisingModel([keras.Input((8,)), keras.layers.Dense(4, name="head")])
    model.compile("sgd", "mse", **options)
    return model


def fit(model, *callbacks, **options):
    return model.fit(x, y, **{"batch_size": 4, "verbose": 0, "callbacks": list(callbacks), **options})


def steps(samples):
    return samples["step"].tolist()


def chain(error):
    """What is linked to an exception, as type names."""
    linked = []
    for name in ("__cause__", "__context__"):
        other = getattr(error, name)
        linked.append(None if other is None or other is error else type(other).__name__)
    return linked


def ours_in(error):
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return [file for file in files if file.startswith(os.path.dirname(kmw.__file__))]


def raising(name, error, where):
    log_dir = os.path.join(top, name)
    watch = kmw.MemoryWatch(log_dir=log_dir, run_name="run")
    model = make_model(run_eagerly=where == "train_step")
    culprit = Raises(error if where == "callback" else None)
    if where == "train_step":
        RaisingModel.error = error
    plain = None
    for callbacks in ((culprit,), (watch, culprit)):
        model.steps = 0
        try:
            fit(model, *callbacks)
        except BaseException as caught:
            same, linked, frames = caught is error, chain(caught), ours_in(caught)
            plain = plain if plain is not None else linked
            error.__traceback__ = error.__context__ = error.__cause__ = None
    RaisingModel.error = culprit.error = None
    result = {
        "same": same,
        "linked": linked,
        "linked without us": plain,
        "our frames": frames,
        "recording": steps(watch.recording.samples),
        "disk": steps(kmw.load(log_dir).samples),
    }
    watch._recorder.flush()
    result["disk after a flush"] = steps(kmw.load(log_dir).samples)
    fit(model, watch)
    result["next fit"] = steps(watch.recording.samples)
    result["next fit on disk"] = steps(kmw.load(log_dir).samples)
    result["active"] = watch.active
    result["restored"] = {name: getattr(keras.Model, name) for name in methods} == originals
    result["restored list"] = dict(vars(keras.callbacks.CallbackList)) == list_originals
    found[name] = result


raising("callback", OwnError("mine"), "callback")
raising("train_step", OwnError("mine"), "train_step")
raising("KeyboardInterrupt", KeyboardInterrupt(), "callback")
raising("SystemExit", SystemExit(3), "callback")
raising("MemoryError", MemoryError("mine"), "callback")
found["messages of raising fits"] = list(messages.texts)

# A batch outside of a fit.
messages.texts.clear()
watch = kmw.MemoryWatch(log_dir=None)
model = make_model()
for error in (None, OwnError("mine"), None):
    try:
        with watch.batch(model):
            model.train_on_batch(x, y)
            if error:
                raise error
    except OwnError as caught:
        found["batch"] = {"same": caught is error, "linked": chain(caught)}
found["batch"] |= {"steps": steps(watch.recording.samples), "messages": list(messages.texts)}

# A log dir that is a file.
messages.texts.clear()
with open(os.path.join(top, "file"), "w"):
    pass
try:
    kmw.MemoryWatch(log_dir=os.path.join(top, "file"))
except OSError as error:
    found["file"] = [type(error).__name__, str(error)]

# A probe and a sink that raise.
for name, strict in (("probe", False), ("strict probe", True)):
    messages.texts.clear()
    watch = kmw.MemoryWatch(
        log_dir=None, probes=[ToyProbe("odd", {"batch_end": OwnError("dead")}, 4), ToyProbe()], strict=strict
    )
    try:
        fit(model, watch)
        raised = None
    except OwnError as error:
        raised = str(error)
    samples = watch.recording.samples
    found[name] = {
        "raised": raised,
        "unknown": int(np.isnan(samples["odd_in_use_bytes"].astype(float)).sum()),
        "known": samples["device_in_use_bytes"][:, 0].tolist(),
        "messages": list(messages.texts),
    }


class BrokenSink:
    def write(self, update):
        raise OwnError("full")

    def close(self):
        pass


messages.texts.clear()
watch = kmw.MemoryWatch(log_dir=os.path.join(top, "sink"), sinks=[BrokenSink()])
fit(model, watch)
found["sink"] = {"steps": steps(watch.recording.samples), "messages": list(messages.texts)}

# Warnings that are errors.
messages.texts.clear()
watch = kmw.MemoryWatch(log_dir=os.path.join(top, "warnings"), verbose=True)
model.fit(x, y, batch_size=4, verbose=0)
with warnings.catch_warnings():
    warnings.simplefilter("error")
    fit(model, watch, epochs=2)
    text = str(watch.report)
    found["warnings"] = {
        "steps": steps(kmw.load(os.path.join(top, "warnings")).samples),
        "text": len(text),
        "messages": list(messages.texts),
    }

# A log dir that is removed in the middle.
messages.texts.clear()


class Removes(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 5:
            shutil.rmtree(os.path.join(top, "removed"))


watch = kmw.MemoryWatch(log_dir=os.path.join(top, "removed"))
fit(model, watch, Removes())
found["removed"] = {"steps": steps(watch.recording.samples), "messages": list(messages.texts)}

# Somebody else resets the allocator's peak at each batch's end, before the watch reads it.
import tensorflow as tf  # noqa: E402


class Resets(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        tf.config.experimental.reset_memory_stats("CPU:0")


for name, callbacks in (("resets", [Resets()]), ("does not reset", [])):
    watch = kmw.MemoryWatch(log_dir=None)
    fit(make_model(), *callbacks, watch, epochs=3)
    found[name] = {
        "steps": watch.recording.samples.num_samples,
        "counting": [device.counting for device in watch.recording.run.devices],
        "notes": list(watch.report.notes),
    }

# Names.
long = "n" * 200
odd_names = [
    "<img src=x onerror=alert(1)>",
    "[bold]x[red]",
    "..",
    "a b",
    "\u001b[31mred",
    "naïve-🦒",
    "%s{0}$HOME",
    long,
]
shown = {}
for name in odd_names:
    messages.texts.clear()
    tags = [name, "", "\ud800", "a\0b"]
    odd = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name=name)], name=name)
    odd.compile("sgd", "mse", run_eagerly=True)  # a graph refuses such names
    run_name = None if name == ".." else name
    watch = kmw.MemoryWatch(log_dir=os.path.join(top, "names"), run_name=run_name, tags=tags)
    fit(odd, watch, verbose=0)
    recording = kmw.load(os.path.join(top, "names"), run_name)
    text = recording.report.text(everything=True)
    shown[name] = {
        "run": recording.run.name,
        "tags": list(recording.run.tags) == tags,
        "layers": [layer.path for layer in recording.layers],
        "printable": text.replace("\n", "").isprintable(),
        "widest": max(map(len, text.splitlines())),
        "text": text.encode("ascii", "backslashreplace").decode(),
        "messages": list(messages.texts),
    }
found["names"] = shown
found["directories"] = sorted(os.listdir(os.path.join(top, "names")))

print(json.dumps(found), flush=True)
watch = kmw.MemoryWatch(log_dir=os.path.join(top, "unhandled"), run_name="run")
fit(make_model(), watch, Raises(OwnError("nobody catches this")))
