"""Whose each byte of a traced step is, against arithmetic on shapes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import PHASES, TracedStep
from kerasmemwatch.reports.report import Report
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

MODES: dict[str, dict[str, bool]] = {
    "graph": {"jit_compile": False},
    "eager": {"run_eagerly": True, "jit_compile": False},
    "xla": {"jit_compile": True},
}
# Each model in both modes, and each mode with both optimizers. Compiling takes the longest: loops within a program are
# in the layers within layers.
SUMMED = [
    *(("mlp", mode, "adam") for mode in ("graph", "eager")),
    *((name, mode, "sgd") for name in ("lstm", "shared") for mode in ("graph", "eager")),
    ("cnn", "graph", "adam"),
    ("cnn", "eager", "sgd"),
    ("raw_variable", "graph", "sgd"),
    ("raw_variable", "eager", "adam"),
    ("cnn", "xla", "adam"),
    ("shared", "xla", "sgd"),
]
FLOAT = 4
STEPS, TRACED = 6, 4


def dense() -> tuple[keras.Model, Any]:
    layers = [keras.Input((1024,)), keras.layers.Dense(128, activation="relu", name="it"), keras.layers.Dense(1)]
    return keras.Sequential(layers), np.random.default_rng(0).random((32, 1024), np.float32)


def convolution() -> tuple[keras.Model, Any]:
    layers = [
        keras.Input((64, 64, 3)),
        keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="it"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(1),
    ]
    return keras.Sequential(layers), np.random.default_rng(0).random((16, 64, 64, 3), np.float32)


def embedding() -> tuple[keras.Model, Any]:
    layers = [
        keras.Input((20,), dtype="int32"),
        keras.layers.Embedding(1000, 128, name="it"),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(1),
    ]
    return keras.Sequential(layers), np.random.default_rng(0).integers(1000, size=(64, 20), dtype=np.int32)


# Numbers of parameters, of gradient elements and of output elements.
EXAMPLES = {
    dense: (1024 * 128 + 128, 1024 * 128 + 128, 32 * 128),
    convolution: (3 * 3 * 3 * 32 + 32, 3 * 3 * 3 * 32 + 32, 16 * 64 * 64 * 32),
    # A row of the table for each word of the batch, not for each word of the vocabulary.
    embedding: (1000 * 128, 64 * 20 * 128, 64 * 20 * 128),
}


def traced(model: keras.Model, x: Any, y: Any = None, *, log_dir: Path | None = None, **options: Any) -> MemoryWatch:
    """Fit the same batch again and again, and trace the fourth step."""
    y = np.ones((len(x), 1), np.float32) if y is None else y
    watch = MemoryWatch(log_dir, trace=[TRACED], strict=True)
    data = tf.data.Dataset.from_tensors((x, y)).repeat(STEPS)
    if model.built:
        model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
    model.fit(data, shuffle=False, verbose=0, callbacks=[watch], **options)
    assert [(step.step, step.stage) for step in watch.recording.steps] == [(TRACED, "train")]
    return watch


def row(watch: MemoryWatch | Fit, path: str) -> Any:
    [found] = [layer for layer in watch.report.layers if layer.path == path and layer.class_name]
    return found


@dataclass(frozen=True)
class Fit:
    """What is known of a traced fit whose model is gone."""

    step: TracedStep
    report: Report
    weights_bytes: int
    optimizer_bytes: int
    trainable_bytes: dict[str, int]


@pytest.fixture(scope="module")
def fitted(build: Any) -> Callable[..., Fit]:
    """``fitted(name, mode, optimizer)``: one fit for all tests that ask for it."""

    @functools.cache
    def fitted(name: str, mode: str, optimizer: str = "sgd") -> Fit:
        case = build(name, optimizer=optimizer, **MODES[mode])
        watch = traced(case.model, case.x[:8], case.y[:8])
        [step] = watch.recording.steps
        weights = size(case.model.weights) + sum(variable.numpy().nbytes for variable in case.raw)
        trainable = {layer.name: size(layer.trainable_weights) for layer in case.model.layers}
        return Fit(step, watch.report, weights, size(case.model.optimizer.variables), trainable)

    return fitted


def size(variables: Any) -> int:
    return sum(math.prod(variable.shape) * tf.as_dtype(variable.dtype).size for variable in variables)


def alive(step: TracedStep, moment: int) -> np.ndarray:
    """Which allocations are alive after an event."""
    return (step.timeline.birth <= moment) & (step.timeline.death > moment)


def requested(step: TracedStep, moment: int) -> dict[str, int]:
    """Requested bytes by category after an event."""
    timeline = step.timeline
    is_alive = alive(step, moment)
    return {
        name: int(timeline.requested_bytes[is_alive & (timeline.category == code)].sum())
        for code, name in enumerate(CATEGORIES)
    }


@pytest.mark.parametrize(
    ("example", "mode"),
    [
        *((example, mode) for example in EXAMPLES for mode in ("graph", "eager")),
        (convolution, "xla"),
        (embedding, "xla"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_layer_has_the_bytes_that_arithmetic_gives(example: Any, mode: str) -> None:
    parameters, gradients, outputs = EXAMPLES[example]
    model, x = example()
    model.compile("adam", "mse", **MODES[mode])
    found = row(traced(model, x), "it")
    assert found.weights_bytes == FLOAT * parameters
    assert found.optimizer_bytes == 2 * FLOAT * parameters
    assert found.output_bytes == FLOAT * outputs
    if mode != "xla":
        assert found.gradients_bytes == FLOAT * gradients


@pytest.mark.parametrize(("name", "mode", "optimizer"), SUMMED)
def test_sums_of_a_step_hold_at_every_event(fitted: Any, name: str, mode: str, optimizer: str) -> None:
    fit = fitted(name, mode, optimizer)
    step, report, timeline = fit.step, fit.report, fit.step.timeline
    assert step.mode == mode
    # Chunks born less chunks freed are what the allocator says, at every event.
    total = timeline.in_use_before_bytes
    born = dict.fromkeys(range(timeline.num_events), 0)
    for reserved, birth, death in zip(
        timeline.reserved_bytes.tolist(), timeline.birth.tolist(), timeline.death.tolist(), strict=True
    ):
        if birth >= 0:
            born[birth] += reserved
        if death < timeline.num_events:
            born[death] -= reserved
    for event, in_use in enumerate(timeline.in_use_bytes.tolist()):
        total += born[event]
        assert total == in_use, event
    # Requested bytes are never more than that, and the peak is theirs.
    totals = [sum(requested(step, moment).values()) for moment in range(-1, timeline.num_events)]
    in_use_at = [timeline.in_use_before_bytes, *timeline.in_use_bytes.tolist()]
    assert all(asked <= used for asked, used in zip(totals, in_use_at, strict=True))
    peak = report.peak
    assert peak.requested_bytes == max(totals)
    assert sum(peak.by_category.values()) == max(totals)
    assert peak.by_category == requested(step, totals.index(max(totals)) - 1)
    assert sum(layer.total_bytes for layer in peak.by_layer) == max(totals)
    # Variables, before the step and after it, by their own shapes and dtypes.
    for moment in (-1, timeline.num_events - 1):
        held = requested(step, moment)
        assert held["weights"] == fit.weights_bytes
        assert held["optimizer"] == fit.optimizer_bytes
    assert sum(layer.weights_bytes for layer in report.layers) == fit.weights_bytes
    assert sum(layer.optimizer_bytes for layer in report.layers) == fit.optimizer_bytes


@pytest.mark.parametrize(
    ("example", "mode"),
    [(dense, "graph"), (dense, "eager"), (dense, "xla"), (convolution, "graph")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_nearly_every_byte_at_the_peak_has_an_owner(run_forked_python: Any, example: Any, mode: str) -> None:
    # In a process of its own: TensorFlow keeps some of an earlier model's memory, and nobody can say whose it was.
    script = f"""
        import sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}]
        from test_attribution import MODES, {example.__name__}, shares, traced
        model, x = {example.__name__}()
        model.compile("adam", "mse", **MODES[{mode!r}])
        print(*shares(traced(model, x)))
    """
    covered, coverage, in_layers = map(float, run_forked_python(script).stdout.split())
    assert covered == coverage >= 0.99
    assert not in_layers < 0.97


def shares(watch: MemoryWatch) -> tuple[float, float | None, float]:
    """At the peak: requested bytes with an owner, the report's coverage, and activations with a layer (NaN if none)."""
    [step] = watch.recording.steps
    timeline = step.timeline
    totals = [sum(requested(step, moment).values()) for moment in range(-1, timeline.num_events)]
    at_peak = alive(step, totals.index(max(totals)) - 1)
    known = np.array([owner != "unattributed" for owner in timeline.owners])[timeline.owner]
    known &= timeline.category != CATEGORIES.index("unattributed")
    activations = at_peak & (timeline.category == CATEGORIES.index("activations"))
    in_layer = np.array([bool(class_name) for class_name in timeline.classes])[timeline.owner]
    inside, kept = (int(timeline.requested_bytes[rows].sum()) for rows in (activations & in_layer, activations))
    covered = int(timeline.requested_bytes[at_peak & known].sum()) / int(timeline.requested_bytes[at_peak].sum())
    return covered, watch.report.coverage, inside / kept if kept else math.nan


