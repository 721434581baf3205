"""Fits whose steps are traced while something is odd, in one process; what came of each is printed as JSON.

Each case is fitted twice, without and with a watch, from the same seed.
"""

import gc
import json
import threading
import traceback

import keras
import numpy as np
import tensorflow as tf
from fault_kit import Messages
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import execute, record
from tensorflow.python.eager.backprop import GradientTape
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.profiler.internal import _pywrap_profiler

import kerasmemwatch as kmw
from kerasmemwatch.records.categories import CATEGORIES

MODES = {"graph": {"jit_compile": False}, "eager": {"run_eagerly": True}, "xla": {"jit_compile": True}}
# To compile takes most of the time, and by what is compiled what is done around it differs little.
UNCOMPILED = ("graph", "eager")
PATCHED = [
    (keras.layers.Layer, "__call__"), (keras.Operation, "__call__"), (keras.optimizers.Optimizer, "apply"),
    (keras.losses.Loss, "__call__"), (keras.Model, "compute_metrics"), (keras.Model, "_compute_loss"),
    (keras.metrics.Mean, "update_state"), (FuncGraph, "_create_op_internal"), (GradientTape, "gradient"),
    (record, "record_operation"), (execute, "record_gradient"), (pywrap_tfe, "TFE_Py_FastPathExecute"),
    (_pywrap_profiler, "ProfilerSession"),
]  # fmt: skip
ORIGINALS = [getattr(owner, name) for owner, name in PATCHED]
messages = Messages()
found = {}
random = np.random.default_rng(0)
x, y = random.normal(size=(64, 16)).astype("float32"), random.normal(size=(64, 1)).astype("float32")


def fresh():
    """Forget all models; what they leave in TensorFlow for good is no longer searched for garbage."""
    keras.backend.clear_session()
    gc.freeze()


def patched():
    return [name for (owner, name), value in zip(PATCHED, ORIGINALS, strict=True) if getattr(owner, name) is not value]


def armed(model):
    return model.train_function.__module__.startswith("kerasmemwatch")


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.asarray(variable.numpy()).tobytes() for variable in variables]


def owners(watch):
    return sorted({owner for step in watch.recording.steps for owner in step.timeline.owners})


def told(watch, model=None):
    steps = watch.recording.steps
    result = {
        "steps": [step.step for step in steps],
        "notes": sorted({note for step in steps for note in step.notes}),
        "coverage": watch.report.coverage,
        "owners": owners(watch),
        "activations": {
            layer.path: layer.activations_bytes for layer in watch.report.layers if layer.activations_bytes
        },
        "gradients": {layer.path: layer.gradients_bytes for layer in watch.report.layers if layer.gradients_bytes},
        "unattributed born": sum(
            int(size)
            for step in steps
            for size, birth, category in zip(
                step.timeline.requested_bytes, step.timeline.birth, step.timeline.category, strict=True
            )
            if birth >= 0 and CATEGORIES[category] == "unattributed"
        ),
        "printable": str(watch.report).replace("\n", "").isprintable(),
        "messages": list(messages.texts),
        "patched": patched(),
    }
    if model is not None:
        result["own function"] = not armed(model)
    return result


def case(name, build, *, modes=MODES, trace=(2, 4), fit=None, compiled=None):
    for mode in modes:
        states = []
        for watched in (False, True):
            messages.texts.clear()
            fresh()
            keras.utils.set_random_seed(1)
            model = build()
            # An optimizer with state makes a step take thrice as long.
            model.compile(**{"optimizer": "sgd", "loss": "mse", **MODES[mode], **(compiled or {})})
            watch = kmw.MemoryWatch(log_dir=None, trace=list(trace))
            model.fit(
                **{
                    "x": x,
                    "y": y,
                    "batch_size": 8,
                    "verbose": 0,
                    "callbacks": [watch] if watched else [],
                    **(fit or {}),
                }
            )
            states.append(state(model))
        found[f"{name} {mode}"] = told(watch, model) | {"identical": states[0] == states[1]}


def stacked(*layers):
    return lambda: keras.Sequential(
        [keras.Input((16,)), *[make() for make in layers], keras.layers.Dense(1, name="head")]
    )


# -- what layers may do --------------------------------------------------------------------------------------------


