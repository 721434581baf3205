"""The clean programs with a loop of their own, under a ``MemorySession`` or by a ``MemoryTape`` alone."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _growth_data import dataset, drawn
from _growth_fits import NEEDS_STEPS, Run

import kerasmemwatch as kmw

__all__ = ["adversarial", "loop", "on_batch", "replay", "requests"]


def loop(
    run: Run,
    *,
    data: str = "prefetch",
    epochs: int = 4,
    how: str = "graph",
    tape: str = "tf",
    optimizer: str = "adam",
    accumulate: int = 1,
    validate: bool = False,
    strategy: bool = False,
    alone: bool = False,
) -> Any:
    """A training loop as TensorFlow's guides write it.

    Args:
        run: What is run.
        data: The input pipeline.
        epochs: How many; 0 is a loop without epochs.
        how: ``"graph"``, ``"xla"`` or ``"eager"``.
        tape: ``"tf"`` or ``"kmw"``.
        optimizer: Its optimizer.
        accumulate: Batches whose gradients are summed for a step.
        validate: Whether each epoch ends with a validation.
        strategy: Whether the step runs under a strategy.
        alone: Whether a tape records by itself, without a session.
    """
    epochs = run.epochs(epochs)
    batches = max(4, run.steps // max(1, epochs))
    given = dataset(data, run.family, run.rng, batches)
    if data in NEEDS_STEPS:
        given = given.take(batches)
    scope = tf.distribute.MirroredStrategy(["CPU:0"]) if strategy else None
    if scope is None:
        step, check = _steps(run, how, tape, optimizer, accumulate)
    else:
        with scope.scope():
            own, check = _steps(run, "eager", tape, optimizer, accumulate)
            step = tf.function(lambda x, y: scope.run(own, (x, y)))
    if alone:
        last: list[Any] = []
        for _ in range(max(1, epochs)):
            for x, y in given:
                last[:] = [step(x, y)]
        return _last_tape.pop().session
    losses = []
    with kmw.MemorySession(log_dir=None, strict=True) as session:
        for _ in session.epochs(epochs) if epochs else range(1):
            for x, y in session.steps(given):
                losses.append(float(step(x, y)))
            if validate:
                for x, y in session.steps(given.take(5), stage="test"):
                    check(x, y)
    return session


_last_tape: collections.deque[Any] = collections.deque(maxlen=1)


def _steps(run: Run, how: str, tape: str, optimizer: str, accumulate: int) -> tuple[Any, Any]:
    model = run.family.make()
    loss_of = keras.losses.get(run.family.loss)
    rule = keras.optimizers.get(optimizer)
    if accumulate > 1:
        rule = keras.optimizers.get({"class_name": optimizer, "config": {"gradient_accumulation_steps": accumulate}})
    mean = keras.metrics.Mean()

    def step(x: Any, y: Any) -> Any:
        with kmw.MemoryTape() if tape == "kmw" else tf.GradientTape() as made:
            loss = keras.ops.mean(loss_of(y, model(x, training=True)))
        if tape == "kmw":
            _last_tape.append(made)
        rule.apply(made.gradient(loss, model.trainable_variables), model.trainable_variables)
        mean.update_state(loss)
        return loss

    def check(x: Any, y: Any) -> Any:
        return keras.ops.mean(loss_of(y, model(x, training=False)))

    if how == "eager":
        return step, check
    return tf.function(step, jit_compile=how == "xla", reduce_retracing=True), tf.function(check, reduce_retracing=True)


def on_batch(run: Run, *, epochs: int = 3, test_every: int = 0, lengths: int = 1) -> Any:
    """``train_on_batch`` in a loop of one's own, perhaps with inputs of several lengths."""
    model = run.model(metrics=[keras.metrics.MeanMetricWrapper(keras.losses.get(run.family.loss), name="again")])
    epochs = run.epochs(epochs)
    batches = max(4, run.steps // max(1, epochs))
    with kmw.MemorySession(model, log_dir=None, strict=True) as session:
        for _ in session.epochs(epochs) if epochs else range(1):
            for number in range(batches):
                x, y = drawn(run.family, run.rng, run.family.batch, 20 - 4 * (number % lengths))
                with session.step():
                    model.train_on_batch(x, y)
                if test_every and number % test_every == 0:
                    with session.step(stage="test"):
                        model.test_on_batch(x, y)
    return session


def replay(run: Run, *, room: int = 100, tensors: bool = False) -> Any:
    """Reinforcement learning with a buffer that is full after some steps, a target model, and no epochs."""
    model, target = run.model(), run.model()
    buffer: collections.deque[Any] = collections.deque(maxlen=room)
    with kmw.MemorySession(log_dir=None, strict=True) as session:
        for number in range(run.steps):
            with session.step():
                x, y = drawn(run.family, run.rng, 1)
                model.predict_on_batch(x)
                buffer.append((tf.constant(x), y) if tensors else (x, y))
                chosen = [buffer[index] for index in run.rng.integers(0, len(buffer), run.family.batch)]
                xs, ys = (np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*chosen, strict=True))
                target.predict_on_batch(xs)
                model.train_on_batch(xs, ys)
            if number % 25 == 0:
                target.set_weights(model.get_weights())
    return session


def adversarial(run: Run, *, data: str = "prefetch", epochs: int = 4) -> Any:
    """Two models with an optimizer each, trained against each other in one step."""
    noise, real = 16, keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(1)])
    maker = keras.Sequential([keras.Input((noise,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(64)])
    rules = [keras.optimizers.Adam(1e-3), keras.optimizers.RMSprop(1e-3)]

    @tf.function
    def step(x: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            made = maker(tf.random.normal((tf.shape(x)[0], noise)))
            judged, forged = real(x), real(made)
            losses = tf.reduce_mean(forged - judged), -tf.reduce_mean(forged)
        for rule, loss, model in zip(rules, losses, (real, maker), strict=True):
            rule.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return losses[0]

    epochs = run.epochs(epochs)
    given = dataset(data, run.family, run.rng, max(4, run.steps // epochs))
    with kmw.MemorySession(log_dir=None, strict=True) as session:
        for _ in session.epochs(epochs):
            for x, _ in session.steps(given):
                step(x)
    return session


def requests(run: Run, *, sizes: int = 1, direct: bool = True) -> Any:
    """A server's loop: a model is asked again and again, one request at a time."""
    model = run.model()

    def asked() -> Iterator[Any]:
        for number in range(run.steps):
            yield run.family.inputs(run.rng, 4 + 4 * (number % sizes), 20)

    with kmw.MemorySession(model, log_dir=None, strict=True) as session:
        for x in asked():
            with session.step(stage="predict"):
                _ = model(x, training=False) if direct else model.predict_on_batch(x)
    return session
