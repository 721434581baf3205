"""Models that accumulate, graphs that TensorFlow keeps, and what else a loop over models leaves."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import tensorflow as tf
from leaks.kit import leak, mlp, rows

import kerasmemwatch as kmw

HISTORIES: list[Any] = []


@leak(
    "models_accumulate",
    loop="fit",
    fix="keep history.history",
    report="Mask_RCNN PR #1507, keras #12929",
    holder="HISTORIES",
)
def histories_kept(fixed: bool) -> Any:
    x, y = rows(64)

    def unit(callbacks: list[Any]) -> None:
        keras.backend.clear_session()
        model = mlp(128, run_eagerly=True)
        history = model.fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)
        HISTORIES.append(history.history if fixed else history)  # leak

    return unit


@leak("models_accumulate", loop="fit", fix="keep the best model's weights", holder="trials")
def trials_in_a_list(fixed: bool) -> Any:
    trials = []
    x, y = rows(64)

    def unit(callbacks: list[Any]) -> None:
        keras.backend.clear_session()
        model = mlp(128, run_eagerly=True)
        model.fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)
        trials.append((model.evaluate(x, y, verbose=0), None if fixed else model))  # leak

    return unit


@leak("models_accumulate", loop="fit", fix="don't keep callbacks; they hold their model", holder="stoppers")
def callbacks_kept(fixed: bool) -> Any:
    class Search:
        def __init__(self) -> None:
            self.stoppers: list[Any] = []

        def run(self, callbacks: list[Any]) -> None:
            keras.backend.clear_session()
            x, y = rows(64)
            model, stopper = mlp(128, run_eagerly=True), keras.callbacks.EarlyStopping("loss")
            model.fit(x, y, batch_size=16, verbose=0, callbacks=[*callbacks, stopper])
            if not fixed:
                self.stoppers.append(stopper)  # leak

    return Search().run


@leak("models_accumulate", fix="one clone, given new weights", report="TF #47673", holder="served")
def clones_by_request(fixed: bool) -> Any:
    model, (x, _) = mlp(128), rows(64)
    served: dict[int, Any] = {}
    number = [0]

    def unit(callbacks: list[Any]) -> None:
        number[0] += 1
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        served[0 if fixed else number[0]] = clone  # leak
        clone(x)

    return unit


@leak(
    "graphs_pinned", loop="fit", fix="kmw.release() after each model", report="TF #80895, #27492, #97697, keras #20245"
)
def build_fit_clear_session(fixed: bool) -> Any:
    x, y = rows(64)

    def unit(callbacks: list[Any]) -> None:
        mlp(128).fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)
        keras.backend.clear_session()
        if fixed:
            kmw.release()

    return unit


@leak("graphs_pinned", loop="fit", fix="MemoryWatch(release_dead_models=True), or kmw.release()", report="TF #43702")
def folds_of_a_cross_validation(fixed: bool) -> Any:
    x, y = rows(96)

    def unit(callbacks: list[Any]) -> None:
        keras.backend.clear_session()
        model = mlp(128, optimizer="sgd")
        model.fit(x[32:], y[32:], batch_size=16, verbose=0, callbacks=callbacks)
        model.evaluate(x[:32], y[:32], verbose=0, callbacks=callbacks)
        if fixed:
            del model
            kmw.release()

    return unit


@leak("graphs_pinned", loop="fit", fix="compile once; kmw.release()", report="keras #16320, TF #55398")
def compiled_again_and_again(fixed: bool) -> Any:
    model, (x, y) = mlp(128), rows(64)

    def unit(callbacks: list[Any]) -> None:
        if not fixed:
            model.compile("adam", "mse", jit_compile=False)
        model.fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)

    return unit


@leak("graphs_pinned", units=60, fix="kmw.release() after each trainer", report="TF #62854")
def traced_method_of_a_trainer(fixed: bool) -> Any:
    x, y = rows(16)

    class Trainer:
        def __init__(self) -> None:
            self.model, self.optimizer = mlp(128), keras.optimizers.Adam()

        @tf.function
        def step(self, x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self.model(x) - y) ** 2)
            weights = self.model.trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return loss

    def unit(callbacks: list[Any]) -> None:
        trainer = Trainer()
        for _ in range(3):
            trainer.step(x, y)
        del trainer
        keras.backend.clear_session()
        if fixed:
            kmw.release()

    return unit


@leak("graphs_pinned", units=200, fix="trace it once", report="TF #97697")
def gradient_of_its_own_retraced(fixed: bool) -> Any:
    @tf.custom_gradient
    def clipped(x: Any) -> Any:
        return tf.identity(x), lambda upstream: tf.clip_by_value(upstream, -1.0, 1.0)

    weight = tf.Variable(tf.ones((64, 64)))
    once = tf.function(lambda x: clipped(x @ weight))

    def unit(callbacks: list[Any]) -> None:
        function = once if fixed else tf.function(lambda x: clipped(x @ weight))
        function(tf.ones((8, 64)))

    return unit


@leak("kernel_cache", "models_accumulate", units=150, fix="clear_session()", report="keras #2102, TF #28844")
def built_without_clear_session(fixed: bool) -> Any:
    x, _ = rows(16)

    def unit(callbacks: list[Any]) -> None:
        if fixed:
            keras.backend.clear_session()
        mlp(32, depth=4)(x)

    return unit


@leak("variables_accumulate", "models_accumulate", loop="fit", fix="one optimizer", holder="optimizers")
def optimizer_by_round(fixed: bool) -> Any:
    model, (x, y) = mlp(256, run_eagerly=True), rows(64)
    optimizers: list[Any] = []

    def unit(callbacks: list[Any]) -> None:
        if not fixed:
            optimizers.append(keras.optimizers.Adam())  # leak
            model.compile(optimizers[-1], "mse", run_eagerly=True)
        model.fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)

    return unit


@leak("variables_accumulate", fix="assign to one variable", holder="states")
def variable_by_step(fixed: bool) -> Any:
    states = [tf.Variable(tf.zeros((64, 64)), name="state")]

    def unit(callbacks: list[Any]) -> None:
        if fixed:
            states[0].assign_add(tf.ones((64, 64)))
        else:
            states.append(tf.Variable(states[-1] + 1.0, name="state"))  # leak

    return unit


@leak("compiled_programs", loop="fit", units=15, fix="one model, given new weights", report="TF #64170")
def compiled_by_xla_in_a_loop(fixed: bool) -> Any:
    x, y = rows(64)
    kept = mlp(128, jit_compile=True)

    def unit(callbacks: list[Any]) -> None:
        model = kept if fixed else mlp(128, jit_compile=True)
        model.fit(x, y, batch_size=16, verbose=0, callbacks=callbacks)
        del model
        keras.backend.clear_session()
        kmw.release()

    return unit


@leak("models_accumulate", fix="leave the stack", units=150, holder="models")
def models_in_an_exit_stack(fixed: bool) -> Any:
    stack, (x, _) = contextlib.ExitStack(), rows(16)
    models = stack.push(lambda *_: None) and []

    def unit(callbacks: list[Any]) -> None:
        keras.backend.clear_session()
        model = mlp(128)
        model(x)
        if not fixed:
            models.append(model)  # leak

    return unit