class Own(keras.layers.Layer):
    """A layer with a Dense inside."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = keras.layers.Dense(16, "tanh", name="inner")

    def build(self, shape):
        self.inner.build(shape)


class Compiled(Own):
    @tf.function
    def run(self, inputs):
        return self.inner(inputs)

    def call(self, inputs):
        return self.run(inputs)


class Recomputed(Own):
    def call(self, inputs):
        return tf.recompute_grad(lambda value: self.inner(value))(inputs)


class Branching(Own):
    def call(self, inputs):
        return tf.cond(tf.reduce_sum(inputs) > -1e9, lambda: self.inner(inputs), lambda: inputs * 2.0)


class InPython(keras.layers.Layer):
    def call(self, inputs):
        outputs = tf.py_function(lambda value: tf.tanh(value * 2.0), [inputs], tf.float32)
        outputs.set_shape(inputs.shape)
        return outputs


class CustomGradient(keras.layers.Layer):
    def call(self, inputs):
        @tf.custom_gradient
        def sine(value):
            return tf.sin(value), lambda upstream: tf.cos(value) * upstream

        return sine(inputs)


class Twice(Own):
    def call(self, inputs):
        return self.inner(self.inner(inputs))


class MakesLayers(keras.layers.Layer):
    def call(self, inputs):
        return inputs + keras.layers.Activation("tanh")(inputs)


@tf.function
def helper(value):
    return tf.tanh(tf.sin(value) * 2.0)


class Helped(keras.layers.Layer):
    def call(self, inputs):
        return helper(inputs)


def remat():
    with keras.RematScope(mode="full"):
        return keras.layers.Dense(16, "tanh", name="remat")


def unrolled():
    return keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Reshape((4, 4)),
            keras.layers.LSTM(8, unroll=True, name="lstm"),
            keras.layers.Dense(1, name="head"),
        ]
    )


def stateful():
    return keras.Sequential(
        [
            keras.Input(batch_shape=(8, 16)),
            keras.layers.Reshape((4, 4)),
            keras.layers.GRU(8, stateful=True, name="gru"),
            keras.layers.Dense(1, name="head"),
        ]
    )


case(
    "tf.function",
    stacked(lambda: Compiled(name="one"), lambda: Compiled(name="two")),
    modes=UNCOMPILED,
    compiled={"optimizer": "adam"},
)
case("helper", stacked(lambda: Helped(name="one"), lambda: Helped(name="two")), modes=UNCOMPILED)
case("recompute", stacked(lambda: Recomputed(name="again")))
case("remat", stacked(remat), modes=("eager",))  # Keras cannot in a graph
case("cond", stacked(lambda: Branching(name="branching")))
case("py_function", stacked(lambda: InPython(name="in_python")), modes=UNCOMPILED)
case("custom gradient", stacked(lambda: CustomGradient(name="own_gradient")), modes=UNCOMPILED)
case("twice", stacked(lambda: Twice(name="twice")), modes=UNCOMPILED)
case("makes layers", stacked(lambda: MakesLayers(name="maker")), modes=UNCOMPILED)
case("unrolled", unrolled, modes=UNCOMPILED)
case("stateful", stateful, modes=UNCOMPILED)
case(
    "steps_per_execution",
    stacked(lambda: Twice(name="twice")),
    modes=("graph", "xla"),
    trace=(3, 6),
    compiled={"steps_per_execution": 4},
    fit={"epochs": 2},
)
case(
    "class weight",
    stacked(lambda: Twice(name="twice")),
    modes=UNCOMPILED,
    fit={"class_weight": {0: 1.0, 1: 2.0}, "y": (x[:, :1] > 0).astype("int32")},
)
case("never comes", stacked(lambda: Twice(name="twice")), modes=("graph",), trace=(100, 1000))

# -- names ---------------------------------------------------------------------------------------------------------

ODD = ["..", "<img src=x onerror=alert(1)>", "n" * 200, "naïve-🦒", "[bold]x", "%s{0}", "a b", "gradient_tape"]
case("odd names", stacked(*[lambda name=name: keras.layers.Dense(16, name=name) for name in ODD]), modes=("eager",))


class Pair(keras.Model):
    """Two models with the same layers' names, trained in one step."""

    def __init__(self):
        super().__init__(name="pair")
        layers = [
            [keras.Input((16,)), keras.layers.Dense(16, "tanh", name="same"), keras.layers.Dense(1)] for _ in "ab"
        ]
        self.one, self.two = (
            keras.Sequential(each, name=name) for each, name in zip(layers, ("one", "two"), strict=True)
        )

    def call(self, inputs):
        return self.one(inputs) + self.two(inputs)


case("same names", Pair, modes=UNCOMPILED)

# -- exceptions ----------------------------------------------------------------------------------------------------


