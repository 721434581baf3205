"""Tracing leaves nothing behind, gives way to others, and changes nothing of what is trained."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from leftovers import changed, functions

from kerasmemwatch.attribution.hooks.layer_hooks import LayerHooks
from kerasmemwatch.attribution.variables import live_objects
from kerasmemwatch.records.timeline import PHASES
from kerasmemwatch.tracing import captures
from kerasmemwatch.watch.memory_session import MemorySession
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

MODES: dict[str, dict[str, bool]] = {
    "graph": {"jit_compile": False},
    "eager": {"run_eagerly": True, "jit_compile": False},
    "xla": {"jit_compile": True},
}


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    before = functions()
    assert changed(before) == []
    monkeypatch.setattr(keras.layers.Layer, "__call__", lambda self: None)
    monkeypatch.setattr(keras.layers.Dense, "added", lambda self: None, raising=False)
    names = {place[1:] for place in changed(before)}
    assert {("Layer", "__call__"), ("Dense", "added")} <= names


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_after_a_fit(build: Any, tmp_path: Path, mode: str) -> None:
    case = build("cnn", **MODES[mode])
    watch = MemoryWatch(tmp_path, trace=[2, 4], strict=True)
    case.fit(callbacks=[watch])
    assert len(watch.recording.steps) == 2
    # The model's own functions are those that Keras made.
    assert case.model.train_function.__module__.partition(".")[0] in ("keras", "tensorflow")
    [run] = tmp_path.iterdir()
    assert all("xplane" not in path.name and "profile" not in str(path) for path in run.rglob("*"))
    if mode == "eager":
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(case.model(case.x[:1]))
        assert all(gradient is not None for gradient in tape.gradient(loss, case.model.trainable_weights))


class Failing(keras.layers.Layer):
    """Raises when it is called for the n-th time, where it is counted: eagerly each step, else while tracing."""

    def __init__(self, kind: type[BaseException], at: int) -> None:
        super().__init__()
        self.kind, self.at, self.calls = kind, at, 0

    def call(self, inputs: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise self.kind("in a layer")
        return inputs * 2.0


def failing_model(kind: type[BaseException], at: int, **compiled: bool) -> keras.Model:
    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.failing, self.head = Failing(kind, at), keras.layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.head(self.failing(inputs))

    model = Model()
    model.compile("sgd", "mse", **compiled)
    return model


def raised_by(fit: Callable[[], Any]) -> tuple[type, str, list[tuple[str, str]]]:
    """The exception that training ends with: class, message, and the frames that are not Keras' filter's."""
    try:
        fit()
    except BaseException as error:
        frames, entry = [], error.__traceback__
        while entry is not None:
            code = entry.tb_frame.f_code
            frames.append((os.path.basename(code.co_filename), code.co_name))
            entry = entry.tb_next
        return type(error), str(error), frames
    raise AssertionError("Nothing was raised.")


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("mode", MODES)
def test_an_exception_in_a_traced_step_is_the_same_as_without(mode: str, kind: type[BaseException]) -> None:
    x, y = np.ones((32, 3), np.float32), np.ones((32, 1), np.float32)

    def fit(callbacks: list[Any]) -> Callable[[], Any]:
        # Keras calls it to build the model; then eagerly each step, or once while the step's graph is made.
        model = failing_model(kind, 3 if mode == "eager" else 2, **MODES[mode])
        return lambda: model.fit(x, y, batch_size=8, verbose=0, callbacks=callbacks)

    plain = raised_by(fit([keras.callbacks.Callback()]))
    watch = MemoryWatch(None, trace=[1, 2, 3], strict=True)
    watched = raised_by(fit([watch]))
    assert watched[:2] == plain[:2]
    # No frame of ours between Keras' own.
    assert [frame for frame in watched[2] if frame not in plain[2]] == []
    assert issubclass(plain[0], kind)


class FailingOperation(keras.layers.Layer):
    """Its operation fails, or the gradient of its operation."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def call(self, inputs: Any) -> Any:
        if self.where == "operation":
            return tf.gather(inputs, [99])
        # It has no gradient. The rows are alike, and without an identity rounding would tell whether it succeeds.
        return inputs + tf.linalg.lu(tf.matmul(inputs, inputs, transpose_a=True) + tf.eye(3))[0][0]


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("where", ["operation", "gradient"])
def test_a_failing_operation_in_a_traced_step_is_the_same_as_without(where: str) -> None:
    x, y = np.ones((32, 3), np.float32), np.ones((32, 1), np.float32)

    def fit(callbacks: list[Any]) -> Callable[[], Any]:
        model = keras.Sequential([keras.layers.Dense(3), FailingOperation(where), keras.layers.Dense(1)])
        model.compile("sgd", "mse", **MODES["eager"])
        return lambda: model.fit(x, y, batch_size=8, verbose=0, callbacks=callbacks)

    plain = raised_by(fit([keras.callbacks.Callback()]))
    watched = raised_by(fit([MemoryWatch(None, trace=[1], strict=True)]))
    assert watched[0] is plain[0]
    assert issubclass(plain[0], {"operation": tf.errors.InvalidArgumentError, "gradient": LookupError}[where])
    assert [frame for frame in watched[2] if frame not in plain[2]] == []


