"""A fit whose steps are traced in a process where something is missing, full or odd: what came of it as JSON.

Called with the case's name, and perhaps with what is missing.
"""

import json
import os
import resource
import sys
import tempfile
import types

case = sys.argv[1]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from fault_kit import Messages  # noqa: E402

import kerasmemwatch as kmw  # noqa: E402

messages = Messages()
random = np.random.default_rng(0)
x, y = random.normal(size=(64, 16)).astype("float32"), random.normal(size=(64, 1)).astype("float32")
original_call = keras.layers.Layer.__call__


def make(*layers, **compiled):
    model = keras.Sequential([keras.Input((16,)), *layers, keras.layers.Dense(1, name="head")])
    model.compile(**{"optimizer": "adam", "loss": "mse", "jit_compile": False, **compiled})
    model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
    return model


def fit(model, *callbacks, **options):
    model.fit(x, y, **{"batch_size": 8, "verbose": 0, "callbacks": list(callbacks), **options})


def told(watch):
    steps = watch.recording.steps
    return {
        "rows": watch.recording.samples.num_samples,
        "steps": [step.step for step in steps],
        "notes": sorted({note for step in steps for note in step.notes}),
        "run notes": [note for note in watch.recording.run.notes if "nvml" not in note],
        "owners": sorted({owner for step in steps for owner in step.timeline.owners}),
        "by layer": {
            layer.path: [layer.weights_bytes, layer.gradients_bytes, layer.activations_bytes]
            for layer in watch.report.layers
        },
        "coverage": watch.report.coverage,
        "report": str(watch.report),
        "messages": messages.texts,
        "patched": keras.layers.Layer.__call__ is not original_call,
    }


def dense():
    return keras.layers.Dense(16, "tanh", name="dense")


def missing(name):
    """A TensorFlow without one of its private names: each is looked up in a stand-in for its module."""
    place, _, attribute = name.rpartition(".")
    package, _, module = place.rpartition(".")
    real = sys.modules[place] if place in sys.modules else __import__(place, fromlist=["x"])
    if attribute == "FuncGraph":  # a class without the method
        stand_in = types.ModuleType(place)
        stand_in.FuncGraph = type("FuncGraph", (), {})
    else:
        stand_in = types.ModuleType(place)
        stand_in.__dict__.update({key: value for key, value in vars(real).items() if key != attribute})
    sys.modules[place] = stand_in
    setattr(sys.modules[package], module, stand_in)


watch = kmw.MemoryWatch(log_dir=None, trace=[2, 4])
if case == "missing":
    # Everything that TensorFlow itself takes from there, it has taken by now.
    mode = {"graph": {}, "eager": {"run_eagerly": True}}[sys.argv[3]]
    fit(make(dense(), **mode))
    missing(sys.argv[2])
    fit(make(dense(), **mode), watch)
elif case == "counting":
    fit(make(dense(), keras.layers.Dense(int(sys.argv[2]), "tanh", name="wide")), watch)
elif case == "full":
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = make(dense())
    fit(model)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    fit(make(dense()), watch)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
elif case == "unwritable":
    # No memory disk, and no directory for temporary files.
    from kerasmemwatch.attribution.events import capture_folder

    capture_folder._MEMORY_DISK = sys.argv[2]
    tempfile.tempdir = sys.argv[3]
    fit(make(dense()), watch)
elif case == "layers":
    sys.setrecursionlimit(200)  # enough for Keras, and Python's own 1,000 would need more layers

    class Deep(keras.Model):
        """Deeper than Python's recursion limit."""

        def __init__(self, count):
            super().__init__()
            self.all = [
                keras.layers.Activation("tanh", name=f"layer_{number}")
                if number % 8  # a layer with weights takes four times as long
                else keras.layers.Dense(16, use_bias=False, name=f"layer_{number}")
                for number in range(count)
            ]

        def call(self, inputs):
            for layer in self.all:
                inputs = layer(inputs)
            return inputs[:, :1]

    model = Deep(int(sys.argv[2]))
    model.compile("sgd", "mse", jit_compile=False)
    fit(model, watch)
elif case == "mirrored":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    weights = []
    for callbacks in ([], [watch]):
        keras.utils.set_random_seed(1)
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            model = make(dense())
        fit(model, *callbacks)
        weights.append([np.asarray(variable.numpy()).tobytes() for variable in model.variables])
    print(json.dumps(told(watch) | {"identical": weights[0] == weights[1]}), flush=True)
    sys.exit()
elif case == "fork":

    class Forks(keras.layers.Layer):
        """Forks in the middle of a traced step; the child leaves the fit, as it has none of TensorFlow's threads."""

        calls, child = 0, -1

        def call(self, inputs):
            Forks.calls += 1
            if Forks.calls == 3:
                sys.stdout.flush()
                Forks.child = os.fork()
                if Forks.child == 0:
                    raise SystemExit
            return inputs * 1.0

    model = make(dense(), Forks(), run_eagerly=True)
    try:
        fit(model, watch)
    except SystemExit:
        os._exit(7 if keras.layers.Layer.__call__ is original_call else 8)
    _, status = os.waitpid(Forks.child, 0)
    print(json.dumps(told(watch) | {"status": os.waitstatus_to_exitcode(status)}), flush=True)
    sys.exit()
print(json.dumps(told(watch)), flush=True)
