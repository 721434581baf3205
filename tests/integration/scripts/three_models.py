"""Trains three models one after the other, each with a watch; prints of each what was covered, and its owners."""

from __future__ import annotations

import json
import sys

import keras
import numpy as np

from kerasmemwatch.watch.memory_watch import MemoryWatch

layers = keras.layers
X, Y = np.ones((32, 64), np.float32), np.ones((32, 1), np.float32)
MODELS = (
    [layers.Dense(512, "relu"), layers.Dense(1)],
    [layers.Dense(256), layers.BatchNormalization(), layers.Dropout(0.1), layers.Dense(1)],
    [layers.Dense(96, "gelu"), layers.LayerNormalization(), layers.Dense(1)],
)


def main(mode: str, clears: bool) -> None:
    found = []
    for parts in MODELS:
        model = keras.Sequential([keras.Input((64,)), *parts])
        model.compile("adam", "mse", jit_compile=mode == "xla")
        model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
        watch = MemoryWatch(None, trace=[3], strict=True)
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[watch])
        report = watch.report
        rows = {row.path: (row.total_bytes, row.other_bytes) for row in report.peak.by_layer}
        found.append(
            {
                "coverage": report.coverage,
                "earlier": rows.get("earlier models"),
                "weights": report.peak.by_category["weights"],
                "own_weights": 4 * model.count_params(),
                "held": 4 * sum(variable.numpy().size for variable in model.variables),
            }
        )
        del model
        if clears:
            keras.backend.clear_session()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "clear")
