"""Training loops as people write them, each with a session: what its report says beside an independent count, as JSON.

Called with the loop's name, ``eager``, ``graph`` or ``xla``, and ``given`` or ``found``: whether the session is given
the models.
"""

import contextlib
import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf

import kerasmemwatch as kmw
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import PHASES

which, mode, how = sys.argv[1:]
layers = keras.layers
expected, optimizers, tracings = {}, {}, {}
ROWS, STEPS, TRACED = 64, 6, 4


def bytes_of(variables):
    return sum(int(np.prod(variable.shape)) * tf.as_dtype(variable.dtype).size for variable in variables)


def expect(path, variables, slots=2, frozen=()):
    """A layer's variables, of which each trained one has so many slots, in single precision."""
    slot_bytes = sum(slots * 4 * int(np.prod(variable.shape)) for variable in variables)
    expected[path] = [bytes_of([*variables, *frozen]), slot_bytes, bytes_of(variables)]


def function(step):
    """The step of a loop, as the mode wants it."""
    if mode == "eager":
        return step
    made = tf.function(step, jit_compile=mode == "xla")
    tracings["step"] = made.experimental_get_tracing_count
    return made


def built(optimizer, variables):
    """Have its variables made; else the first step makes them, and TensorFlow the step's graph twice."""
    optimizer.build(variables)
    return optimizer


def normal(*shape):
    return tf.constant(np.random.default_rng(0).normal(size=shape).astype("float32"))


def gan():
    """Two models, two optimizers, two tapes."""
    generator = keras.Sequential(
        [keras.Input((64,)), layers.Dense(256, "relu", name="first"), layers.Dense(512, "tanh", name="last")],
        name="generator",
    )
    judge = keras.Sequential(
        [keras.Input((512,)), layers.Dense(128, "relu", name="first"), layers.Dense(1, name="last")], name="judge"
    )
    of_generator, of_judge = keras.optimizers.Adam(1e-3), keras.optimizers.SGD(1e-3, momentum=0.9)
    if mode == "xla":
        built(of_generator, generator.trainable_variables), built(of_judge, judge.trainable_variables)
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    @function
    def step(real, noise):
        with tf.GradientTape() as generator_tape, tf.GradientTape() as judge_tape:
            fake = generator(noise, training=True)
            said_real, said_fake = judge(real, training=True), judge(fake, training=True)
            generator_loss = entropy(tf.ones_like(said_fake), said_fake)
            judge_loss = entropy(tf.ones_like(said_real), said_real) + entropy(tf.zeros_like(said_fake), said_fake)
        generator_gradients = generator_tape.gradient(generator_loss, generator.trainable_variables)
        judge_gradients = judge_tape.gradient(judge_loss, judge.trainable_variables)
        of_generator.apply_gradients(zip(generator_gradients, generator.trainable_variables, strict=True))
        of_judge.apply_gradients(zip(judge_gradients, judge.trainable_variables, strict=True))

    for layer in generator.layers:
        expect(f"generator/{layer.name}", layer.trainable_variables)
    for layer in judge.layers:
        expect(f"judge/{layer.name}", layer.trainable_variables, slots=1)
    optimizers.update(generator=of_generator, judge=of_judge)
    return [generator, judge], step, (normal(ROWS, 512), normal(ROWS, 64))


def pair():
    """An encoder and a decoder with one optimizer."""
    encoder = keras.Sequential([keras.Input((256,)), layers.Dense(256, "relu", name="inner")], name="encoder")
    decoder = keras.Sequential([keras.Input((256,)), layers.Dense(256, name="inner")], name="decoder")
    optimizer = built(keras.optimizers.Adam(), encoder.trainable_variables + decoder.trainable_variables)

    @function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(decoder(encoder(x, training=True), training=True) - x))
        variables = encoder.trainable_variables + decoder.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    expect("encoder/inner", encoder.trainable_variables)
    expect("decoder/inner", decoder.trainable_variables)
    optimizers["one"] = optimizer
    return [encoder, decoder], step, (normal(ROWS, 256),)


