"""What is written is read by both of TensorBoard's loaders, in Python and in Rust."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from loaders import python_provider, rust_providers
from tensorboard import context

from kerasmemwatch.recording import Recording
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.storage.codecs.row_codec import PLUGIN_NAME, decode_rows
from kerasmemwatch.storage.codecs.run_codec import decode_run, encode_run
from kerasmemwatch.storage.codecs.step_codec import decode_step
from kerasmemwatch.storage.sinks.tensorboard import _DENSE_POINTS, RUN_TAG, SAMPLES_TAG, SCALARS, STEPS_TAG
from kerasmemwatch.units import MIB
from kerasmemwatch.watch.memory_session import MemorySession
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

TAGS = {tag: column for column, (tag, _) in SCALARS.items()}
# The server loads on a thread of its own; far more than it needs, for a busy machine.
POLLS, POLL_S = 600, 0.1
# What TensorBoard keeps of a scalar.
KEPT_POINTS = 1000

Load = Callable[[Path, Callable[["Loaded"], bool]], Iterator["Loaded"]]


class Loaded:
    """A log dir as the data provider of one of TensorBoard's loaders shows it."""

    def __init__(self, name: str, provider: Any) -> None:
        self._name, self._provider = name, provider
        self._where: Any = {"experiment_id": "", "ctx": context.RequestContext()}

    def __repr__(self) -> str:
        return f"what the loader in {self._name} has"

    def runs(self) -> set[str]:
        return {run.run_name for run in self._provider.list_runs(**self._where)}

    def scalar_tags(self) -> dict[str, dict[str, Any]]:
        return dict(self._provider.list_scalars(**self._where, plugin_name="scalars"))

    def scalars(self, run: str) -> dict[str, list[Any]]:
        found = self._provider.read_scalars(**self._where, plugin_name="scalars", downsample=10_000)
        return dict(found.get(run, {}))

    def tensor_tags(self, run: str) -> dict[str, Any]:
        return dict(self._provider.list_tensors(**self._where, plugin_name=PLUGIN_NAME).get(run, {}))

    def tensors(self, run: str) -> dict[str, list[Any]]:
        found = self._provider.read_tensors(**self._where, plugin_name=PLUGIN_NAME, downsample=10_000)
        return dict(found.get(run, {}))


@pytest.fixture
def load() -> Iterator[Load]:
    """``load(log_dir, is_complete)``: what each loader shows once it has read everything."""
    with rust_providers() as rust_provider:

        def load(log_dir: Path, is_complete: Callable[[Loaded], bool]) -> Iterator[Loaded]:
            yield Loaded("Python", python_provider(log_dir))
            loaded, never = Loaded("Rust", rust_provider(log_dir)), threading.Event()
            for _ in range(POLLS):
                if is_complete(loaded):
                    break
                never.wait(POLL_S)
            yield loaded

        yield load


def complete(recording: Recording) -> Callable[[Loaded], bool]:
    """Whether a run's newest rows have been loaded."""
    name, last = recording.run.name, int(recording.samples["step"][-1])

    def is_complete(loaded: Loaded) -> bool:
        tags = loaded.scalar_tags().get(name, {})
        chunks = [tag.max_step for name, tag in loaded.tensor_tags(name).items() if name.startswith(SAMPLES_TAG)]
        if len(tags) < len(TAGS) or any(tag.max_step < last for tag in tags.values()) or last not in chunks:
            return False
        described = loaded.tensors(name).get(RUN_TAG)
        return bool(described) and _payload(described[-1]) == encode_run(recording.run, recording.layers)

    return is_complete


def _payload(datum: Any) -> bytes:
    return bytes(datum.numpy.reshape(-1)[0])


def check_scalars(loaded: Loaded, recording: Recording) -> None:
    """Documented tags only; steps increase; each point is the maximum of the rows since the last."""
    scalars, samples = loaded.scalars(recording.run.name), recording.samples
    assert scalars.keys() == TAGS.keys()
    for tag, points in scalars.items():
        steps = [point.step for point in points]
        assert steps[-1] == samples["step"][-1]
        assert (np.diff(steps) > 0).all()
        starts = np.searchsorted(samples["step"], [0, *steps[:-1]], side="right")
        highest = np.maximum.reduceat(samples[TAGS[tag]].reshape(samples.num_samples), starts) / MIB
        np.testing.assert_array_equal(np.float32([point.value for point in points]), highest.astype("float32"))


def check_tensors(loaded: Loaded, recording: Recording) -> None:
    """The tensors alone are the whole recording."""
    name = recording.run.name
    tags = loaded.tensor_tags(name)
    tensors = loaded.tensors(name)
    assert tags.keys() == tensors.keys()
    chunks = sorted(tag for tag in tags if tag.startswith(SAMPLES_TAG))
    traced = sorted(tag for tag in tags if tag.startswith(STEPS_TAG))
    assert sorted(tags) == sorted([RUN_TAG, *chunks, *traced])
    for tag in tags.values():
        assert tag.plugin_content == b"1"
    assert all(len(tensors[tag]) == 1 for tag in (*chunks, *traced))
    steps = [decode_step(_payload(tensors[tag][0])) for tag in traced]
    assert [step.step for step in steps] == [step.step for step in recording.steps] != []
    rows = to_samples(decode_rows(_payload(tensors[tag][0])) for tag in chunks)
    assert set(rows) == set(recording.samples)
    for column, values in recording.samples.items():
        np.testing.assert_array_equal(rows[column], values, err_msg=column)
    run, layers = decode_run(_payload(tensors[RUN_TAG][-1]))
    assert (run, layers) == (recording.run, recording.layers)


