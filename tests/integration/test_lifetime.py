"""What a watch keeps alive, and how long what it holds lives."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasmemwatch as kmw
from kerasmemwatch.tracing.traced_before import TRACED


def test_a_kept_watch_lets_the_model_go() -> None:
    watch = kmw.MemoryWatch(log_dir=None, strict=True)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0, callbacks=[watch])
    reference, layers = weakref.ref(model), watch.report.layers
    # Without a strategy of its own, Keras lets go of the last model that was trained once its state is cleared.
    del model
    keras.utils.clear_session(free_memory=True)
    gc.collect()
    assert reference() is None
    assert watch.report.layers == layers  # what was recorded stays
    assert watch.model is None


class Raises(keras.callbacks.Callback):
    """Ends a fit in its third batch."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            raise ZeroDivisionError


def fits(watch: kmw.MemoryWatch, how: str) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    loss = "sparse_categorical_crossentropy"
    model.compile("sgd", loss, run_eagerly=how == "eager", jit_compile=False)
    labels = np.zeros(8, int)
    labels[4:] = 7 if how == "dies" else 1  # there are two classes, so the third step raises
    others = [Raises()] if how == "raises" else []
    error = {"raises": ZeroDivisionError, "dies": tf.errors.InvalidArgumentError}.get(how)
    with nullcontext() if error is None else pytest.raises(error):
        model.fit(np.ones((8, 4)), labels, batch_size=2, verbose=0, shuffle=False, callbacks=[watch, *others])


def loops(session: kmw.MemorySession) -> None:
    model, optimizer = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), keras.optimizers.SGD()
    with session:
        for _ in range(3):
            with session.step():
                with tf.GradientTape() as tape:
                    loss = keras.ops.mean(model(np.ones((2, 4))) ** 2)
                optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)


@pytest.mark.parametrize("how", ["graph", "eager", "raises", "dies", "loop"])
def test_what_a_watch_holds_goes_with_it(how: str) -> None:
    TRACED.clear()  # other tests may have traced the same
    gc.collect()
    # A process with TensorFlow seldom collects its oldest objects: in a search, hundreds of watches would wait for it.
    gc.disable()
    try:
        if how == "loop":
            loops(watch := kmw.MemorySession(log_dir=None, strict=True))
        else:
            fits(watch := kmw.MemoryWatch(log_dir=None, strict=True), how)
        assert watch.recording.steps
        held = [weakref.ref(watch), weakref.ref(watch._recorder), weakref.ref(watch._tracing)]
        del watch
        assert [reference() for reference in held] == [None] * len(held)
    finally:
        gc.enable()