def accumulated():
    """Gradients of three batches, added up in variables."""
    model = keras.Sequential(
        [keras.Input((256,)), layers.Dense(256, "relu", name="wide"), layers.Dense(4, name="head")]
    )
    optimizer = built(keras.optimizers.Adam(), model.trainable_variables)
    sums = [tf.Variable(tf.zeros(variable.shape), trainable=False) for variable in model.trainable_variables]

    @function
    def step(x, y):
        for number in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x + float(number), training=True) - y))
            for total, gradient in zip(sums, tape.gradient(loss, model.trainable_variables), strict=True):
                total.assign_add(gradient)
        optimizer.apply_gradients(zip([total / 3.0 for total in sums], model.trainable_variables, strict=True))
        for total in sums:
            total.assign(tf.zeros_like(total))

    for layer in model.layers:
        expect(layer.name, layer.trainable_variables)
    optimizers["one"] = optimizer
    step.kept = sums
    return [model], step, (normal(ROWS, 256), normal(ROWS, 4))


class Perceptron(tf.Module):
    """Without Keras."""

    def __init__(self, name="perceptron"):
        super().__init__(name=name)
        self.inner = Affine(256, 256, name="inner")
        self.outer = Affine(256, 4, name="outer")

    def __call__(self, x):
        return self.outer(tf.tanh(self.inner(x)))


class Affine(tf.Module):
    """A part of it."""

    def __init__(self, inputs, outputs, name):
        super().__init__(name=name)
        self.kernel = tf.Variable(normal(inputs, outputs) * 0.01)
        self.bias = tf.Variable(tf.zeros((outputs,)))

    def __call__(self, x):
        return x @ self.kernel + self.bias


class Decorated(Perceptron):
    """Whose call is a function itself."""

    @tf.function
    def __call__(self, x):
        tracings.setdefault("call", []).append(1)
        return super().__call__(x)


def module(kind=Perceptron):
    """A ``tf.Module``, updated by hand."""
    model = kind()

    @function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        for variable, gradient in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
        ):
            variable.assign_sub(0.01 * gradient)

    for part in (model.inner, model.outer):
        expect(part.name, part.variables, slots=0)
    return [model], step, (normal(ROWS, 256), normal(ROWS, 4))


def decorated():
    """A ``tf.Module`` whose call is decorated."""
    return module(Decorated)


def bare():
    """Variables and nothing else."""
    kernel, bias = tf.Variable(normal(512, 256) * 0.01, name="kernel"), tf.Variable(tf.zeros((256,)), name="bias")

    @function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.tanh(x @ kernel + bias) - y))
        for variable, gradient in zip((kernel, bias), tape.gradient(loss, (kernel, bias)), strict=True):
            variable.assign_sub(0.01 * gradient)

    expect("kernel", [kernel], slots=0)
    expect("bias", [bias], slots=0)
    return [], step, (normal(ROWS, 512), normal(ROWS, 256))


def deep(wrap=lambda call: call, scope=None):
    """Two blocks of layers whose activations may be recomputed."""

    class Block(layers.Layer):
        def __init__(self, name):
            super().__init__(name=name)
            self.parts = [layers.Dense(256, "tanh", name=f"part_{number}") for number in range(4)]

        def build(self, shape):
            for part in self.parts:
                part.build(shape)
            self.built = True

        def call(self, x):
            def inside(x):
                for part in self.parts:
                    x = part(x)
                return x

            return wrap(inside)(x)

    with scope or contextlib.nullcontext():
        blocks = [Block("one"), Block("two")]
    model = keras.Sequential([keras.Input((256,)), *blocks, layers.Dense(1, name="head")])
    optimizer = keras.optimizers.SGD()

    @function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )

    for name in ("one", "two"):
        for part in model.get_layer(name).parts:
            expect(f"{name}/{part.name}", part.trainable_variables, slots=0)
    expect("head", model.get_layer("head").trainable_variables, slots=0)
    optimizers["one"] = optimizer
    return [model], step, (normal(1024, 256), normal(1024, 1))


