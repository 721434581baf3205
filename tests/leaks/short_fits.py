"""Short fits, evaluates and predicts, each with a watch of its own, as in the loop of a hyperparameter search."""

from __future__ import annotations

import gc
from typing import Any

import keras
import numpy as np
from leaks.kit import innocent, leak, mlp, rows

import kerasmemwatch as kmw


@leak(
    "models_accumulate",
    "graphs_pinned",
    loop="watch",
    fix="append(history.history); release()",
    holder="histories",
)
def histories_of_a_search(fixed: bool) -> Any:
    histories: list[Any] = []
    x, y = rows(320)

    def unit(callbacks: list[Any]) -> None:
        model = mlp(256)
        history = model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks)
        histories.append(history.history if fixed else history)  # leak
        del model, history
        if fixed:
            keras.backend.clear_session()
            kmw.release()

    return unit


@leak("models_accumulate", loop="watch", fix="keep weights; release()", holder="ensemble")
def models_of_an_ensemble(fixed: bool) -> Any:
    ensemble: list[Any] = []
    x, y = rows(64)

    def unit(callbacks: list[Any]) -> None:
        model = mlp(256, run_eagerly=True)
        model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks)
        ensemble.append([] if fixed else model)  # leak
        del model
        if fixed:
            gc.collect()

    return unit


@leak("graphs_pinned", loop="watch", fix="release() after each model", report="TF #80895")
def search_that_clears_its_sessions(fixed: bool) -> Any:
    x, y = rows(320)

    def unit(callbacks: list[Any]) -> None:
        model = mlp(256)
        model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks)
        del model
        keras.backend.clear_session()
        if fixed:
            kmw.release()

    return unit


@leak("kernel_cache", "native", loop="watch", fix="clear_session()")
def search_of_ever_new_names(fixed: bool) -> Any:
    x, y = rows(64)

    def unit(callbacks: list[Any]) -> None:
        model = mlp(64, depth=8, run_eagerly=True)
        model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks)
        del model
        if fixed:
            keras.backend.clear_session()

    return unit


@leak("retained_arrays", loop="watch", fix="keep their mean", holder="predictions")
def predictions_of_short_predicts(fixed: bool) -> Any:
    predictions: list[Any] = []
    model, (x, _) = mlp(8, inputs=256), rows(2048, 256)

    def unit(callbacks: list[Any]) -> None:
        found = model.predict(x, batch_size=256, verbose=0, callbacks=callbacks)
        predictions.append(found.mean() if fixed else np.tile(found, 256))  # leak

    return unit


@innocent("watch")
def short_fits_of_one_model(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(128)
    return lambda callbacks: model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks)


@innocent("watch")
def short_fits_that_differ_in_size(fixed: bool) -> Any:
    model, (x, y), random = mlp(32, inputs=512), rows(8192, 512), np.random.default_rng(0)

    def unit(callbacks: list[Any]) -> None:
        count, size = int(random.integers(64, 8192)), int(2 ** random.integers(5, 9))
        model.fit(x[:count], y[:count], batch_size=size, steps_per_epoch=None, verbose=0, callbacks=callbacks)

    return unit


@innocent("watch", units=30)
def learning_curve_of_ever_more_data(fixed: bool) -> Any:
    model, (x, y), count = mlp(32, inputs=512), rows(8192, 512), [0]

    def unit(callbacks: list[Any]) -> None:
        count[0] += 256
        model.fit(x[: count[0]], y[: count[0]], batch_size=256, verbose=0, callbacks=callbacks)

    return unit


@innocent("watch")
def search_that_drops_its_models(fixed: bool) -> Any:
    (x, y), random = rows(64), np.random.default_rng(0)

    def unit(callbacks: list[Any]) -> None:
        # Names and shapes of variables repeat, so the cache of kernels does not grow; the models are garbage in cycles.
        model = mlp(int(random.choice([16, 64, 256])), run_eagerly=True)
        model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks)
        del model
        keras.backend.clear_session()

    return unit


@innocent("watch", units=30)
def search_of_ever_larger_models(fixed: bool) -> Any:
    (x, y), width = rows(64), [16]

    def unit(callbacks: list[Any]) -> None:
        width[0] += 24
        model = mlp(width[0])
        model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks)
        del model
        keras.backend.clear_session()
        kmw.release()

    return unit


@innocent("watch")
def short_evaluates_and_predicts(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(256)

    def unit(callbacks: list[Any]) -> None:
        model.evaluate(x, y, verbose=0, callbacks=[kmw.MemoryWatch(log_dir=None, verbose=0)])
        model.predict(x, verbose=0, callbacks=callbacks)

    return unit
