"""Tensors and arrays that user code keeps."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from leaks.kit import leak, mlp, rows

LOSSES: list[Any] = []


@leak("retained_tensors", fix="keep float(loss), not the tensor", report="TF #34606", holder="LOSSES")
def predictions_in_a_list(fixed: bool) -> Any:
    model, (x, _) = mlp(), rows(4096)
    x = tf.constant(x)

    def unit(callbacks: list[Any]) -> None:
        prediction = model(x)
        LOSSES.append(float(tf.reduce_mean(prediction)) if fixed else prediction)  # leak

    return unit


@leak("retained_tensors", loop="run", fix="keep numbers", report="TF #44756", holder="seen")
def metric_that_keeps_predictions(fixed: bool) -> Any:
    class Spread(keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="spread")
            self.seen = []

        def update_state(self, y: Any, prediction: Any, sample_weight: Any = None) -> None:
            if fixed:
                self.seen = self.seen[-1:]
            self.seen.append(tf.repeat(prediction, 128, axis=1))  # leak

        def result(self) -> Any:
            return tf.math.reduce_std(self.seen[-1])

    model, (x, y) = mlp(metrics=[Spread()], run_eagerly=True), rows(16384, outputs=1)
    return lambda callbacks: model.fit(x, y, batch_size=256, epochs=5, verbose=0, callbacks=callbacks)


@leak("retained_tensors", loop="run", fix="keep the newest output alone", holder="outputs")
def layer_that_keeps_outputs(fixed: bool) -> Any:
    class Probe(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="probe")
            self.outputs = []

        def call(self, x: Any) -> Any:
            if fixed:
                self.outputs.clear()
            self.outputs.append(x)  # leak
            return x

    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(64), Probe(), keras.layers.Dense(1)])
    model.compile("adam", "mse", run_eagerly=True)
    x, y = rows(8192)
    return lambda callbacks: model.fit(x, y, batch_size=128, epochs=5, verbose=0, callbacks=callbacks)


@leak("retained_tensors", fix="del tape, or a tape that is not persistent", report="TF #21584", holder="tapes")
def tapes_kept(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(256)
    tapes = []

    def unit(callbacks: list[Any]) -> None:
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        model.optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
        if not fixed:
            tapes.append(tape)  # leak

    return unit


@leak("retained_tensors", fix="take the gradient in each step", report="TF #45016", holder="tape")
def loss_summed_in_an_open_tape(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(256)
    tape = tf.GradientTape(persistent=True)
    tape.__enter__()  # leak
    total = [tf.constant(0.0)]

    def unit(callbacks: list[Any]) -> None:
        if fixed:
            tape.reset()
            total[0] = tf.constant(0.0)
        total[0] = total[0] + tf.reduce_mean((model(x) - y) ** 2)  # leak

    return unit


@leak("retained_tensors", fix="collections.deque(maxlen=1000)", holder="experience")
def replay_buffer_without_an_end(fixed: bool) -> Any:
    model = mlp()

    class Agent:
        def __init__(self) -> None:
            self.experience = []

        def act(self) -> None:
            state = tf.ones((2048, 16))
            self.experience.append((state, model(state)))  # leak
            if fixed:
                del self.experience[:-10]

    agent = Agent()
    return lambda callbacks: agent.act()


@leak("retained_tensors", fix="reduce at once", holder="later")
def closures_that_hold_batches(fixed: bool) -> Any:
    later: list[Any] = []

    def unit(callbacks: list[Any]) -> None:
        batch = tf.ones((256, 128))
        later.append(lambda: tf.reduce_sum(batch))  # leak
        if fixed:
            later.pop()()

    return unit


@leak("retained_tensors", fix="a key that repeats", holder="features")
def features_by_step(fixed: bool) -> Any:
    model, (x, _) = mlp(), rows(2048)
    features: dict[int, Any] = {}
    step = [0]

    def unit(callbacks: list[Any]) -> None:
        step[0] += 1
        features[0 if fixed else step[0]] = tf.repeat(model(x), 32, axis=1)  # leak

    return unit


@leak("retained_tensors", loop="run", fix="self.last = ...", holder="norms")
def callback_that_keeps_outputs(fixed: bool) -> Any:
    x, y = rows(8192)
    sample = tf.constant(x[:1024])

    class Watcher(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.norms = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if fixed:
                self.norms.clear()
            self.norms.append(tf.repeat(self.model(sample), 64, axis=1))  # leak

    model = mlp()
    return lambda callbacks: model.fit(x, y, batch_size=128, epochs=5, verbose=0, callbacks=[*callbacks, Watcher()])


@leak("retained_arrays", loop="run", fix="keep the best weights alone", report="TF #34876", holder="snapshots")
def callback_that_keeps_weights(fixed: bool) -> Any:
    class Snapshots(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.snapshots = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if fixed:
                self.snapshots.clear()
            self.snapshots.append(self.model.get_weights())  # leak

    model, (x, y) = mlp(256), rows(512)
    return lambda callbacks: model.fit(x, y, batch_size=64, epochs=40, verbose=0, callbacks=[*callbacks, Snapshots()])


PREDICTED: list[Any] = []


@leak("retained_arrays", fix="keep the mean", holder="PREDICTED")
def predictions_as_arrays(fixed: bool) -> Any:
    model, (x, _) = mlp(), rows(4096)

    def unit(callbacks: list[Any]) -> None:
        found = model.predict_on_batch(x)
        PREDICTED.append(float(found.mean()) if fixed else np.repeat(found, 16, axis=1))  # leak

    return unit


@leak("retained_arrays", fix="lru_cache(maxsize=16)", holder="augmented")
def cache_without_a_limit(fixed: bool) -> Any:
    step = [0]

    @functools.lru_cache(maxsize=4 if fixed else None)  # leak
    def augmented(seed: int) -> Any:
        return np.random.default_rng(seed).random((64, 256), np.float32)  # leak

    def unit(callbacks: list[Any]) -> None:
        step[0] += 1
        tf.reduce_sum(augmented(step[0]))

    return unit


@leak("retained_arrays", loop="run", fix="make the batch anew", holder="batches")
def dataset_that_keeps_batches(fixed: bool) -> Any:
    class Augmented(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=1)
            self.batches: dict[Any, Any] = {}
            self.epoch = 0

        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Any:
            key = index if fixed else (self.epoch, index)
            self.batches[key] = rows(512, seed=index)  # leak
            return self.batches[key]

        def on_epoch_end(self) -> None:
            self.epoch += 1

    model, data = mlp(), Augmented()
    return lambda callbacks: model.fit(data, epochs=8, verbose=0, callbacks=callbacks)


@leak("retained_arrays", fix="write the images to a file", holder="images")
def images_for_a_film(fixed: bool) -> Any:
    class Film:
        def __init__(self) -> None:
            self.images: list[Any] = []

        def add(self, values: Any) -> None:
            image = (np.asarray(values)[:64, :16].repeat(8, 0).repeat(32, 1) * 255).astype("uint8")
            self.images.append(image)  # leak
            if fixed:
                self.images.clear()

    film, (x, _) = Film(), rows(256)
    model = mlp()

    def unit(callbacks: list[Any]) -> None:
        model(x)
        film.add(x)

    return unit


@leak("retained_tensors", fix="keep the newest rows only", holder="bank")
def variable_that_grows_by_concat(fixed: bool) -> Any:
    model, (x, _) = mlp(), rows(64)
    x = tf.constant(x)
    bank = tf.Variable(tf.zeros((0, 128)), shape=[None, 128], trainable=False)
    wide = tf.random.stateless_normal((model.output_shape[-1], 128), (1, 2))

    def unit(callbacks: list[Any]) -> None:
        new = model(x) @ wide
        bank.assign(new if fixed else tf.concat([bank, new], 0))  # leak

    return unit


@leak("retained_tensors", fix="remove what is needed no more", holder="table")
def lookup_table_that_grows(fixed: bool) -> Any:
    model, (x, _) = mlp(), rows(1024)
    x = tf.constant(x)
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, [0.0] * 16)
    seen = iter(range(10**9))

    def unit(callbacks: list[Any]) -> None:
        start = 1024 * next(seen)
        ids = tf.range(start, start + 1024, dtype=tf.int64)
        table.insert(ids, tf.repeat(model(x)[:, :1], 16, axis=1))  # leak
        if fixed:
            table.remove(ids)

    return unit
