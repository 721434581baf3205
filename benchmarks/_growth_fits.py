"""The clean programs that train with ``fit``, ``evaluate`` and ``predict``, each under a ``MemoryWatch``."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _growth_data import dataset, drawn
from _growth_models import Family

import kerasmemwatch as kmw

__all__ = ["NEEDS_STEPS", "Run", "fine_tuning", "fit", "larger_batches", "predictions", "rounds", "turns"]

NEEDS_STEPS = ("repeat", "generator", "cached repeat", "batches cached repeat")


@dataclass(frozen=True)
class Run:
    """One run of a program.

    Attributes:
        family: Its model and data.
        rng: What draws its data and sizes.
        steps: How many steps it trains, about.
        epoch_steps: How many steps an epoch has, about, of a program with several; 0 leaves that to the program.
    """

    family: Family
    rng: np.random.Generator
    steps: int
    epoch_steps: int = 0

    def epochs(self, usual: int, fits: int = 1) -> int:
        """How many epochs a fit has whose program usually has so many."""
        if usual < 2 or not self.epoch_steps:
            return usual
        return max(usual, self.steps // (self.epoch_steps * fits))

    def model(self, **options: Any) -> Any:
        """A compiled model."""
        model = self.family.make()
        model.compile(
            **{"loss": self.family.loss, **options, "optimizer": _optimizer(options.get("optimizer", "adam"))}
        )
        return model


def _optimizer(name: str) -> Any:
    if name == "ema":
        return keras.optimizers.SGD(0.01, use_ema=True, ema_overwrite_frequency=50)
    if name == "accumulate":
        return keras.optimizers.Adam(gradient_accumulation_steps=4)
    return name


def _watch() -> Any:
    return kmw.MemoryWatch(None, strict=True, verbose=False)


def fit(
    run: Run,
    *,
    data: str = "arrays",
    epochs: int = 4,
    fits: int = 1,
    compile: Mapping[str, Any] | None = None,
    callbacks: Sequence[str] = (),
    validation: str = "",
    weighted: bool = False,
    policy: str = "",
    **options: Any,
) -> Any:
    """One or several fits of one model.

    Args:
        run: What is run.
        data: The input pipeline.
        epochs: Epochs of each fit.
        fits: How many.
        compile: Options of ``compile``.
        callbacks: Names of callbacks beside the watch.
        validation: ``"split"``, or an input pipeline.
        weighted: Whether classes have weights.
        policy: A mixed precision policy.
        **options: Options of ``fit``.
    """
    if policy:
        keras.mixed_precision.set_global_policy(policy)
    epochs = run.epochs(epochs, fits)
    batches = max(4, run.steps // (epochs * fits))
    model, watch = run.model(**(compile or {})), _watch()
    given = dataset(data, run.family, run.rng, batches)
    x, y = given if data == "arrays" else (given, None)
    if data in NEEDS_STEPS:
        options["steps_per_epoch"] = batches
    if data == "arrays":
        options["batch_size"] = run.family.batch
    if validation == "split":
        options["validation_split"] = 0.2
    elif validation:
        held_out = dataset(validation, run.family, run.rng, max(3, batches // 4))
        options["validation_data"] = held_out
        if validation in NEEDS_STEPS:
            options["validation_steps"] = max(3, batches // 4)
    if weighted:
        options["class_weight"] = {number: 1 + number / 10 for number in range(10)}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(fits):
            others = [_CALLBACKS[name](Path(folder)) for name in callbacks]
            model.fit(x, y, epochs=epochs, verbose=0, callbacks=[watch, *others], **options)
    return watch


def rounds(run: Run, *, batches: int = 6, data: str = "arrays", collect: bool = True, **options: Any) -> Any:
    """Rounds of a fit of one epoch, an evaluate and a predict, as active learning and reinforcement learning do."""
    model, watch = run.model(**options), _watch()
    given = dataset(data, run.family, run.rng, batches)
    x, y = given if data == "arrays" else (given, None)
    own = {"batch_size": run.family.batch} if data == "arrays" else {}
    asked = run.family.inputs(run.rng, 2 * run.family.batch, 20)
    for number in range(run.steps // (2 * batches)):
        model.fit(x, y, verbose=0, callbacks=[watch], **own)
        model.evaluate(x, y, verbose=0, callbacks=[watch], **own)
        model.predict(asked, verbose=0, callbacks=[watch])
        if collect and number % 4 == 3:
            gc.collect()
    return watch


def predictions(run: Run, *, calls: int = 1, data: str = "arrays", evaluate: bool = False) -> Any:
    """Nothing but ``predict``, or ``evaluate``: one long call, or several."""
    model, watch = run.model(), _watch()
    batches = max(3, run.steps // calls)
    given = dataset(data, run.family, run.rng, batches)
    for _ in range(calls):
        if evaluate:
            x, y = given if data == "arrays" else (given, None)
            own = {"batch_size": run.family.batch} if data == "arrays" else {}
            model.evaluate(x, y, verbose=0, callbacks=[watch], **own)
        else:
            x = given[0] if data == "arrays" else given
            model.predict(x, run.family.batch if data == "arrays" else None, verbose=0, callbacks=[watch])
    return watch


def turns(run: Run, *, fits: int = 6, data: str = "prefetch") -> Any:
    """Two models that are trained in turn, as a teacher and its student are."""
    models, watch = [run.model(), run.model(optimizer="rmsprop")], _watch()
    given = dataset(data, run.family, run.rng, max(4, run.steps // fits))
    for number in range(fits):
        models[number % 2].fit(given, verbose=0, callbacks=[watch])
    return watch


def fine_tuning(run: Run, *, data: str = "arrays") -> Any:
    """A head is trained first, then the whole model, compiled anew: the second part needs more."""
    model, watch = run.model(), _watch()
    batches = max(4, run.steps // 6)
    x, y = drawn(run.family, run.rng, batches * run.family.batch)
    frozen = model.layers[:-1]
    for layer in frozen:
        layer.trainable = False
    model.compile("sgd", run.family.loss)
    model.fit(x, y, batch_size=run.family.batch, epochs=3, verbose=0, callbacks=[watch])
    for layer in frozen:
        layer.trainable = True
    model.compile("adam", run.family.loss)
    model.fit(x, y, batch_size=run.family.batch, epochs=3, verbose=0, callbacks=[watch])
    return watch


def larger_batches(run: Run, *, sizes: Sequence[int] = (8, 16, 32), length: int = 0) -> Any:
    """Stages of ever larger batches, or longer sequences: each takes more than the one before."""
    model, watch = run.model(), _watch()
    batches = max(4, run.steps // (2 * len(sizes)))
    for size in sizes:
        x, y = drawn(run.family, run.rng, batches * (length or size), size if length else 20)
        model.fit(x, y, batch_size=length or size, epochs=2, verbose=0, callbacks=[watch])
    return watch


_CALLBACKS: dict[str, Callable[[Path], Any]] = {
    "checkpoint": lambda folder: keras.callbacks.ModelCheckpoint(folder / "at-{epoch}.keras"),
    "weights": lambda folder: keras.callbacks.ModelCheckpoint(folder / "w.weights.h5", save_weights_only=True),
    "backup": lambda folder: keras.callbacks.BackupAndRestore(folder / "backup"),
    "early stopping": lambda folder: keras.callbacks.EarlyStopping("loss", patience=50, restore_best_weights=True),
    "reduce": lambda folder: keras.callbacks.ReduceLROnPlateau("loss", patience=1),
    "schedule": lambda folder: keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
    "tensorboard": lambda folder: keras.callbacks.TensorBoard(folder / "logs", update_freq=5),
    "histograms": lambda folder: keras.callbacks.TensorBoard(folder / "logs", histogram_freq=1, write_graph=False),
    "csv": lambda folder: keras.callbacks.CSVLogger(folder / "log.csv", append=True),
    "nan": lambda folder: keras.callbacks.TerminateOnNaN(),
    "swap": lambda folder: keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
}
