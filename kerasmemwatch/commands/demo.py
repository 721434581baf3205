"""``kerasmemwatch demo``: a small CNN on scikit-learn's digits, 1,797 real images that ship with scikit-learn."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from kerasmemwatch.errors import MissingDependencyError
from kerasmemwatch.storage.files.file_system import check_log_dir
from kerasmemwatch.units import format_bytes

if TYPE_CHECKING:
    from kerasmemwatch.reports.report import Report

__all__ = ["reading", "run_demo"]


def run_demo(log_dir: str = "logs", *, epochs: int = 5) -> None:
    """Train, then print the report and next steps.

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
    # Set before TensorFlow is loaded, to keep its log lines out of the demo's output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print("Loading TensorFlow ...", flush=True)
    from kerasmemwatch.reports.text.report_text import print_report
    from kerasmemwatch.watch.memory_watch import MemoryWatch

    images, labels = _digits()
    watch = MemoryWatch(log_dir)
    print(f"Training a CNN on {len(images):,} digits for {epochs} epochs, watched by MemoryWatch.", flush=True)
    _model().fit(images, labels, batch_size=64, epochs=epochs, validation_split=0.2, callbacks=[watch])
    print()
    print_report(watch.report, sys.stdout)
    print(f"\n{reading(watch.report)}")
    where = shlex.quote(log_dir)
    print(f"\nThe same again, with every layer:  kerasmemwatch show {where} --all")
    print(f"In the browser (tab Memory):       tensorboard --logdir {where}")
    print("Your own script, unchanged:        kerasmemwatch run train.py")
    print("A model, without any data:         kerasmemwatch.summary(model, batch_size=32)")


def reading(report: Report) -> str:
    """Explain the table of layers, using the largest layer as the example; ``""`` without a trace."""
    from kerasmemwatch.records.categories import CATEGORIES

    layers = [row for row in report.peak.by_layer if row.class_name]
    if not layers or not report.peak.requested_bytes:
        return ""
    most = max(layers, key=lambda row: row.total_bytes or 0)
    held = {name: getattr(most, f"{name}_bytes") or 0 for name in CATEGORIES}
    parts = [f"{format_bytes(size)} {name}" for name, size in sorted(held.items(), key=lambda it: -it[1]) if size]
    share = (most.total_bytes or 0) / report.peak.requested_bytes
    text = (
        f"How to read the table: at the peak {most.path} holds {format_bytes(most.total_bytes)}, {share:.1%} of all "
        f"layers and buffers: {', '.join(parts)}."
    )
    added = next(
        (row.added_bytes for row in report.layers if (row.path, row.class_name) == (most.path, most.class_name)), None
    )
    if added is not None:
        text += f" Without it, the peak of the step would be {format_bytes(added)} lower."
    return textwrap.fill(text, 98)


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
