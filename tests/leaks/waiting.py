"""What is garbage and waits for Python's collector, which a process with TensorFlow rarely runs."""

from __future__ import annotations

import collections
import gc
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from leaks.kit import leak, mlp, rows


@leak(
    "waits_for_collector",
    units=250,
    fix="predict_on_batch and train_on_batch",
    report="TF #33009, #33030, plaidml #1313, keras #13118",
)
def agent_that_predicts_and_fits(fixed: bool) -> Any:
    def net() -> Any:
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(4)])
        model.compile("adam", "mse", jit_compile=False)
        return model

    online, target = net(), net()
    replay, random = collections.deque(maxlen=200), np.random.default_rng(0)

    def unit(callbacks: list[Any]) -> None:
        predict = (lambda m, x: m.predict_on_batch(x)) if fixed else (lambda m, x: m.predict(x, verbose=0))
        state = random.random((1, 8), np.float32)
        action = predict(online, state).argmax()
        replay.append((state[0], action, random.random(), random.random(8, np.float32)))
        picked = [replay[i] for i in random.integers(0, len(replay), 32)]
        states, following = np.stack([one[0] for one in picked]), np.stack([one[3] for one in picked])
        wanted, values = predict(online, states), predict(target, following)
        for row, one in enumerate(picked):
            wanted[row, one[1]] = one[2] + 0.9 * values[row].max()
        online.train_on_batch(states, wanted) if fixed else online.fit(states, wanted, verbose=0)

    return unit


@leak("waits_for_collector", fix="one clone; gc.freeze() after the set-up", report="TF #47673, keras #12956")
def clone_of_the_model_by_request(fixed: bool) -> Any:
    model, (x, _) = mlp(512), rows(64)
    one = keras.models.clone_model(model)

    def unit(callbacks: list[Any]) -> None:
        clone = one if fixed else keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        clone(x)

    return unit


@leak("waits_for_collector", "iterators_accumulate", loop="fit", units=100, fix="gc.collect() each 10 fits")
def fits_on_one_generator(fixed: bool) -> Any:
    model, (x, y) = mlp(32, 64), rows(16, 64)

    def generate() -> Any:
        for _ in range(20):
            yield x, y

    signature = tf.TensorSpec((16, 64)), tf.TensorSpec((16, 1))
    data, fits = tf.data.Dataset.from_generator(generate, output_signature=signature), [0]

    def unit(callbacks: list[Any]) -> None:
        fits[0] += 1
        model.fit(data, epochs=1, verbose=0, callbacks=callbacks)
        if fixed and fits[0] % 10 == 0:
            gc.collect()

    return unit


@leak("waits_for_collector", units=200, fix="leave the collector on", report="TF #14181")
def collector_switched_off(fixed: bool) -> Any:
    if not fixed:
        gc.disable()  # leak

    class Node:
        def __init__(self) -> None:
            self.value, self.me = tf.ones((64, 64)), self

    def unit(callbacks: list[Any]) -> None:
        Node()
        if fixed:
            gc.collect(1)

    return unit


@leak("waits_for_collector", fix="weakref.ref(owner), or no cycle")
def results_in_cycles(fixed: bool) -> Any:
    class Result:
        def __init__(self, value: Any) -> None:
            self.value = value
            self.callback = None if fixed else self.show  # leak

        def show(self) -> Any:
            return self.value

    recent: collections.deque[Any] = collections.deque(maxlen=3)

    def unit(callbacks: list[Any]) -> None:
        recent.append([Result(tf.ones((64, 64))) for _ in range(20)])
        gc.collect(1)  # promotes them; when they die, only a full collection finds them

    return unit
