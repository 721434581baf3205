"""A column that says the most over the step is never below what the table of the peak shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

MODES: dict[str, dict[str, bool]] = {
    "graph": {"jit_compile": False},
    "eager": {"run_eagerly": True, "jit_compile": False},
    "xla": {"jit_compile": True},
}
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "ema": lambda: keras.optimizers.SGD(use_ema=True),
    "ema_overwriting": lambda: keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=2),
    "accumulation": lambda: keras.optimizers.Adam(gradient_accumulation_steps=2),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    "global_clipnorm": lambda: keras.optimizers.Adam(global_clipnorm=1.0),
    "clipnorm": lambda: keras.optimizers.Adam(clipnorm=1.0),
    "clipvalue": lambda: keras.optimizers.Adam(clipvalue=0.1),
}


def small() -> keras.Model:
    """Its activations are small beside its variables, so that the peak is likely to be in the update."""
    inputs = keras.Input((64,))
    shared = keras.layers.Dense(256, activation="relu", name="shared")
    x = shared(shared(keras.layers.Dense(256, activation="gelu", name="first")(inputs)))
    return keras.Model(inputs, keras.layers.Dense(256, name="head")(keras.layers.BatchNormalization()(x)))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, mode) for name in OPTIMIZERS for mode in ("graph", "eager")),
        # Compiling takes the longest: those with branches.
        ("accumulation", "xla"),
        ("loss_scale", "xla"),
    ],
)
def test_no_column_is_below_the_peaks(name: str, mode: str) -> None:
    model, rng = small(), np.random.default_rng(0)
    model.compile(OPTIMIZERS[name](), "mse", **MODES[mode])
    model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
    watch = MemoryWatch(None, trace=[3, 4, 7], strict=True)
    x, y = rng.random((64, 64), np.float32), rng.random((64, 256), np.float32)
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[watch], validation_data=(x, y), validation_batch_size=16)
    report = watch.report
    columns = {(row.path, bool(row.class_name)): row for row in report.layers}
    for live in report.peak.by_layer:
        row = columns[live.path, bool(live.class_name)]
        for category in CATEGORIES:
            held = getattr(live, f"{category}_bytes")
            assert not held or getattr(row, f"{category}_bytes") >= held, (live.path, category)
    for category in ("weights", "optimizer", "gradients"):
        assert sum(getattr(row, f"{category}_bytes") or 0 for row in report.layers) >= report.peak.by_category[category]


def test_rows_tell_which_call_and_how_many_models() -> None:
    watch = MemoryWatch(None, trace=False, strict=True)
    x, y = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")
    for _ in range(2):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[watch])
        model.predict(x, verbose=0, callbacks=[watch])
        with watch.batch(model):
            model.train_on_batch(x, y)
    samples = watch.recording.samples
    assert samples["stage"].tolist() == ["train", "test", "predict", "train"] * 2
    assert samples["call"].tolist() == [1, 1, 2, 0, 3, 3, 4, 0]
    assert samples["model"].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