@pytest.mark.usefixtures("nothing_is_left")
def test_a_tape_of_a_traced_step_is_used_when_the_hooks_are_gone() -> None:
    tapes: list[tuple[tf.GradientTape, Any]] = []

    class Keeping(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1, use_bias=False)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with tf.GradientTape(persistent=True) as tape:
                loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
            self.optimizer.apply_gradients(
                zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
            )
            tapes.append((tape, loss))
            return {"loss": loss}

    def train(callbacks: list[Any]) -> list[Any]:
        tapes.clear()
        keras.utils.set_random_seed(0)
        model = Keeping()
        model.compile("sgd", **MODES["eager"])
        model.fit(x, y, batch_size=8, verbose=0, shuffle=False, callbacks=callbacks)
        return [tape.gradient(loss, model.trainable_weights)[0].numpy() for tape, loss in tapes]

    x, y = np.random.default_rng(0).random((32, 3), np.float32), np.ones((32, 1), np.float32)
    watch = MemoryWatch(None, trace=[1, 3], strict=True)
    watched = train([watch])
    assert [step.step for step in watch.recording.steps] == [1, 3]
    np.testing.assert_array_equal(watched, train([]))


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(("kind", "watch_first"), [(ValueError, True), (KeyboardInterrupt, False)])
@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end", "on_epoch_begin", "on_train_begin"])
def test_nothing_is_left_after_another_callback_raised(
    build: Any, tools: Any, hook: str, kind: type[BaseException], watch_first: bool
) -> None:
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == (2 if "batch" in hook else 1):
            raise kind("of another callback")

    case, watch = build("mlp"), MemoryWatch(None, trace=[1, 2, 3], strict=True)
    other = tools.callback(**{hook: fail})
    with pytest.raises(kind):
        case.fit(callbacks=[watch, other] if watch_first else [other, watch])


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_model_that_was_trained_before_says_so(build: Any, mode: str) -> None:
    case = build("mlp", **MODES[mode])
    case.fit()
    watch = MemoryWatch(None, trace=[2], strict=True)
    case.fit(callbacks=[watch])
    [step] = watch.recording.steps
    assert any("before the watch" in note for note in step.notes)
    assert any("before the watch" in note for note in watch.report.notes)
    # What Python knows is known all the same.
    weights = sum(layer.weights_bytes for layer in watch.report.layers)
    assert weights == sum(variable.numpy().nbytes for variable in case.model.weights)


