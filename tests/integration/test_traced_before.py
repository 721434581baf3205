"""A search of short fits: two of a kind are traced, and the others show those steps and say so."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.analysis.steps.live_set import by_category, highest_step, peak_event
from kerasmemwatch.tracing.step_tracer import StepTracer
from kerasmemwatch.tracing.traced_before import TRACED
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

NUM_FITS = 5
OWN = ("weights", "optimizer", "gradients", "activations", "temporaries")


@pytest.fixture(autouse=True)
def _tracing_is_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading of the clock is a second later: whatever is noted took more than one in a hundred."""
    seconds = count()
    monkeypatch.setattr(TRACED, "_clock", lambda: float(next(seconds)))
    TRACED.clear()


@pytest.fixture
def fit(tools: Any) -> Callable[..., MemoryWatch]:
    import tensorflow as tf

    def fit(
        log_dir: Path | None = None, *, units: int = 32, optimizer: str = "sgd", steps: int = 12, **options: Any
    ) -> MemoryWatch:
        model = options.pop("model", None)
        if model is None:
            layers = [keras.Input((16,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(4)]
            model = keras.Sequential(layers)
            model.compile(optimizer, "mse", jit_compile=False)
        rows = options.pop("rows", 8)
        data = tf.data.Dataset.from_tensors((np.ones((rows, 16), "float32"), np.ones((rows, 4), "float32")))
        data = data.repeat(steps)
        if options.pop("is_filtered", False):
            data = data.filter(lambda x, y: True)  # so how many steps there are is not known
        watch = MemoryWatch(log_dir, **{"strict": True, **options})
        model.fit(data, shuffle=False, verbose=0, callbacks=[watch])
        return watch

    return fit


def is_traced(watch: MemoryWatch) -> bool:
    steps = watch.recording.steps
    assert steps
    assert watch.report.traced_steps == tuple(one.step for one in steps if one.measured_in is None)
    return bool(watch.report.traced_steps)


def test_of_five_fresh_models_two_are_traced_and_all_reports_agree(fit: Any, tmp_path: Path, tools: Any) -> None:
    watches = [fit(tmp_path, run_name=f"trial-{number}") for number in range(NUM_FITS)]
    assert [is_traced(watch) for watch in watches] == [True] * 2 + [False] * (NUM_FITS - 2)
    # The second's own report is about the step with its peak; of the same height, the others show the other one.
    shown = highest_step(watches[1].recording.steps)
    second = by_category(shown.timeline, peak_event(shown.timeline))
    for watch in watches[2:]:
        report = watch.report
        assert {name: report.peak.by_category[name] for name in OWN} == {name: second[name] for name in OWN}
        # The rows are this model's layers, by the names that they have here.
        mine = {row.path for row in report.layers if row.class_name}
        assert {"dense" in path for path in mine} == {True}
        assert {layer.path for layer in watch.recording.layers if layer.class_name} == mine
        assert report.traced is not None
        assert report.traced.measured_in == "trial-1"
    text, step = " ".join(watches[-1].report.text().split()), report.traced.step
    assert step in (2, 10)  # both are of one height, but for the allocator's rounding
    assert f"At the traced peak (training step {step} of run 'trial-1', graph)" in text
    assert f"This fit was not traced. Shown is training step {step} of run 'trial-1'" in text
    assert f"The memory of layers was measured not in this fit but in step {step} of run 'trial-1'" in text
    stored = tools.read_back(watches[-1], tmp_path, f"trial-{NUM_FITS - 1}")
    assert [one.measured_in for one in stored.steps] == ["trial-1"] * 2


def test_a_fit_that_shows_others_has_no_hooks(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(), fit()
    calls: list[str] = []
    around = StepTracer.around
    monkeypatch.setattr(
        StepTracer, "around", lambda self, *args, **named: calls.append("") or around(self, *args, **named)
    )
    assert not is_traced(fit())
    assert calls == []


@pytest.mark.long
def test_what_is_not_alike_is_traced(fit: Any) -> None:
    fit(), fit()
    assert not is_traced(fit())
    for changed in ({"units": 48}, {"optimizer": "adam"}, {"rows": 64}, {"trace": [2]}):
        assert is_traced(fit(**changed)), changed


def test_a_model_that_is_compiled_anew_is_traced(fit: Any) -> None:
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(4)])
    model.compile("sgd", "mse", jit_compile=False)  # whose slots are in a list that its first step makes
    assert [is_traced(fit(model=model)) for _ in range(3)] == [True, True, False]
    model.compile("rmsprop", "mse", jit_compile=False)
    assert is_traced(fit(model=model))


@pytest.mark.long
def test_a_model_that_is_built_in_its_first_step_is_known_then(fit: Any) -> None:
    def model() -> keras.Model:
        made = keras.Sequential([keras.layers.Dense(32, "relu"), keras.layers.Dense(4)])
        made.compile("sgd", "mse", jit_compile=False)
        return made

    assert [is_traced(fit(model=model())) for _ in range(4)] == [True, True, False, False]


def test_short_fits_show_others_steps_at_their_end(fit: Any) -> None:
    assert [is_traced(fit(steps=4)) for _ in range(4)] == [True, True, False, False]


class Growing(keras.layers.Layer):
    """Needs more memory than its attributes tell."""

    size = 1

    def call(self, inputs: Any) -> Any:
        wide = keras.ops.tile(inputs, (1, type(self).size))
        return inputs + keras.ops.mean(keras.ops.relu(wide), 1, keepdims=True)


def test_a_fit_whose_peaks_are_others_is_traced_after_all(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def model() -> keras.Model:
        made = keras.Sequential([keras.Input((16,)), Growing(), keras.layers.Dense(4)])
        made.compile("sgd", "mse", jit_compile=False)
        return made

    assert [is_traced(fit(model=model())) for _ in range(3)] == [True, True, False]
    monkeypatch.setattr(Growing, "size", 500)
    watch = fit(model=model())
    assert [(one.reason, one.measured_in) for one in watch.recording.steps] == [
        ("the peak was higher than in a fit that seemed alike", None)
    ]
    assert any("made without hooks" in note for note in watch.report.notes)
    # The next one is traced from its first step on, and then shown.
    following = [fit(model=model()) for _ in range(2)]
    assert [is_traced(watch) for watch in following] == [True, False]
    assert not any("made without hooks" in note for watch in following for note in watch.report.notes)
    assert following[1].report.peak.by_category["activations"] == following[0].report.peak.by_category["activations"]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("is_known", [True, False], ids=["length known", "length unknown"])
def test_a_short_fit_whose_peaks_are_others_is_traced_or_says_why_not(
    fit: Any, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    def short() -> MemoryWatch:
        model = keras.Sequential([keras.Input((16,)), Growing(), keras.layers.Dense(4)])
        model.compile("sgd", "mse", jit_compile=False)
        return fit(model=model, steps=4, is_filtered=not is_known)

    short(), short()
    monkeypatch.setattr(Growing, "size", 500)
    watch = short()
    assert watch.report.traced_steps == ((4,) if is_known else ())
    told = any("higher than in the fits whose steps were to be shown" in note for note in watch.report.notes)
    assert told is not is_known


def test_one_watch_for_many_fits_has_each_step_once(fit: Any) -> None:
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(4)])
    model.compile("adam", "mse", jit_compile=False)
    watch = MemoryWatch(None, strict=True)
    x, y = np.ones((96, 16), "float32"), np.ones((96, 4), "float32")
    for _ in range(4):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[watch])
    assert [(one.step, one.measured_in) for one in watch.recording.steps] == [
        (2, None),
        (10, None),
        (14, None),
        (22, None),
    ]


@pytest.mark.long
def test_a_validation_is_shown_too_and_each_stage_says_whose_it_is(fit: Any) -> None:
    x, y = np.ones((96, 16), "float32"), np.ones((96, 4), "float32")
    found = []
    for _ in range(4):
        model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(4)])
        model.compile("sgd", "mse", jit_compile=False)
        watch = MemoryWatch(None, strict=True)
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0, validation_data=(x[:48], y[:48]), callbacks=[watch])
        found.append({one.stage: one.measured_in for one in watch.recording.steps})
    assert found == [{"train": None, "test": None}] * 2 + [{"train": "", "test": ""}] * 2
