"""Weights and optimizer variables are exact at every event of a step, whatever an optimizer does with their buffers."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.analysis.steps.live_set import category_series, peak_event
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

layers, optimizers = keras.layers, keras.optimizers
MODES = {"graph": {}, "xla": {"jit_compile": True}, "eager": {"run_eagerly": True}}
# Every optimizer that Keras has, and options that give variables more than one value in a step.
OPTIMIZERS: dict[str, Any] = {
    **{
        name: getattr(optimizers, name)
        for name in dir(optimizers)
        if isinstance(getattr(optimizers, name), type)
        and issubclass(getattr(optimizers, name), optimizers.Optimizer)
        and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
    },
    "SGD, momentum": lambda: optimizers.SGD(momentum=0.9, nesterov=True),
    "RMSprop, centered": lambda: optimizers.RMSprop(momentum=0.9, centered=True),
    "Adam, averaged": lambda: optimizers.Adam(use_ema=True),
    "Adam, scaled loss": lambda: optimizers.LossScaleOptimizer(optimizers.Adam()),
}
SHARING = {
    "accumulating": lambda: optimizers.Adam(gradient_accumulation_steps=2),
    "overwriting": lambda: optimizers.Adam(use_ema=True, ema_overwrite_frequency=2),
}


def dense() -> tuple[keras.Model, Any]:
    kept = [keras.Input((16,)), layers.Dense(24, "relu"), layers.BatchNormalization(), layers.Dense(24)]
    return keras.Sequential([*kept, layers.Dense(1)]), np.ones((48, 16), np.float32)


def small() -> tuple[keras.Model, Any]:
    kept = [keras.Input((16,)), layers.Dense(24), layers.BatchNormalization(), layers.Dense(1)]
    return keras.Sequential(kept), np.ones((48, 16), np.float32)


def recurrent() -> tuple[keras.Model, Any]:
    """Its table is scattered into: a read of it is a copy, and where it lies is unknown."""
    kept = [keras.Input((6,), dtype="int32"), layers.Embedding(300, 8), layers.GRU(8), layers.Dense(1)]
    return keras.Sequential(kept), np.arange(48 * 6, dtype=np.int32).reshape(48, 6)


def size(variables: Any) -> int:
    return sum(math.prod(variable.shape) * tf.as_dtype(variable.dtype).size for variable in variables)


def traced(make: Any, optimizer: str, steps: list[int], mode: dict[str, bool]) -> tuple[Any, dict[str, int]]:
    keras.utils.set_random_seed(0)
    model, x = make()
    model.compile({**OPTIMIZERS, **SHARING}[optimizer](), "mse", **{"jit_compile": False, **mode})
    if optimizer in OPTIMIZERS and 1 not in steps:
        model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
    watch = MemoryWatch(None, trace=steps, strict=True)
    model.fit(x, np.ones((len(x), 1), np.float32), batch_size=8, verbose=0, callbacks=[watch])
    assert [step.step for step in watch.recording.steps] == steps
    return watch.recording.steps, {"weights": size(model.weights), "optimizer": size(model.optimizer.variables)}


def over_time(step: Any) -> dict[str, Any]:
    series = category_series(step.timeline)
    return {name: series[CATEGORIES.index(name)] for name in ("weights", "optimizer")}


@pytest.mark.parametrize(
    ("make", "optimizer", "mode"),
    [
        *((dense, optimizer, "graph") for optimizer in OPTIMIZERS),
        # In the other modes one of each kind: without slots, with slots of the weights' shapes, and with others.
        *((small, optimizer, "eager") for optimizer in ("SGD", "Adam", "Adafactor", "Ftrl", "Muon", "Adam, averaged")),
        *((small, optimizer, "xla") for optimizer in ("SGD", "Adam", "Adafactor")),
        *((recurrent, optimizer, "graph") for optimizer in ("SGD", "AdamW", "RMSprop")),
        (recurrent, "AdamW", "eager"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_each_byte_of_a_variable_counts_once_at_any_time(make: Any, optimizer: str, mode: str) -> None:
    steps, right = traced(make, optimizer, [2, 4], MODES[mode])
    for step in steps:
        found = over_time(step)
        assert {name: set(series.tolist()) for name, series in found.items()} == {
            name: {wanted} for name, wanted in right.items()
        }


@pytest.mark.long
@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_accumulated_gradients_may_share_the_zeros_that_they_are_set_to(mode: str) -> None:
    steps, right = traced(dense, "accumulating", [4, 5], MODES[mode])
    for step in steps:
        found = over_time(step)
        assert set(found["weights"].tolist()) == {right["weights"]}
        # Of one shape they are one buffer in a graph, until the next gradients are added.
        assert found["optimizer"].max() == right["optimizer"]
        assert found["optimizer"].min() >= right["optimizer"] - 4 * 24 * 4
    before, after = (over_time(step)["optimizer"] for step in steps)
    assert before[0] == after[-1] == right["optimizer"]


@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_a_weight_that_shares_its_average_s_buffer_is_a_weight(mode: str) -> None:
    steps, right = traced(dense, "overwriting", [2, 3], MODES[mode])
    for step in steps:
        found = over_time(step)
        assert set(found["weights"].tolist()) == {right["weights"]}
        assert found["optimizer"].max() <= right["optimizer"]


@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_slots_that_the_first_step_makes_count_from_then_on(mode: str) -> None:
    [step], right = traced(dense, "RMSprop", [1], MODES[mode])
    found = over_time(step)
    assert set(found["weights"].tolist()) == {right["weights"]}
    assert found["optimizer"].max() == found["optimizer"][-1] == right["optimizer"]
    # Those of one shape begin as one buffer, which the first update ends.
    assert found["optimizer"][peak_event(step.timeline) + 1] >= right["optimizer"] - 4 * 24 * 4


def test_who_keeps_old_weights_has_them_and_they_are_no_weights() -> None:
    kept = []
    model, x = dense()
    model.compile("sgd", "mse", jit_compile=False)
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: kept.append([tf.convert_to_tensor(w.value) for w in model.weights])
    )
    watch = MemoryWatch(None, trace=[3], strict=True)
    model.fit(x, np.ones((len(x), 1), np.float32), batch_size=8, verbose=0, callbacks=[keep, watch])
    [step] = watch.recording.steps
    assert set(over_time(step)["weights"].tolist()) == {size(model.weights)}