def test_model_that_was_trained_with_a_watch_needs_no_note(build: Any) -> None:
    case = build("mlp")
    watch = MemoryWatch(None, trace=[2, 10], strict=True)
    case.fit(callbacks=[watch])
    case.fit(callbacks=[watch])
    assert [step.step for step in watch.recording.steps] == [2, 10]
    assert [step.notes for step in watch.recording.steps] == [(), ()]


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("watch_first", [True, False])
def test_tensorboards_profile_has_precedence(build: Any, tmp_path: Path, watch_first: bool) -> None:
    case, watch = build("cnn"), MemoryWatch(tmp_path / "ours", trace=[2, 3, 6])
    theirs = keras.callbacks.TensorBoard(str(tmp_path / "theirs"), profile_batch=(2, 4))
    case.fit(callbacks=[watch, theirs] if watch_first else [theirs, watch])
    [profile] = (tmp_path / "theirs").rglob("*.xplane.pb")
    assert profile.stat().st_size > 1000
    assert [step.step for step in watch.recording.steps] == [6]
    assert any("profiler" in note for note in watch.recording.run.notes)
    assert not list((tmp_path / "ours").rglob("*xplane*"))


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(("watch_first", "trace"), [(True, "auto"), (False, [1])])
def test_tensorboards_profile_of_the_first_step_has_precedence(
    build: Any, tmp_path: Path, watch_first: bool, trace: Any
) -> None:
    case, watch = build("cnn"), MemoryWatch(tmp_path / "ours", trace=trace)
    theirs = keras.callbacks.TensorBoard(str(tmp_path / "theirs"), profile_batch=1)
    case.fit(callbacks=[watch, theirs] if watch_first else [theirs, watch])
    [profile] = (tmp_path / "theirs").rglob("*.xplane.pb")
    assert profile.stat().st_size > 1000
    steps = [step.step for step in watch.recording.steps]
    assert 1 not in steps
    if trace == [1]:
        assert steps == []
        assert any("another profiler session is active" in note for note in watch.recording.run.notes)
    else:
        assert steps  # later ones


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_a_users_own_profile_has_precedence(build: Any, tmp_path: Path, mode: str) -> None:
    case, watch = build("cnn", **MODES[mode]), MemoryWatch(None, trace=[2, 4])
    tf.profiler.experimental.start(str(tmp_path))
    try:
        case.fit(callbacks=[watch])
    finally:
        tf.profiler.experimental.stop()
    [profile] = tmp_path.rglob("*.xplane.pb")
    assert profile.stat().st_size > 1000
    assert watch.recording.steps == ()
    assert any("profiler" in note for note in watch.recording.run.notes)
    assert watch.report.coverage is None
    assert watch.report.peak.requested_bytes is None


