"""A watch that is kept for its report keeps neither the model nor the data alive."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np

import kerasmemwatch as kmw


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
