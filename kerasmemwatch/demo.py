"""``kerasmemwatch demo``: a small CNN on scikit-learn's digits, 1,797 real images that come with the package."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from typing import Any

from kerasmemwatch.errors import MissingDependencyError
from kerasmemwatch.files import check_log_dir

__all__ = ["run_demo"]


def run_demo(log_dir: str = "logs", *, epochs: int = 5) -> None:
    """Train, then print the report and what to do next.

    Args:
        log_dir: Where to record.
        epochs: How long to train.

    Raises:
        MissingDependencyError: If TensorFlow or scikit-learn is not installed.
        LogDirError: If ``log_dir`` cannot be used.
    """
    for module, extra in (("tensorflow", "tensorflow"), ("sklearn", "demo")):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(
                f"Expected {module} to be installed for the demo. Received: no such package. "
                f"Install it with: pip install 'kerasmemwatch[{extra}]'"
            )
    check_log_dir(log_dir)
    # Both must be set before TensorFlow is loaded: exact counting, and no log lines in the demo's output.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print("Loading TensorFlow ...", flush=True)
    from kerasmemwatch.callbacks import MemoryWatch
    from kerasmemwatch.text import print_report

    images, labels = _digits()
    watch = MemoryWatch(log_dir)
    print(f"Training a CNN on {len(images):,} digits for {epochs} epochs, watched by MemoryWatch.", flush=True)
    _model().fit(images, labels, batch_size=64, epochs=epochs, validation_split=0.2, callbacks=[watch])
    print()
    print_report(watch.report, sys.stdout)
    where = shlex.quote(log_dir)
    print(f"\nThe same again, with every layer:  kerasmemwatch show {where} --all")
    print(f"In the browser (tab Time Series):  tensorboard --logdir {where}")
    print("Your own script, unchanged:        kerasmemwatch run train.py")


def _digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images[..., None] / 16.0).astype("float32"), digits.target


def _model() -> Any:
    import keras

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ],
        name="digits_cnn",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