def test_a_profile_that_begins_within_a_traced_step_is_theirs(build: Any, tmp_path: Path) -> None:
    class Profiled(keras.layers.Layer):
        calls = 0

        def call(self, inputs: Any) -> Any:
            self.calls += 1
            if self.calls == 3:  # once to build the model
                tf.profiler.experimental.start(str(tmp_path))
            return inputs

    model = keras.Sequential([Profiled(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    watch = MemoryWatch(None, trace=[2, 4])
    try:
        model.fit(np.ones((32, 3)), np.ones((32, 1)), batch_size=8, verbose=0, callbacks=[watch])
    finally:
        tf.profiler.experimental.stop()
    assert list(tmp_path.rglob("*.xplane.pb"))
    assert watch.recording.steps == ()
    assert any("profiler" in note for note in watch.recording.run.notes)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "mode", "optimizer"),
    [
        ("cnn", "graph", "adam"),
        ("lstm", "graph", "sgd"),
        ("cnn", "eager", "sgd"),
        ("raw_variable", "eager", "adam"),
        ("cnn", "xla", "sgd"),
    ],
)
def test_weights_are_bit_identical_with_every_step_traced(build: Any, name: str, mode: str, optimizer: str) -> None:
    def trained(callbacks: list[Any]) -> list[bytes]:
        case = build(name, optimizer=optimizer, **MODES[mode])
        case.model.fit(case.x[:48], case.y[:48], batch_size=8, verbose=0, callbacks=callbacks)
        assert int(case.model.optimizer.iterations) == 6
        variables = [*case.model.variables, *case.model.optimizer.variables, *case.raw]
        return [np.asarray(variable.numpy()).tobytes() for variable in variables]

    watch = MemoryWatch(None, trace=list(range(1, 7)), strict=True)
    assert trained([watch]) == trained([])
    # Before the first step's graph is made there is nothing to look at; all others are there.
    assert {step.step for step in watch.recording.steps} >= set(range(2, 7))


def test_auto_takes_the_second_step_and_a_later_one(build: Any) -> None:
    case, watch = build("cnn"), MemoryWatch(None, strict=True)
    case.model.fit(case.dataset(40), shuffle=False, verbose=0, callbacks=[watch])
    steps = [step.step for step in watch.recording.steps]
    assert steps[0] == 2
    assert 2 <= len(steps) <= 4
    assert all(step.reason for step in watch.recording.steps)


@pytest.mark.long
def test_auto_looks_again_when_batches_are_larger(build: Any) -> None:
    case, watch = build("cnn"), MemoryWatch(None, strict=True)
    small, large = (tf.data.Dataset.from_tensors((case.x[:rows], case.y[:rows])) for rows in (8, 64))
    data = small.repeat(20).concatenate(large.repeat(120))
    case.model.fit(data, shuffle=False, verbose=0, callbacks=[watch])
    steps = watch.recording.steps
    assert len(steps) <= 6
    # One change is one reason. How soon it is seen depends on how busy the machine is.
    first = min(step.step for step in steps if step.step > 20)
    assert sum(first <= step.step < first + 20 for step in steps) == 1
    assert watch.report.peak.requested_bytes > 0


TRACED_FIT = """
import keras, numpy
from kerasmemwatch import MemoryWatch

model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(4)])
model.compile("sgd", "mse")
watch = MemoryWatch(None, trace=[2], strict=True)
model.fit(numpy.ones((32, 16)), numpy.ones((32, 4)), batch_size=8, verbose=0, callbacks=[watch])
assert watch.recording.steps
"""


@pytest.mark.long
def test_tensorflow_does_not_warn_of_how_it_is_asked_to_record(run_python: Any) -> None:
    done = run_python(TRACED_FIT, TF_CPP_MIN_LOG_LEVEL="1")
    assert "tracer_level" not in done.stderr
    assert "delay_ms" not in done.stderr


def test_off_traces_nothing(build: Any) -> None:
    case, watch = build("mlp"), MemoryWatch(None, trace=False, strict=True)
    case.fit(callbacks=[watch])
    assert watch.recording.steps == ()
    assert watch.report.coverage is None
    assert watch.report.peak.by_category == {}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What happens in turn: ``"search"`` is one among all objects that are alive."""
    happened, objects = list[Any](), gc.get_objects

    def searched(generation: int | None) -> list[Any]:
        happened.extend(["search"] if generation is None else [])
        return objects(generation)

    monkeypatch.setattr(live_objects, "gc", SimpleNamespace(get_objects=searched, callbacks=gc.callbacks))
    return happened


def searches(log: list[Any], begin: Any, end: Any) -> int:
    """How many there were from one thing to another."""
    return log[log.index(begin) : log.index(end)].count("search")


class LoggedSteps(keras.callbacks.Callback):
    def __init__(self, log: list[Any]) -> None:
        super().__init__()
        self.log = log

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.log.append(("begin", batch + 1))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.log.append(("end", batch + 1))


def test_the_search_for_what_is_alive_comes_steps_before_the_traced_one(build: Any, log: list[Any]) -> None:
    case, watch = build("mlp"), MemoryWatch(None, trace=[6], strict=True)
    case.model.fit(case.x[:64], case.y[:64], batch_size=8, verbose=0, callbacks=[LoggedSteps(log), watch])
    assert watch.report.traced_steps == (6,)
    assert searches(log, ("begin", 3), ("end", 3)) == 1
    # None before the step's function runs: whatever follows it is the watch's look at the end.
    assert searches(log, ("end", 3), ("end", 6)) == 0


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="generations are others")
@pytest.mark.parametrize("collects", [False, True])
def test_what_is_alive_is_followed_from_one_traced_step_to_the_next(build: Any, log: list[Any], collects: bool) -> None:
    class Keeps(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch + 1 == 5:
                kept.append(tf.ones((1_000, 77)))
                if collects:
                    gc.collect()

    kept: list[Any] = []
    case, watch = build("mlp"), MemoryWatch(None, strict=True)
    case.fit_steadily(12, callbacks=[LoggedSteps(log), Keeps(), watch])
    assert watch.report.traced_steps == (2, 10)
    assert searches(log, ("begin", 2), ("begin", 3)) == 1
    assert searches(log, ("begin", 3), ("end", 12)) == 0
    timeline = watch.recording.steps[1].timeline
    (row,) = np.flatnonzero(timeline.requested_bytes == 308_000)
    assert (timeline.owners[timeline.owner[row]], timeline.birth[row]) == ("eager tensors", -1)


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_hooks_wait_for_a_function_that_is_made(build: Any, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    class Steps(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            happened.append(batch + 1)
            if batch + 1 == 4:
                case.model.make_train_function(force=True)

    happened, install = list[Any](), LayerHooks.installed
    monkeypatch.setattr(LayerHooks, "installed", lambda self: (happened.append("hooks"), install(self))[1])
    case = build("mlp", **MODES[mode])
    watch = MemoryWatch(None, trace=[2, 4], strict=True)
    case.model.fit(case.x[:40], case.y[:40], batch_size=8, verbose=0, callbacks=[Steps(), watch])
    assert happened == [1, "hooks", 2, 3, 4, "hooks", 5]
    learning = {layer.name for layer in case.model.layers if layer.count_params()}
    assert [step.step for step in watch.recording.steps] == [2, 4]
    for step in watch.recording.steps:
        births = np.isin(step.timeline.phase, [PHASES.index("forward"), PHASES.index("backward")])
        owners = np.array(step.timeline.owners)[step.timeline.owner[births & (step.timeline.birth >= 0)]]
        assert learning <= set(owners)
        assert "unattributed" not in owners


def test_the_search_is_not_lost_in_a_loop(build: Any, log: list[Any]) -> None:
    case = build("mlp")
    with MemorySession(case.model, None, trace=[6], strict=True) as session:
        for number in range(1, 8):
            with session.step():
                log.append(("step", number))
                case.model(case.x[:8])
    assert session.report.traced_steps == (6,)
    assert searches(log, ("step", 4), ("step", 5)) == 1
    assert searches(log, ("step", 5), ("step", 6)) == 0


def test_nothing_is_searched_for_between_single_batches(build: Any, log: list[Any]) -> None:
    case = build("mlp")
    watch = MemoryWatch(None, trace=[3], strict=True)
    for number in range(1, 5):
        with watch.batch(case.model):
            log.append(("batch", number))
            case.model.train_on_batch(case.x[:8], case.y[:8])
    assert watch.report.traced_steps == (3,)
    assert searches(log, ("batch", 2), ("batch", 3)) == 0
    assert searches(log, ("batch", 3), ("batch", 4)) >= 1


@pytest.mark.parametrize("enabled", [True, False])
def test_an_analysis_leaves_garbage_collection(build: Any, monkeypatch: pytest.MonkeyPatch, enabled: bool) -> None:
    analyse, collecting = captures.analysed, list[bool]()
    monkeypatch.setattr(captures, "analysed", lambda *given: (collecting.append(gc.isenabled()), analyse(*given))[1])
    case = build("mlp")
    (gc.enable if enabled else gc.disable)()
    try:
        watch = MemoryWatch(None, trace=[2], strict=True)
        case.model.fit(case.x[:16], case.y[:16], batch_size=8, verbose=0, callbacks=[watch])
        assert watch.report.traced_steps == (2,)
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
    assert collecting == [enabled]
