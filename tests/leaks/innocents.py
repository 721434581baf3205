"""Programs of one model that users suspected of leaking, or that look like it, and don't leak."""

from __future__ import annotations

import collections
import functools
import os
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from leaks.kit import innocent, mlp, rows


@innocent("fit")
def fit_again_and_again(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(256)
    return lambda callbacks: model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks)


@innocent("fit")
def fit_on_a_new_dataset(fixed: bool) -> Any:
    model = mlp()

    def unit(callbacks: list[Any]) -> None:
        data = tf.data.Dataset.from_tensor_slices(rows(256)).shuffle(64).batch(32).prefetch(2)
        model.fit(data, verbose=0, callbacks=callbacks)

    return unit


@innocent("fit")
def evaluate_on_a_new_dataset(fixed: bool) -> Any:
    model = mlp()

    def unit(callbacks: list[Any]) -> None:
        model.evaluate(tf.data.Dataset.from_tensor_slices(rows(256)).batch(32), verbose=0, callbacks=callbacks)

    return unit


@innocent()
def train_on_batch(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(64)
    return lambda callbacks: model.train_on_batch(x, y)


@innocent("run")
def cache_that_fills_in_the_first_epoch(fixed: bool) -> Any:
    model, (x, y) = mlp(64, 256), rows(6400, 256)
    data = tf.data.Dataset.from_tensor_slices((x, y)).map(lambda a, b: (a * 2, b)).cache().batch(32).prefetch(2)
    return lambda callbacks: model.fit(data, epochs=5, verbose=0, callbacks=callbacks)


@innocent()
def dataset_made_and_dropped(fixed: bool) -> Any:
    x, _ = rows(256, 64)

    def unit(callbacks: list[Any]) -> None:
        next(iter(tf.data.Dataset.from_tensor_slices(x).batch(32).prefetch(2)))

    return unit


@innocent()
def persistent_tape_of_each_step(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(64)

    def unit(callbacks: list[Any]) -> None:
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        model.optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)

    return unit


@innocent(units=100)
def map_of_a_new_lambda(fixed: bool) -> Any:
    data = tf.data.Dataset.from_tensor_slices(np.ones((64, 8), "float32"))

    def unit(callbacks: list[Any]) -> None:
        for _ in data.map(lambda x: x * 2).batch(32):
            pass

    return unit


@innocent("fit", units=150)
def predict_again_and_again(fixed: bool) -> Any:
    model, (x, _) = mlp(), rows(128)
    return lambda callbacks: model.predict(x, verbose=0, callbacks=callbacks)


@innocent("run")
def histograms_of_tensorboard(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(640)
    board = keras.callbacks.TensorBoard(tempfile.mkdtemp(), histogram_freq=1)
    return lambda callbacks: model.fit(x, y, batch_size=32, epochs=20, verbose=0, callbacks=[*callbacks, board])


@innocent("run")
def py_function_in_one_map(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(1024)
    data = tf.data.Dataset.from_tensor_slices((x, y))
    data = data.map(lambda a, b: (tf.ensure_shape(tf.py_function(np.sqrt, [a], tf.float32), (16,)), b)).batch(32)
    return lambda callbacks: model.fit(data, epochs=10, verbose=0, callbacks=callbacks)


@innocent(units=150)
def function_called_many_times(fixed: bool) -> Any:
    function, x = tf.function(lambda x: x + 0.0), tf.zeros((6, 6, 7))
    return lambda callbacks: [function(x) for _ in range(100)]


@innocent()
def loop_left_by_break(fixed: bool) -> Any:
    path = os.path.join(tempfile.mkdtemp(), "lines.txt")
    with open(path, "w") as file:
        file.write("\n".join(f"line {i}" for i in range(20_000)))
    data = tf.data.TextLineDataset([path]).batch(64).prefetch(4)

    def unit(callbacks: list[Any]) -> None:
        for number, _ in enumerate(data):
            if number == 2:
                break

    return unit


@innocent()
def metrics_made_each_epoch(fixed: bool) -> Any:
    truth, predicted = np.zeros(8), np.ones((8, 3), np.float32)

    def unit(callbacks: list[Any]) -> None:
        loss, accuracy = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()
        for _ in range(3):
            loss.update_state(0.5)
            accuracy.update_state(truth, predicted)
        loss.result(), accuracy.result()

    return unit


@innocent()
def own_loop_in_eager_mode(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(64)

    def unit(callbacks: list[Any]) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        model.optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)

    return unit


@innocent()
def own_loop_in_a_function(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(64)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        model.optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
        return loss

    return lambda callbacks: step(x, y)


@innocent()
def bounded_replay_buffer(fixed: bool) -> Any:
    model, replay = mlp(), collections.deque(maxlen=50)

    def unit(callbacks: list[Any]) -> None:
        state = tf.random.stateless_uniform((512, 16), (1, 2))
        replay.append((state, model(state)))

    return unit


@innocent()
def bounded_cache(fixed: bool) -> Any:
    step = [0]

    @functools.lru_cache(maxsize=20)
    def augmented(seed: int) -> Any:
        return np.random.default_rng(seed).random((64, 256), np.float32)

    def unit(callbacks: list[Any]) -> None:
        step[0] += 1
        tf.reduce_sum(augmented(step[0]))

    return unit


@innocent()
def losses_as_numbers(fixed: bool) -> Any:
    model, (x, y), losses = mlp(), rows(64), []
    return lambda callbacks: losses.append(float(tf.reduce_mean((model(x) - y) ** 2)))


@innocent("run")
def early_stopping_with_the_best_weights(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(640)
    stop = keras.callbacks.EarlyStopping("loss", patience=50, restore_best_weights=True)
    return lambda callbacks: model.fit(x, y, batch_size=32, epochs=20, verbose=0, callbacks=[*callbacks, stop])


@innocent("run")
def learning_rate_by_schedule(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(640)
    rate = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9)
    return lambda callbacks: model.fit(x, y, batch_size=32, epochs=20, verbose=0, callbacks=[*callbacks, rate])


@innocent("run")
def validation_in_each_epoch(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(640)
    more = {"validation_data": rows(320, seed=1), "epochs": 12}
    return lambda callbacks: model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks, **more)


@innocent("run")
def shuffle_buffer_that_fills(fixed: bool) -> Any:
    model, (x, y) = mlp(64, 256), rows(8000, 256)
    data = tf.data.Dataset.from_tensor_slices((x, y)).repeat().shuffle(20_000).batch(32).prefetch(8)
    more = {"steps_per_epoch": 50, "epochs": 6}
    return lambda callbacks: model.fit(data, verbose=0, callbacks=callbacks, **more)


@innocent("run")
def float64_array_converted_at_once(fixed: bool) -> Any:
    model, random = mlp(16, 512), np.random.default_rng(0)
    x, y = random.random((8000, 512)), random.random((8000, 1))
    return lambda callbacks: model.fit(x, y, batch_size=64, epochs=3, verbose=0, callbacks=callbacks)


@innocent("run")
def steps_per_execution(fixed: bool) -> Any:
    model, (x, y) = mlp(steps_per_execution=4), rows(1280)
    return lambda callbacks: model.fit(x, y, batch_size=16, epochs=15, verbose=0, callbacks=callbacks)


@innocent("run")
def compiled_by_xla_once(fixed: bool) -> Any:
    model, (x, y) = mlp(jit_compile=True), rows(640)
    return lambda callbacks: model.fit(x, y, batch_size=32, epochs=12, verbose=0, callbacks=callbacks)


@innocent("run")
def accumulated_gradients(fixed: bool) -> Any:
    model, (x, y) = mlp(optimizer=keras.optimizers.Adam(gradient_accumulation_steps=4)), rows(640)
    return lambda callbacks: model.fit(x, y, batch_size=16, epochs=10, verbose=0, callbacks=callbacks)


@innocent("run")
def moving_average_of_weights(fixed: bool) -> Any:
    model, (x, y) = mlp(optimizer=keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=10)), rows(640)
    return lambda callbacks: model.fit(x, y, batch_size=32, epochs=15, verbose=0, callbacks=callbacks)


@innocent("run")
def stateful_lstm(fixed: bool) -> Any:
    lstm = keras.layers.LSTM(16, stateful=True)
    model = keras.Sequential([keras.Input((10, 8), batch_size=16), lstm, keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    x, y = np.ones((320, 10, 8), "float32"), np.ones((320, 1), "float32")
    return lambda callbacks: model.fit(x, y, batch_size=16, epochs=12, shuffle=False, verbose=0, callbacks=callbacks)


@innocent("run")
def sparse_gradients_of_an_embedding(fixed: bool) -> Any:
    layers = [keras.layers.Embedding(5000, 16), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((8,), dtype="int32"), *layers])
    model.compile("adam", "mse", jit_compile=False)
    x = np.random.default_rng(0).integers(0, 5000, (640, 8))
    return lambda callbacks: model.fit(x, np.ones((640, 1)), batch_size=32, epochs=15, verbose=0, callbacks=callbacks)
