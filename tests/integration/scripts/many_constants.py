"""A fit whose step function keeps 1,200 small constants."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kerasmemwatch as kmw

NUM_CONSTANTS = 1_200
# Next to less than this, the few chunks that every process leaves would be a share of their own.
TABLE_BYTES = 300_000


class Thresholds(keras.layers.Layer):
    """Sum of the input, raised to each of many thresholds; each one is a constant of its own."""

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(shape=(TABLE_BYTES // 4,), trainable=False)

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def call(self, inputs: Any) -> Any:
        return tf.add_n([tf.maximum(inputs, np.full(4, value, np.float32)) for value in range(NUM_CONSTANTS)])


model = keras.Sequential([keras.Input((4,)), Thresholds(), keras.layers.Dense(2)])
model.compile("sgd", "mse", jit_compile=False)
watch = kmw.MemoryWatch(log_dir=None, trace=[2], strict=True)
model.fit(np.ones((48, 4), np.float32), np.ones((48, 2), np.float32), batch_size=16, verbose=0, callbacks=[watch])
report = watch.report
held = {row.path: row.total_bytes for row in report.peak.by_layer}
print(json.dumps({"coverage": report.coverage, "held": held}))
