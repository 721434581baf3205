"""Makes README's note of an out-of-memory error: a small CNN whose sixth batch is 16 times as large as the others.

python docs/out_of_memory.py     # prints the note; the page that it names is in logs/
"""

from __future__ import annotations

import os

# TensorFlow reads these before its first operation.
os.environ |= {"TF_CPU_BFC_MEM_LIMIT_IN_MB": "130", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}

import keras
import numpy as np
import tensorflow as tf

import kerasmemwatch as kmw

ROWS = (4, 4, 4, 4, 4, 64)


class Batches(keras.utils.PyDataset):
    """Pictures of noise."""

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((ROWS[index], 64, 64, 3), "float32"), np.zeros(ROWS[index], "int32")


def main() -> None:
    """Train until a batch does not fit, and print the note."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(32, 3, padding="same", name="conv1"),
            layers.BatchNormalization(name="bn1"),
            layers.ReLU(name="relu1"),
            layers.Conv2D(32, 3, padding="same", name="conv2"),
            layers.BatchNormalization(name="bn2"),
            layers.GlobalAveragePooling2D(name="gap"),
            layers.Dense(10, name="head"),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    try:
        model.fit(Batches(), shuffle=False, verbose=0, callbacks=[kmw.MemoryWatch("logs")])
    except tf.errors.ResourceExhaustedError as error:
        print(*error.__notes__, sep="\n")


if __name__ == "__main__":
    main()