def recomputed():
    """With ``tf.recompute_grad``."""
    return deep(tf.recompute_grad)


def remat():
    """With ``keras.RematScope``."""
    return deep(scope=keras.RematScope(mode="full"))


def mixed():
    """Half precision, whose loss is scaled."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((256,)),
            layers.Dense(512, "relu", name="wide"),
            layers.Dense(256, "relu", name="inner"),
            layers.Dense(4, dtype="float32", name="head"),
        ]
    )
    inner = keras.optimizers.Adam()
    optimizer = built(keras.optimizers.LossScaleOptimizer(inner), model.trainable_variables)

    @function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
            scaled = optimizer.scale_loss(loss)
        optimizer.apply_gradients(
            zip(tape.gradient(scaled, model.trainable_variables), model.trainable_variables, strict=True)
        )

    for layer in model.layers:
        expect(layer.name, layer.trainable_variables)
    optimizers["one"] = optimizer
    return [model], step, (normal(ROWS, 256), normal(ROWS, 4))


def mirrored():
    """Two replicas on two logical devices."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((256,)), layers.Dense(256, "relu", name="wide"), layers.Dense(4, name="head")]
        )
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)

    def of_replica(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    @function
    def step(x, y):
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(of_replica, (x, y)), axis=None)

    for layer in model.layers:
        expect(layer.name, layer.trainable_variables)
        # Each replica has them.
        expected[layer.name] = [2 * size for size in expected[layer.name]]
    optimizers["one"] = optimizer
    return [model], step, (normal(ROWS, 256), normal(ROWS, 4))


def told(models, recorder):
    report = recorder.report
    [step] = recorder.recording.steps
    rows = [row for row in report.layers if row.path != "unattributed"]
    timeline = step.timeline
    phases = {}
    for row in np.flatnonzero(timeline.birth >= 0).tolist():
        category, phase = CATEGORIES[timeline.category[row]], PHASES[timeline.phase[row]]
        owner = timeline.owners[timeline.owner[row]]
        place = phases.setdefault(owner, {}).setdefault(f"{category} {phase}", 0)
        phases[owner][f"{category} {phase}"] = place + int(timeline.requested_bytes[row])
    peak = report.peak
    return {
        "mode": step.mode,
        "coverage": report.coverage,
        "requested": peak.requested_bytes,
        "by category": peak.by_category,
        "by layer": {row.path: row.total_bytes for row in peak.by_layer},
        "layers": {row.path: [row.weights_bytes, row.optimizer_bytes, row.gradients_bytes] for row in rows},
        "activations": {row.path: row.activations_bytes for row in rows},
        "classes": {row.path: row.class_name for row in rows},
        "gradients": step.gradient_bytes,
        "expected": expected,
        "optimizer": sum(bytes_of(each.variables) for each in optimizers.values()),
        "phases": phases,
        "samples": recorder.recording.samples["step"].tolist(),
        "notes": [*report.notes],
        "tracings": {name: len(found) if isinstance(found, list) else found() for name, found in tracings.items()},
    }


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    models, step, batch = globals()[which]()
    trace = [TRACED] if os.environ.get("TRACE", "1") == "1" else False
    given = models if how == "given" and models else None
    if how == "without":
        for _ in range(STEPS):
            step(*batch)
        print(json.dumps({"tracings": {n: len(f) if isinstance(f, list) else f() for n, f in tracings.items()}}))
        sys.exit()
    with kmw.MemorySession(given, None, trace=trace, strict=True) as session:
        for _ in range(STEPS):
            with session.step(batch):
                step(*batch)
    print(json.dumps(told(models, session)))
