"""A fault of ours, wherever it is, is reported once and never reaches the training."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest

import kerasmemwatch as kmw
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.watch import factory, fit_watcher, memory_watch


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("broken on purpose")


def fit(watch: kmw.MemoryWatch) -> dict[str, list[float]]:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 4)), np.ones((8, 2))
    return dict(model.fit(x, y, epochs=2, batch_size=4, verbose=2, callbacks=[watch]).history)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (factory, "configuration"),
        (factory, "default_probes"),
        (factory, "open_store"),
        (fit_watcher, "running_lists"),
        (memory_watch, "show_beside_loss"),
        (fit_watcher.Inventories, "take"),
        (Recorder, "epoch_bytes"),
        (Recorder, "_sample"),
        (Recorder, "_open_run"),
    ],
)
def test_training_goes_on(
    owner: object, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with caplog.at_level(logging.WARNING, logger="kerasmemwatch"):
        history = fit(kmw.MemoryWatch(log_dir=None))
    assert len(history["loss"]) == 2
    assert len([record for record in caplog.records if "broken on purpose" in record.message]) == 1
    with pytest.raises(RuntimeError, match="broken on purpose"):
        fit(kmw.MemoryWatch(log_dir=None, strict=True))