@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_gradients_are_as_large_as_the_weights(fitted: Any, mode: str) -> None:
    fit = fitted("mlp", mode, "adam")
    for name, trainable_bytes in fit.trainable_bytes.items():
        assert row(fit, name).gradients_bytes == trainable_bytes > 0


@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_backward_keeps_the_outputs_of_the_forward_pass(mode: str) -> None:
    """Of tanh its gradient reads the output: three layers, three outputs that live until the backward pass."""
    layers = [keras.layers.Dense(512, activation="tanh", name=f"dense_{number}") for number in range(3)]
    model = keras.Sequential([keras.Input((16,)), *layers, keras.layers.Dense(1, name="head")])
    model.compile("sgd", "mse", **MODES[mode])
    watch = traced(model, np.ones((256, 16), np.float32))
    for layer in layers:
        found = row(watch, layer.name)
        assert found.activations_bytes == found.output_bytes == 256 * 512 * FLOAT
    [step] = watch.recording.steps
    kept = step.timeline.category == CATEGORIES.index("activations")
    forward = step.timeline.phase == PHASES.index("forward")
    assert forward[kept].all()
    # None outlives the step: the graph's executor and the tape have let go of all.
    assert (step.timeline.death[kept] < step.timeline.num_events).all()


@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_what_the_backward_pass_makes_is_the_layers_that_is_differentiated(mode: str) -> None:
    """As large as a layer's output are the gradients by it: of that layer's activation, and of the next one's input."""
    widths = (96, 160, 224)
    layers = [keras.layers.Dense(width, activation="softplus", name=f"dense_{width}") for width in widths]
    model = keras.Sequential([keras.Input((16,)), *layers, keras.layers.Dense(1, name="head")])
    model.compile("sgd", "mse", **MODES[mode])
    [step] = traced(model, np.ones((64, 16), np.float32)).recording.steps
    timeline = step.timeline
    made = (timeline.phase == PHASES.index("backward")) & (timeline.birth >= 0)
    for layer, following in itertools.pairwise([*layers, model.layers[-1]]):
        rows = made & (timeline.requested_bytes == 64 * layer.units * FLOAT)
        owners = {timeline.owners[owner] for owner in timeline.owner[rows].tolist()}
        # A graph's executor may reuse a buffer instead.
        assert owners and owners <= {layer.name, following.name}
        assert mode == "graph" or owners == {layer.name, following.name}