class Failing(keras.layers.Layer):
    error = None

    def call(self, inputs):
        if Failing.error is not None:
            raise Failing.error
        return inputs * 1.5


@tf.custom_gradient
def fails_backward(value):
    def gradient(upstream):
        if Failing.error is not None:
            raise Failing.error
        return upstream * 2.0

    return value * 2.0, gradient


class FailsBackward(keras.layers.Layer):
    def call(self, inputs):
        return fails_backward(inputs)


class FailsAsItRuns(keras.layers.Layer):
    def call(self, inputs):
        return tf.debugging.check_numerics(inputs / tf.reduce_sum(inputs * 0.0), "not a number")


class FailingLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        if Failing.error is not None:
            raise Failing.error
        return keras.ops.mean(keras.ops.square(y_true - y_pred))


class Raises(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if Failing.error is not None and batch == 1:
            raise Failing.error


def ours(error):
    text = "".join(traceback.format_exception(error)) + str(error)
    return [line for line in text.splitlines() if "/kerasmemwatch/" in line]


def failing(name, error, *layers, loss=None, callbacks=(), modes=MODES):
    for mode in modes:
        messages.texts.clear()
        fresh()
        Failing.error = None
        model = keras.Sequential([keras.Input((16,)), *[make() for make in layers], keras.layers.Dense(1, name="head")])
        model.compile(optimizer="sgd", loss=loss or "mse", **MODES[mode])
        watch = kmw.MemoryWatch(log_dir=None, trace=[1, 2])
        Failing.error = error
        result = {"raised": None}
        try:
            model.fit(x, y, batch_size=8, verbose=0, callbacks=[watch, *callbacks])
        except BaseException as caught:
            result = {"raised": type(caught).__name__, "text": str(caught), "ours": ours(caught)}
        Failing.error = None
        result["patched"] = patched()
        result["armed"] = armed(model)
        if error is not None:
            # What is left on the model is harmless without the watch, and gone with the next fit.
            model.fit(x, y, batch_size=8, verbose=0)
            result["patched without"] = patched()
            result["armed without"] = armed(model)
            before = len(watch.recording.steps)
            model.fit(x, y, batch_size=8, verbose=0, callbacks=[watch])
            result["steps after"] = len(watch.recording.steps) - before
            result["armed after"] = armed(model)
        result["messages"] = list(messages.texts)
        found[f"raises {name} {mode}"] = result


failing("layer", OSError("this one"), lambda: Failing())
failing("interrupt", KeyboardInterrupt(), lambda: Failing(), modes=("eager",))
failing("exit", SystemExit(3), lambda: Failing(), modes=("graph",))
failing("backward", OSError("this one"), lambda: keras.layers.Dense(16), lambda: FailsBackward(), modes=UNCOMPILED)
failing("loss", OSError("this one"), loss=FailingLoss(), modes=("eager",))
failing("run", None, lambda: FailsAsItRuns(), modes=UNCOMPILED)
failing("callback", OSError("this one"), callbacks=[Raises()], modes=("graph",))

# -- several at once -----------------------------------------------------------------------------------------------

messages.texts.clear()
fresh()
model = stacked(lambda: keras.layers.Dense(16, "tanh", name="own"))()
model.compile("sgd", "mse", jit_compile=False)
watches = [kmw.MemoryWatch(log_dir=None, trace=[2, 4, 6]) for _ in range(2)]
model.fit(x, y, batch_size=8, verbose=0, callbacks=watches)
found["two watches"] = {
    "steps": [[step.step for step in watch.recording.steps] for watch in watches],
    "messages": list(messages.texts),
    "patched": patched(),
    "own function": not armed(model),
}

messages.texts.clear()
errors, watched = [], []


def train(number):
    try:
        with tf.device("CPU:0"):
            model = keras.Sequential(
                [keras.Input((16,)), keras.layers.Dense(16, "tanh", name=f"d{number}"), keras.layers.Dense(1)]
            )
            model.compile("sgd", "mse", jit_compile=False)
            watch = kmw.MemoryWatch(log_dir=None, trace=list(range(2, 17)))
            model.fit(x, y, batch_size=4, verbose=0, callbacks=[watch])
            watched.append(watch)
    except BaseException as error:
        errors.append(repr(error))


threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
found["two threads"] = {
    "errors": errors, "traced": sum(len(watch.recording.steps) for watch in watched), "patched": patched(),
    "rows": [watch.recording.samples.num_samples for watch in watched], "messages": list(messages.texts),
}  # fmt: skip

gc.collect()
print(json.dumps(found), flush=True)
