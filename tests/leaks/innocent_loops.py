"""Programs that make models, functions or files in a loop and leave nothing behind."""

from __future__ import annotations

import itertools
import os
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from leaks.kit import innocent, mlp, rows


@innocent(units=150)
def function_made_and_dropped(fixed: bool) -> Any:
    x = tf.ones((8, 8))
    return lambda callbacks: tf.function(lambda a: a * 2)(x)


@innocent("fit", units=30)
def eager_fits_with_clear_session(fixed: bool) -> Any:
    x, y = rows(64)

    def unit(callbacks: list[Any]) -> None:
        keras.backend.clear_session()
        mlp(128, run_eagerly=True).fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)

    return unit


@innocent(units=100)
def models_for_prediction_with_clear_session(fixed: bool) -> Any:
    x, _ = rows(64)

    def unit(callbacks: list[Any]) -> None:
        keras.backend.clear_session()
        mlp(128)(x)

    return unit


@innocent(units=100)
def strategy_by_trial(fixed: bool) -> Any:
    x, _ = rows(64)

    def unit(callbacks: list[Any]) -> None:
        keras.backend.clear_session()
        with tf.distribute.OneDeviceStrategy("CPU:0").scope():
            mlp(32)(x)

    return unit


@innocent(units=150)
def part_of_a_model_by_image(fixed: bool) -> Any:
    model, (x, _) = mlp(), rows(1)

    def unit(callbacks: list[Any]) -> None:
        part = keras.Model(model.inputs, model.layers[-2].output, name="part")
        part(x)

    return unit


@innocent("fit")
def dataset_filtered_by_iterations(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(256)
    data = tf.data.Dataset.from_tensor_slices((x, y))

    def unit(callbacks: list[Any]) -> None:
        seen = int(model.optimizer.iterations) % 7
        model.fit(data.filter(lambda a, b: a[0] * 7 > seen * 0.1).batch(32), verbose=0, callbacks=callbacks)

    return unit


@innocent(units=150)
def writers_that_nobody_closes(fixed: bool) -> Any:
    folder, number = tempfile.mkdtemp(), itertools.count()

    def unit(callbacks: list[Any]) -> None:
        writer = tf.summary.create_file_writer(os.path.join(folder, str(next(number) % 5)))
        with writer.as_default():
            tf.summary.scalar("loss", 0.5, step=1)

    return unit


@innocent(units=30)
def model_exported_each_epoch(fixed: bool) -> Any:
    model, (x, _), folder = mlp(16), rows(16), tempfile.mkdtemp()
    model(x)
    return lambda callbacks: model.export(folder, verbose=False)


@innocent(units=40)
def saved_model_loaded_in_a_loop(fixed: bool) -> Any:
    folder = tempfile.mkdtemp()
    module = tf.Module()
    module.weight = tf.Variable(tf.ones((64, 64)))
    module.call = tf.function(lambda x: x @ module.weight, input_signature=[tf.TensorSpec((None, 64), tf.float32)])
    tf.saved_model.save(module, folder)

    def unit(callbacks: list[Any]) -> None:
        loaded = tf.saved_model.load(folder)
        loaded.call(tf.ones((2, 64)))

    return unit


@innocent()
def gan_by_turns(fixed: bool) -> Any:
    generator, critic, (x, y) = mlp(), mlp(), rows(64)

    def unit(callbacks: list[Any]) -> None:
        generator.train_on_batch(x, y)
        critic.train_on_batch(x, y)

    return unit


@innocent()
def batches_in_a_few_lengths(fixed: bool) -> Any:
    layers = [keras.layers.Conv1D(8, 3, padding="same"), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((None, 8)), *layers])
    model.compile("adam", "mse", jit_compile=False)
    lengths = itertools.cycle((16, 32, 48, 64))
    return lambda callbacks: model.train_on_batch(np.ones((8, next(lengths), 8), "float32"), np.ones((8, 1)))