@pytest.mark.parametrize("mode", MODES)
def test_layer_called_twice_is_one_row(fitted: Any, mode: str) -> None:
    found = row(fitted("shared", mode), "encoder")
    assert found.weights_bytes == (16 * 16 + 16) * FLOAT
    assert found.output_bytes == 8 * 16 * FLOAT
    if mode != "xla":
        # Three calls, and the gradient of tanh reads each one's output.
        assert found.activations_bytes == 3 * found.output_bytes


@pytest.mark.parametrize("mode", MODES)
def test_layers_within_layers_have_rows_of_their_own(mode: str) -> None:
    layers = keras.layers
    inputs = keras.Input((10, 32))
    x = layers.TimeDistributed(layers.Dense(64, activation="tanh", name="each"), name="times")(inputs)
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True, name="lstm"), name="both")(x)
    x = layers.MultiHeadAttention(2, 16, name="attention")(x, x)
    inner = keras.Sequential([layers.Dense(48, activation="tanh", name="deep")], name="inner")
    middle = keras.Sequential([inner, layers.Dense(24, activation="tanh", name="wide")], name="middle")
    outputs = layers.Dense(1, name="head")(layers.Flatten()(middle(x)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse", **MODES[mode])
    watch = traced(model, np.random.default_rng(0).random((16, 10, 32), np.float32))
    found = {layer.path: layer for layer in watch.report.layers if layer.class_name}
    weights = {path: layer.weights_bytes for path, layer in found.items() if layer.weights_bytes}
    lstm = 4 * (64 * 16 + 16 * 16 + 16)
    heads = 2 * 16
    expected = {
        "times/each": 32 * 64 + 64,
        "both/forward_lstm/lstm_cell": lstm,
        "both/backward_lstm/lstm_cell": lstm,
        "attention/query": 32 * heads + heads,
        "attention/key": 32 * heads + heads,
        "attention/value": 32 * heads + heads,
        "attention/attention_output": heads * 32 + 32,
        "middle/inner/deep": 32 * 48 + 48,
        "middle/wide": 48 * 24 + 24,
        "head": 10 * 24 + 1,
    }
    assert weights == {path: FLOAT * count for path, count in expected.items()}
    sizes = {"times": 64, "both": 32, "attention": 32, "middle/inner": 48, "middle": 24, "middle/inner/deep": 48}
    for path, width in sizes.items():
        if path in found:  # a model that computes nothing itself may have no row
            assert found[path].output_bytes == 16 * 10 * width * FLOAT, path
    assert found["middle/inner/deep"].output_bytes == 16 * 10 * 48 * FLOAT
    if mode != "xla":
        # What is computed within is the inner layer's own, forward and backward.
        for path, width in {"times/each": 64, "middle/inner/deep": 48, "middle/wide": 24}.items():
            assert found[path].activations_bytes >= 16 * 10 * width * FLOAT, path
        for path in expected:
            assert found[path].gradients_bytes == weights[path], path
        for path in ("both", "attention"):
            inside = [layer for name, layer in found.items() if name == path or name.startswith(f"{path}/")]
            assert sum(layer.activations_bytes for layer in inside) >= 16 * 10 * 32 * FLOAT, path


@pytest.mark.parametrize("mode", MODES)
def test_evaluate_and_predict_hold_no_gradients(mode: str) -> None:
    model, x = dense()
    model.compile("sgd", "mse", **MODES[mode])
    data = tf.data.Dataset.from_tensors((x, np.ones((len(x), 1), np.float32))).repeat(3)
    watch = MemoryWatch(None, trace=[2, 5], strict=True)
    model.evaluate(data, verbose=0, callbacks=[watch])
    model.predict(data, verbose=0, callbacks=[watch])
    assert [(step.step, step.stage) for step in watch.recording.steps] == [(2, "test"), (5, "predict")]
    for step in watch.recording.steps:
        timeline = step.timeline
        born = timeline.birth >= 0
        made = {
            name: int(timeline.requested_bytes[born & (timeline.category == code)].sum())
            for code, name in enumerate(CATEGORIES)
        }
        # Nothing is kept for a backward pass that does not come; what nobody owns is XLA's tables of pointers.
        assert {name for name, size in made.items() if size} <= {"temporaries", "inputs", "other", "unattributed"}
        assert made["unattributed"] <= 0.01 * sum(made.values())
        assert made["temporaries"] >= 32 * 128 * FLOAT
        assert {PHASES[code] for code in np.unique(timeline.phase[born])} <= {"input", "forward", "between"}
        assert requested(step, -1)["weights"] == size(model.weights)
    found = row(watch, "it")
    assert (found.weights_bytes, found.output_bytes) == (FLOAT * (1024 * 128 + 128), 32 * 128 * FLOAT)
    assert (found.gradients_bytes, found.activations_bytes, found.optimizer_bytes) == (None, 0, 0)


def test_batch_of_another_size_has_other_activations_and_the_same_weights(build: Any, fitted: Any) -> None:
    case = build("mlp", optimizer="adam")
    found = {8: row(fitted("mlp", "graph", "adam"), "dense")}
    found[16] = row(traced(case.model, case.x[:16], case.y[:16]), "dense")
    assert found[16].output_bytes == 2 * found[8].output_bytes == 2 * 8 * 32 * FLOAT
    assert found[16].activations_bytes == 2 * found[8].activations_bytes
    for column in ("weights_bytes", "gradients_bytes", "optimizer_bytes"):
        assert getattr(found[16], column) == getattr(found[8], column)


def test_what_is_stored_is_what_was_traced(build: Any, tools: Any, tmp_path: Path) -> None:
    case = build("cnn")
    watch = traced(case.model, case.x[:8], case.y[:8], log_dir=tmp_path)
    stored = tools.read_back(watch, tmp_path)
    [step], [held] = stored.steps, watch.recording.steps
    for name, values in vars(held.timeline).items():
        np.testing.assert_array_equal(getattr(step.timeline, name), values, err_msg=name)
    assert stored.report.peak.by_layer == watch.report.peak.by_layer
    assert stored.report.layers == watch.report.layers
    assert stored.report.coverage == watch.report.coverage
