"""By how much does a full shuffle buffer grow while elements replace each other in it, and how soon?

    python benchmarks/shuffle.py   # about two minutes

``kerasmemwatch`` calls no such rise growing: ``leaks/verdicts/filling.py`` has the constants that this shows.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from kerasmemwatch import MemoryWatch
from kerasmemwatch.units import format_bytes

# Values of an element, elements that the buffer holds, and those that a step takes.
_PIPELINES = ((1024, 3000, 16), (250, 3000, 16), (3072, 1000, 16), (100, 5000, 50), (1024, 500, 10), (5000, 2000, 32))
_TURNS, _EPOCHS_A_TURN = 6, 4


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="store_true", help="the fastest pipeline only")
    part = parser.parse_args(arguments).part
    table = Table(title="Rise of bytes in use since the first epoch, as a share of what the shuffle buffer holds")
    for name in ("an element", "buffer", "steps a turn", "1 turn", *(f"{turn} turns" for turn in range(2, _TURNS + 1))):
        table.add_column(name, justify="right")
    for values, held, taken in _PIPELINES[4:5] if part else _PIPELINES:
        size, steps = 4 * values, held // taken
        rises = (f"{100 * rise / (size * held):.1f} %" for rise in _rises(values, held, taken))
        table.add_row(format_bytes(size), format_bytes(size * held), str(steps), *rises)
    Console(width=110).print(table, "In a turn, as many elements pass as the buffer holds.")
    return 0


def _rises(values: int, held: int, taken: int) -> list[float]:
    """By how much the floor rose after each turn, bytes."""

    def elements() -> Iterator[tuple[np.ndarray, np.float32]]:
        random = np.random.default_rng(0)
        while True:
            yield random.random(values).astype(np.float32), np.float32(1)

    signature = (tf.TensorSpec((values,)), tf.TensorSpec(()))
    data = tf.data.Dataset.from_generator(elements, output_signature=signature).shuffle(held).batch(taken).prefetch(4)
    model = keras.Sequential([keras.Input((values,)), keras.layers.Dense(16), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    watch = MemoryWatch(None)
    steps = max(1, held // taken // _EPOCHS_A_TURN)
    epochs = _TURNS * _EPOCHS_A_TURN
    model.fit(data, steps_per_epoch=steps, epochs=epochs, shuffle=False, verbose=0, callbacks=[watch])
    in_use = watch.recording.samples["device_in_use_bytes"][:, 0].astype(float)
    floors = in_use.reshape(epochs, steps).min(axis=1)
    return [float(floor - floors[0]) for floor in floors[_EPOCHS_A_TURN - 1 :: _EPOCHS_A_TURN]]


if __name__ == "__main__":
    raise SystemExit(main())