def test_one_fit(build: Any, tools: Any, tmp_path: Path, load: Load) -> None:
    case, watch = build("cnn"), MemoryWatch(tmp_path, strict=True)
    case.fit(epochs=3, validation_split=0.25, callbacks=[watch])
    recording = tools.read_back(watch, tmp_path)
    for loaded in load(tmp_path, complete(recording)):
        assert loaded.runs() == {recording.run.name}
        check_scalars(loaded, recording)
        check_tensors(loaded, recording)
        tags = loaded.scalar_tags()[recording.run.name]
        assert {tag: found.description for tag, found in tags.items()} == dict(SCALARS.values())


@pytest.mark.long
def test_a_long_fit_has_fewer_points_with_every_maximum(build: Any, tools: Any, tmp_path: Path, load: Load) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.fit_steadily(1500, callbacks=[watch])
    recording = tools.read_back(watch, tmp_path)
    for loaded in load(tmp_path, complete(recording)):
        check_scalars(loaded, recording)
        check_tensors(loaded, recording)
        for points in loaded.scalars(recording.run.name).values():
            # Each flush ends a window, and how many there are is a matter of time.
            assert _DENSE_POINTS <= len(points) < KEPT_POINTS


def test_several_fits(build: Any, tools: Any, tmp_path: Path, load: Load) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.fit(epochs=2, callbacks=[watch])
    case.model.evaluate(case.x, case.y, batch_size=8, verbose=0, callbacks=[watch])
    case.fit(callbacks=[watch])
    recording = tools.read_back(watch, tmp_path)
    assert recording.samples["step"].tolist() == list(range(1, 33))
    for loaded in load(tmp_path, complete(recording)):
        check_scalars(loaded, recording)
        check_tensors(loaded, recording)


def test_a_session(build: Any, tools: Any, tmp_path: Path, load: Load) -> None:
    case, optimizer = build("cnn"), keras.optimizers.Adam()

    @tf.function
    def train(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(case.model(x, training=True) - y))
        optimizer.apply(tape.gradient(loss, case.model.trainable_weights), case.model.trainable_weights)

    with MemorySession(case.model, tmp_path, trace=[2, 5, 12], strict=True) as session:
        for _ in session.epochs(2):
            for x, y in session.steps(case.dataset(4)):
                train(x, y)
            for x, _ in session.steps(case.dataset(2), stage="test"):
                case.model(x)
    recording = tools.read_back(session, tmp_path)
    assert [step.step for step in recording.steps] == [2, 5, 12]
    for loaded in load(tmp_path, complete(recording)):
        assert loaded.runs() == {recording.run.name}
        check_scalars(loaded, recording)
        check_tensors(loaded, recording)
        tags = loaded.scalar_tags()[recording.run.name]
        assert {tag: found.description for tag, found in tags.items()} == dict(SCALARS.values())


@pytest.mark.parametrize("order", [1, -1])
def test_beside_the_callback_of_keras(build: Any, tools: Any, tmp_path: Path, load: Load, order: int) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    theirs = keras.callbacks.TensorBoard(str(tmp_path), update_freq="batch")
    case.fit(epochs=2, validation_split=0.25, callbacks=[watch, theirs][::order])
    recording = tools.read_back(watch, tmp_path)

    def is_complete(loaded: Loaded) -> bool:
        epochs = loaded.scalar_tags().get("validation", {}).get("epoch_loss")
        return complete(recording)(loaded) and epochs is not None and epochs.max_step == 1

    for loaded in load(tmp_path, is_complete):
        assert loaded.runs() == {recording.run.name, "train", "validation"}
        check_scalars(loaded, recording)
        check_tensors(loaded, recording)
        assert not [tag for run in ("train", "validation") for tag in loaded.scalars(run) if tag in TAGS]
        assert [point.step for point in loaded.scalars("validation")["epoch_loss"]] == [0, 1]


def test_after_a_resume(build: Any, tools: Any, tmp_path: Path, load: Load) -> None:
    logs = tmp_path / "logs"
    for epochs in (2, 4):
        watch = MemoryWatch(logs, run_name="mine", strict=True)
        # The second begins where the backup of the first is.
        callbacks = [watch, keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), delete_checkpoint=False)]
        build().fit(epochs=epochs, callbacks=callbacks)
    assert len(list((logs / "mine").glob("*tfevents*"))) == 2
    recording = tools.read_back(watch, logs)
    assert recording.samples["step"].tolist() == list(range(1, 33))
    for loaded in load(logs, complete(recording)):
        assert loaded.runs() == {"mine"}
        check_scalars(loaded, recording)
        check_tensors(loaded, recording)


def test_two_watches_in_one_log_dir(build: Any, tools: Any, tmp_path: Path, load: Load) -> None:
    case, watches = build(), [MemoryWatch(tmp_path, strict=True) for _ in range(2)]
    case.fit(callbacks=watches)
    recordings = [watch.recording for watch in watches]
    for loaded in load(tmp_path, lambda loaded: all(complete(recording)(loaded) for recording in recordings)):
        assert loaded.runs() == {recording.run.name for recording in recordings}
        assert len(loaded.runs()) == 2
        for recording in recordings:
            check_scalars(loaded, recording)
            check_tensors(loaded, recording)
