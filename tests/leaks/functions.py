"""Functions that are traced anew, and caches of TensorFlow that grow with their arguments."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from leaks.kit import leak, mlp, rows


@leak("retracing", fix="tf.constant(i)", report="TF #29027", holder="scaled")
def python_number_as_an_argument(fixed: bool) -> Any:
    x, step = tf.ones((8, 8)), [0]

    @tf.function
    def scaled(x: Any, number: Any) -> Any:  # leak
        return tf.reduce_sum(x) * tf.cast(number, tf.float32)

    def unit(callbacks: list[Any]) -> None:
        step[0] += 1
        scaled(x, tf.constant(step[0]) if fixed else step[0])  # leak

    return unit


@leak("retracing", fix="reduce_retracing=True, or pad", report="TF #38598", holder="normed")
def ever_new_shapes(fixed: bool) -> Any:
    x, step = tf.ones((2000, 8)), [0]

    @tf.function(reduce_retracing=fixed)
    def normed(x: Any) -> Any:  # leak
        return x / tf.norm(x)

    def unit(callbacks: list[Any]) -> None:
        step[0] += 1
        normed(x[: step[0]])  # leak

    return unit


@leak("retracing", fix="one object, or pass what differs as tensors", report="TF #31175", holder="run")
def bound_method_as_an_argument(fixed: bool) -> Any:
    class Task:
        def __init__(self) -> None:
            self.weight = tf.ones((8, 8))

        def step(self, x: Any) -> Any:
            return x @ self.weight

    @tf.function
    def run(step: Any, x: Any) -> Any:  # leak
        return tf.reduce_sum(step(x))

    one, x = Task(), tf.ones((8, 8))
    return lambda callbacks: run((one if fixed else Task()).step, x)  # leak


@leak("retracing", fix="a tf.Variable or a tensor for the rate", holder="train_step")
def learning_rate_as_a_number(fixed: bool) -> Any:
    model, (x, y), rate = mlp(), rows(64), [0.1]
    x, y = tf.constant(x), tf.constant(y)

    @tf.function
    def train_step(x: Any, y: Any, rate: Any) -> Any:  # leak
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        weights = [weight.value for weight in model.trainable_weights]
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(rate * gradient)
        return loss

    def unit(callbacks: list[Any]) -> None:
        rate[0] *= 0.99
        train_step(x, y, tf.constant(rate[0]) if fixed else rate[0])  # leak

    return unit


# It is traced twice, and then for any length: oneDNN keeps 106 KiB for each new one, and without oneDNN 3 KiB stay.
@leak("onednn_cache", units=400, fix="pad to a few lengths", report="TF #62441", holder="model")
def predict_with_ever_new_lengths(fixed: bool) -> Any:
    model = keras.Sequential([keras.Input((None, 8)), keras.layers.Conv1D(8, 3, padding="same")])
    length = [9]

    def unit(callbacks: list[Any]) -> None:
        length[0] += 1
        model.predict_on_batch(np.ones((4, 64 if fixed else length[0], 8), "float32"))  # leak

    return unit


@leak("retracing", fix="a tf.TensorSpec for the mask, as a tensor", holder="masked")
def tuple_of_numbers_as_an_argument(fixed: bool) -> Any:
    x, step = tf.ones((8, 64)), [0]

    @tf.function
    def masked(x: Any, span: Any) -> Any:  # leak
        return tf.reduce_sum(x[:, : span[0]]) + tf.cast(span[1], tf.float32)

    def unit(callbacks: list[Any]) -> None:
        step[0] += 1
        span = (step[0] % 60, step[0])
        masked(x, tf.constant(span) if fixed else span)  # leak

    return unit


@leak("tape_cache", fix="trace it once, or tf.numpy_function", report="TF #35010, #51839")
def py_function_in_eager_mode(fixed: bool) -> Any:
    weight, x = tf.Variable(tf.ones(25600)), tf.ones(25600)

    def unit(callbacks: list[Any]) -> None:
        with tf.GradientTape() as tape:
            apply = tf.numpy_function if fixed else tf.py_function
            y = apply(np.cos, [x], tf.float32)  # leak
            loss = tf.reduce_sum(tf.ensure_shape(y, (25600,)) * weight)
        weight.assign_sub(1e-6 * tape.gradient(loss, weight))

    return unit


@leak("kernel_cache", units=220, loop="fit", fix="save fewer times, or kmw.release() now and then")
def model_saved_again_and_again(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(64)
    path = os.path.join(tempfile.mkdtemp(), "model.keras")

    def unit(callbacks: list[Any]) -> None:
        model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks)
        if not fixed:
            model.save(path)  # leak

    return unit


@leak("kernel_cache", fix="keras.random with a SeedGenerator")
def random_numbers_under_a_global_seed(fixed: bool) -> Any:
    keras.utils.set_random_seed(1)
    seeds = keras.random.SeedGenerator(1)

    def unit(callbacks: list[Any]) -> None:
        for _ in range(4):
            keras.random.normal((8, 8), seed=seeds) if fixed else tf.random.normal((8, 8))  # leak

    return unit


@leak("kernel_cache", fix="one name", units=200)
def variables_with_new_names(fixed: bool) -> Any:
    step = [0]

    def unit(callbacks: list[Any]) -> None:
        step[0] += 1
        for i in range(4):
            tf.Variable(0.0, name="state" if fixed else f"state_{step[0]}_{i}").assign_add(1.0)  # leak

    return unit


@leak("onednn_cache", units=400, fix="pad to few sizes", report="TF #38742, #34907, #38561")
def train_on_batch_with_ever_new_sizes(fixed: bool) -> Any:
    layers = keras.layers
    convolution = layers.Conv1D(16, 3, padding="same", activation="relu")
    model = keras.Sequential([keras.Input((None, 8)), convolution, layers.GlobalAveragePooling1D(), layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    step = [0]

    def unit(callbacks: list[Any]) -> None:
        step[0] += 1
        size, length = (8, 64) if fixed else (2 + step[0] % 61, 10 + step[0] % 127)
        model.train_on_batch(np.ones((size, length, 8), "float32"), np.ones((size, 1), "float32"))

    return unit


@leak("graph_growth", fix="finalize the graph; make operations once", holder="graph")
def operations_added_to_a_graph(fixed: bool) -> Any:
    graph, session = tf.Graph(), tf.compat.v1.Session
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (8,))
        once = tf.reduce_sum(x * 2)
    running = session(graph=graph)

    def unit(callbacks: list[Any]) -> None:
        for _ in range(5):
            with graph.as_default():
                total = once if fixed else tf.reduce_sum(x * 2)  # leak
        running.run(total, {x: np.ones(8)})

    return unit