@innocent()
def random_numbers_of_keras(fixed: bool) -> Any:
    seeds = keras.random.SeedGenerator(1)
    return lambda callbacks: [keras.random.normal((8, 8), seed=seeds) for _ in range(4)]


@innocent()
def noise_without_a_seed(fixed: bool) -> Any:
    generator = tf.random.Generator.from_seed(1)
    return lambda callbacks: [generator.normal((64, 64)) for _ in range(4)]


@innocent()
def tensors_made_and_dropped(fixed: bool) -> Any:
    model = mlp()
    return lambda callbacks: tf.reduce_sum(model(tf.ones((2048, 16))))


@innocent()
def arrays_made_and_dropped(fixed: bool) -> Any:
    random = np.random.default_rng(0)
    return lambda callbacks: random.random((256, 1024)).sum()


@innocent()
def weights_copied_now_and_then(fixed: bool) -> Any:
    online, target, (x, y), step = mlp(), mlp(), rows(64), itertools.count()

    def unit(callbacks: list[Any]) -> None:
        online.train_on_batch(x, y)
        if next(step) % 20 == 0:
            target.set_weights(online.get_weights())

    return unit


@innocent("run")
def best_weights_alone(fixed: bool) -> Any:
    class Best(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.best = self.model.get_weights()

    model, (x, y) = mlp(256), rows(640)
    return lambda callbacks: model.fit(x, y, batch_size=32, epochs=20, verbose=0, callbacks=[*callbacks, Best()])


@innocent("run")
def batches_of_a_generator(fixed: bool) -> Any:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 30

        def __getitem__(self, index: int) -> Any:
            return rows(32, seed=index)

    model, data = mlp(), Batches(workers=2)
    return lambda callbacks: model.fit(data, epochs=10, verbose=0, callbacks=callbacks)


@innocent("run")
def logs_to_a_file(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(640)
    log = keras.callbacks.CSVLogger(os.path.join(tempfile.mkdtemp(), "log.csv"))
    return lambda callbacks: model.fit(x, y, batch_size=32, epochs=15, verbose=0, callbacks=[*callbacks, log])


@innocent("run")
def half_precision(fixed: bool) -> Any:
    layers = [keras.layers.Dense(64, "relu", dtype="mixed_float16"), keras.layers.Dense(1, dtype="float32")]
    model = keras.Sequential([keras.Input((16,)), *layers])
    model.compile("adam", "mse", jit_compile=False)
    x, y = rows(640)
    return lambda callbacks: model.fit(x, y, batch_size=32, epochs=12, verbose=0, callbacks=callbacks)


@innocent("run")
def custom_train_step(fixed: bool) -> Any:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x) - y) ** 2)
            self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
            return {"loss": loss}

    model, (x, y) = Own(), rows(640)
    model.compile("adam", jit_compile=False)
    return lambda callbacks: model.fit(x, y, batch_size=32, epochs=15, verbose=0, callbacks=callbacks)


@innocent("run")
def shuffle_over_an_endless_dataset(fixed: bool) -> Any:
    def elements() -> Any:
        random = np.random.default_rng(0)
        while True:
            yield random.random(1024).astype("float32"), np.float32(1)

    signature = (tf.TensorSpec((1024,)), tf.TensorSpec(()))
    data = tf.data.Dataset.from_generator(elements, output_signature=signature).shuffle(3000).batch(16).prefetch(4)
    model = mlp(16, 1024)
    return lambda callbacks: model.fit(data, steps_per_epoch=50, epochs=6, verbose=0, callbacks=callbacks)


@innocent()
def variable_that_keeps_the_newest_rows(fixed: bool) -> Any:
    model, (x, _) = mlp(), rows(64)
    x = tf.constant(x)
    bank = tf.Variable(tf.zeros((0, 1)), shape=[None, 1], trainable=False)
    return lambda callbacks: bank.assign(tf.concat([bank, model(x)], 0)[-4096:])
