"""Layers named like the owners that are no layers, such as "metrics": their bytes are a layer's all the same."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

PLAIN = ("first", "second", "third", "fourth")
OWNERS = ("metrics", "loss", "optimizer", "unattributed")


def layer_rows(names: tuple[str, ...], mode: str) -> list[dict[str, Any]]:
    """What each of four layers takes over a traced step, without its name."""
    layers = [keras.layers.Dense(64 + 8 * number, "relu", name=name) for number, name in enumerate(names)]
    model = keras.Sequential([keras.Input((16,)), *layers, keras.layers.Dense(1, name="head")])
    model.compile("adam", "mse", jit_compile=mode == "xla", run_eagerly=mode == "eager")
    model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
    x = np.ones((256, 16), "float32")
    watch = MemoryWatch(None, trace=[3], strict=True)
    model.fit(x, x[:, :1], batch_size=64, shuffle=False, verbose=0, callbacks=[watch])
    rows = {row.path: asdict(row) for row in watch.report.layers if row.class_name}
    compared = ("weights", "gradients", "optimizer", "activations", "inputs", "other", "unattributed")
    return [{name: rows[path][f"{name}_bytes"] for name in compared} for path in names]


@pytest.mark.parametrize("mode", ["graph", "eager", "xla"])
def test_they_hold_what_layers_of_other_names_hold(mode: str, tmp_path: Path) -> None:
    plain = layer_rows(PLAIN, mode)
    assert all(row["weights"] for row in plain) and any(row["activations"] for row in plain)
    assert layer_rows(OWNERS, mode) == plain
