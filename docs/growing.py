"""Makes README's example of growth: a callback keeps what the model predicts after every step.

python docs/growing.py     # prints what the report says of growth and its cause
"""

from __future__ import annotations

import keras
import numpy as np

import kerasmemwatch as kmw

X, Y = np.ones((3200, 256), "float32"), np.ones((3200, 512), "float32")


class Probe(keras.callbacks.Callback):
    """Wants to plot the predictions some day."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """A batch ends."""
        self.outputs.append(self.model(X[:64]))


def main() -> None:
    """Train for four epochs, and print the part of the report."""
    model = keras.Sequential([keras.Input((256,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(512)])
    model.compile("adam", "mse")
    watch = kmw.MemoryWatch(log_dir=None, trace=False, verbose=0)
    model.fit(X, Y, batch_size=32, epochs=4, verbose=0, callbacks=[watch, Probe()])
    report = str(watch.report)
    print(report[report.index("Growing:") :].partition("\nVariables of")[0].rstrip())


if __name__ == "__main__":
    main()
