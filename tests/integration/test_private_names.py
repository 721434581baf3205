"""The installed TensorFlow, Keras and TensorBoard have every private name; without one, only its feature is lost."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorboard
import tensorflow as tf

import kerasmemwatch as kmw
from kerasmemwatch.compat import keras as keras_names
from kerasmemwatch.compat import names
from kerasmemwatch.compat import tensorboard as tensorboard_names
from kerasmemwatch.compat import tensorflow as tensorflow_names
from kerasmemwatch.compat.names import Name
from kerasmemwatch.errors import MissingNameError
from kerasmemwatch.tensorboard_plugin.loader import MemoryLoader

VERSIONS = {
    "keras": f"Keras {keras.__version__}",
    "tensorboard": f"TensorBoard {tensorboard.__version__}",
    "tensorflow": f"TensorFlow {tf.__version__}",
}


def names_of(module: Any) -> dict[str, Name]:
    """The names that a module of ``compat`` lists, each by how it reads."""
    found: dict[str, Name] = {}
    for value in vars(module).values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Name):
                found[repr(each)] = each
    return found


ALL = {**names_of(tensorflow_names), **names_of(keras_names), **names_of(tensorboard_names)}


@pytest.mark.every
@pytest.mark.parametrize("name", ALL.values(), ids=repr)
def test_the_installed_release_has_it(name: Name) -> None:
    assert name.error() is None


def test_every_name_says_what_is_lost() -> None:
    assert len(ALL) > 60
    assert all(name.lost.endswith(".") and name.lost[0].isupper() for name in ALL.values())


# -- without one ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[[Name], None]:
    def hide(name: Name) -> None:
        def find(wanted: Name) -> Any:
            if wanted is name:
                raise AttributeError("hidden by a test")
            return original(wanted)

        original = names.find
        monkeypatch.setattr(names, "find", find)
        monkeypatch.setattr(name, "_owner", None)
        monkeypatch.setattr(name, "_reason", "")

    return hide


@dataclass
class Outcome:
    """What came of a training: its numbers, the lines about it, and what was recorded."""

    weights: list[bytes]
    lines: set[str]
    recorded: Any
    traced: list[int]


def _model(**options: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "tanh", name="dense"),
            keras.layers.Dropout(0.5, name="dropout"),
            keras.layers.Dense(1, name="head"),
        ]
    )
    model.compile(**{"optimizer": "sgd", "loss": "mse", "jit_compile": False, **options})
    return model


X, Y = np.ones((12, 8), "float32"), np.ones((12, 1), "float32")


def _outcome(model: Any, recording: Any) -> Outcome:
    lines = set(recording.run.notes).union(*(step.notes for step in recording.steps))
    # Slow figures of the host are read when there is time.
    columns = {name: column for name, column in recording.samples.items() if name.startswith("device_")}
    known = {name: bool(np.isfinite(column).all()) for name, column in columns.items()}
    weights = {layer.path: layer.weights_bytes for layer in recording.layers if layer.weights_bytes}
    return Outcome(
        [np.asarray(variable).tobytes() for variable in model.variables],
        lines,
        (recording.samples.num_samples, known, weights),
        [step.step for step in recording.steps],
    )


def fit(log_dir: str | None = None, **options: Any) -> Outcome:
    model = _model(**options)
    watch = kmw.MemoryWatch(log_dir=log_dir, trace=[2], verbose=0)
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[watch])
    return _outcome(model, watch.recording)


def eager() -> Outcome:
    return fit(run_eagerly=True)


def tape() -> Outcome:
    model = _model()
    session = kmw.MemorySession(log_dir=None, trace=[2])

    with session:
        for _ in range(3):
            with session.step():
                with kmw.MemoryTape() as tape:
                    loss = tf.reduce_mean((model(X) - Y) ** 2)
                model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return _outcome(model, session.recording)


def summary() -> Outcome:
    model = _model(metrics=["mae"])
    report = kmw.summary(model, batch_size=4, optimizer="sgd", print_fn=lambda text: None)
    return _outcome(model, kmw.Recording(report.run, report.samples, report.layers, report.steps))


@functools.cache
def with_all_names(scenario: Callable[[], Outcome]) -> Outcome:
    return scenario()


T, K, B = tensorflow_names, keras_names, tensorboard_names
EAGER = {T.FAST_EXECUTE, T.CALL_FUNCTION}
TAPES = {T.TAPE, T.TAPE_RECORDS, T.FUNCTION_CALL}
SUMMARY = {*T.SUMMARY, *K.SUMMARY}
# These are told in another way; their tests are below.
ELSEWHERE = {*names_of(B).values(), T.FILTER_MODULE, K.COMPILED[1], *(set(T.RELEASE) - {T.REGISTERED_GRADIENTS})}


def _scenario(name: Name) -> Callable[[], Outcome]:
    return eager if name in EAGER else tape if name in TAPES else summary if name in SUMMARY else fit


@pytest.mark.parametrize("name", [name for name in ALL.values() if name not in ELSEWHERE], ids=repr)
def test_without_it_one_line_says_what_is_lost(name: Name, hide: Callable[[Name], None]) -> None:
    scenario = _scenario(name)
    whole = with_all_names(scenario)
    assert whole.traced
    hide(name)
    found = scenario()
    [line] = found.lines - whole.lines
    assert repr(name) in line and VERSIONS[name.module.partition(".")[0]] in line and name.lost in line
    assert found.weights == whole.weights
    assert found.recorded == whole.recorded
    assert found.traced == ([] if name.lost.startswith("No step is traced") else whole.traced)


def test_without_the_scalars_the_recording_is_written(hide: Callable[[Name], None], tmp_path: Path) -> None:
    hide(B.SCALAR_METADATA)
    found = fit(str(tmp_path))
    [line] = [line for line in found.lines if B.SCALAR_METADATA.lost in line]
    assert VERSIONS["tensorboard"] in line
    assert kmw.load(tmp_path).samples.num_samples == found.recorded[0]


WRITING = [B.EVENT, B.SUMMARY_METADATA, B.DATA_CLASS, B.TENSOR, B.DATA_TYPES]


@pytest.mark.parametrize("name", WRITING, ids=repr)
def test_what_cannot_be_written_stays_in_memory(name: Name, hide: Callable[[Name], None], tmp_path: Path) -> None:
    whole = with_all_names(fit)
    hide(name)
    found = fit(str(tmp_path))
    [line] = [line for line in found.lines if name.lost in line]
    assert repr(name) in line and VERSIONS["tensorboard"] in line
    assert found.weights == whole.weights and found.recorded == whole.recorded and found.traced == whole.traced


def test_what_cannot_be_read_is_an_error_of_ours(hide: Callable[[Name], None], tmp_path: Path) -> None:
    fit(str(tmp_path))
    hide(B.EVENT)
    with pytest.raises(MissingNameError, match=r"event_pb2.Event is not in TensorBoard \d"):
        kmw.load(tmp_path)


def test_without_the_file_interface_nothing_is_written_to_an_url(hide: Callable[[Name], None]) -> None:
    whole = with_all_names(fit)
    hide(B.FILE_INTERFACE)
    found = fit("memory://logs")
    [line] = [line for line in found.lines if B.FILE_INTERFACE.lost in line]
    assert VERSIONS["tensorboard"] in line
    assert found.weights == whole.weights and found.recorded == whole.recorded and found.traced == whole.traced


TAB = [B.REQUEST_CONTEXT, B.EXPERIMENT_ID, B.RESPOND, B.PUBLIC_ERROR, B.RUN_TAG_FILTER]


@pytest.mark.every
@pytest.mark.parametrize("name", TAB, ids=repr)
def test_without_it_there_is_no_tab(name: Name, hide: Callable[[Name], None], caplog: pytest.LogCaptureFixture) -> None:
    context = type("Context", (), {"data_provider": object()})()
    assert MemoryLoader().load(context) is not None
    hide(name)
    with caplog.at_level(logging.WARNING, logger="kerasmemwatch"):
        assert MemoryLoader().load(context) is None
    [record] = caplog.records
    assert f"{name!r} is not in {VERSIONS['tensorboard']}" in record.message


def test_each_name_of_tensorboard_has_a_test() -> None:
    tested = {B.SCALAR_METADATA, *WRITING, B.FILE_INTERFACE, *TAB}
    assert tested == {*names_of(B).values()}


def test_without_what_is_compiled_a_summary_says_so(hide: Callable[[Name], None]) -> None:
    hide(K.COMPILED[1])
    with pytest.raises(MissingNameError, match=r"_compile_metrics is not in Keras \d"):
        summary()


def test_without_its_filter_tensorflow_goes_on(hide: Callable[[Name], None]) -> None:
    from kerasmemwatch.commands.run import autowatch

    hide(T.FILTER_MODULE)
    with autowatch._left_out_by_tensorflow():
        assert float(tf.constant(1.0) + 1.0) == 2.0
