"""``MemorySession``: what it records of loops of the user's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from user_loop import MODES, WEIGHTS_BYTES, Loop, column

import kerasmemwatch as kmw
from kerasmemwatch.watch.memory_session import MemorySession
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")


@pytest.fixture
def loop(build: Any) -> Loop:
    return Loop(build)


# -- what is recorded ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_epochs_and_steps(build: Any, tools: Any, tmp_path: Path, mode: str) -> None:
    loop = Loop(build, mode)
    seen = []
    with kmw.MemorySession(loop.model, log_dir=tmp_path, trace=[2, 6], strict=True) as session:
        for epoch in session.epochs(3):
            for x, y in session.steps(loop.data(4)):
                loop.train(x, y)
                seen.append((epoch, tuple(x.shape)))
    assert seen == [(epoch, (8, 16)) for epoch in (0, 1, 2) for _ in range(4)]
    assert column(session, "step") == column(session, "train_step") == list(range(1, 13))
    assert column(session, "epoch") == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    assert set(column(session, "stage")) == {"train"}
    for name in ("device_in_use_bytes", "device_peak_bytes", "host_rss_bytes"):
        assert (session.recording.samples[name] > 0).all()
    assert (session.recording.samples["device_peak_bytes"] >= session.recording.samples["device_in_use_bytes"]).all()
    steps = session.recording.steps
    assert [(step.step, step.epoch, step.stage, step.mode) for step in steps] == [
        (2, 0, "train", mode),
        (6, 1, "train", mode),
    ]
    assert session.report.weights_bytes == WEIGHTS_BYTES
    # Learning rate and count of steps; those of the optimizer that the model is compiled with, too.
    assert session.report.optimizer_bytes == 2 * WEIGHTS_BYTES + 2 * (4 + 8)
    stored = tools.read_back(session, tmp_path)
    assert [step.step for step in stored.steps] == [2, 6]
    assert stored.report.coverage == session.report.coverage
    assert stored.report.peak == session.report.peak


def test_a_model_that_the_loop_never_calls_is_not_watched(build: Any) -> None:
    loop = Loop(build, "eager")
    bystander = keras.Sequential([keras.Input((7,)), keras.layers.Dense(9, name="bystander")])
    with MemorySession(log_dir=None, trace=[2], strict=True) as session:
        for x, y in session.steps(loop.data(3)):
            loop.train(x, y)
    assert session.report.weights_bytes == WEIGHTS_BYTES
    assert bystander.layers[0].name not in {layer.path for layer in session.report.layers if layer.weights_bytes}


def test_single_steps(loop: Loop) -> None:
    with MemorySession(loop.model, None, trace=[2], strict=True) as session:
        for _ in range(3):
            with session.step():
                loop.train(loop.x, loop.y)
        with session.step((loop.x, loop.y), stage="test"):
            loop.test(loop.x, loop.y)
        with session.step(stage="predict"):
            loop.model(loop.x)
        with session.step((loop.x, loop.y)):
            loop.train(loop.x, loop.y)
    assert column(session, "step") == [1, 2, 3, 4, 5, 6]
    assert column(session, "train_step") == [1, 2, 3, 3, 3, 4]
    assert column(session, "stage") == ["train"] * 3 + ["test", "predict", "train"]
    # Nobody counts epochs.
    assert np.isnan(session.recording.samples["epoch"]).all()
    assert [(step.step, step.epoch) for step in session.recording.steps] == [(2, None)]


def test_peak_of_a_step_and_of_what_is_between(loop: Loop) -> None:
    """As the allocator itself tells, and what the loop does between two steps is not the steps'."""
    size = 32 * 2**20
    with MemorySession(loop.model, None, trace=False, strict=True) as session:
        for number in range(6):
            with session.step():
                loop.train(loop.x, loop.y)
                if number == 3:
                    tf.zeros((size // 4,))
            if number == 4:
                tf.zeros((size // 4,))
    samples = session.recording.samples
    others = samples["device_in_use_bytes"].min()  # what other tests left is in use, too
    peak, between = samples["device_peak_bytes"][:, 0] - others, samples["device_between_peak_bytes"][:, 0] - others
    assert (peak >= size).tolist() == [False, False, False, True, False, False]
    assert (between >= size).tolist() == [False, False, False, False, False, True]
    assert session.report.peak.bytes == max(peak.max(), np.nanmax(between)) + others


def test_validation_within_an_epoch(loop: Loop) -> None:
    with MemorySession(loop.model, None, trace="auto", strict=True) as session:
        for _ in session.epochs(2):
            for x, y in session.steps(loop.data(3)):
                loop.train(x, y)
            for x, y in session.steps(loop.data(2), stage="test"):
                loop.test(x, y)
        for x, _ in session.steps(loop.data(2), stage="predict"):
            loop.model(x)
    assert column(session, "step") == list(range(1, 13))
    assert column(session, "stage") == [*(["train"] * 3 + ["test"] * 2) * 2, *["predict"] * 2]
    assert column(session, "train_step") == [1, 2, 3, 3, 3, 4, 5, 6, 6, 6, 6, 6]
    assert column(session, "epoch")[:10] == [0.0] * 5 + [1.0] * 5
    traced = [(step.step, step.stage) for step in session.recording.steps]
    # The second of each stage; and the stage goes on where it ended.
    assert traced[:2] == [(2, "train"), (5, "test")]
    by_stage = {step.stage: step for step in session.recording.steps}
    assert by_stage["train"].gradient_bytes == {"dense": (16 * 32 + 32) * 4, "dense_1": (32 * 4 + 4) * 4}
    assert by_stage["test"].gradient_bytes == {}


def test_listed_steps_of_a_stage_that_goes_on(loop: Loop) -> None:
    """The steps of other stages in between count, too."""
    with MemorySession(loop.model, None, trace=[1, 4, 8, 10, 11, 15], strict=True) as session:
        for _ in session.epochs(3):
            for x, y in session.steps(loop.data(3)):
                loop.train(x, y)
            for x, y in session.steps(loop.data(2), stage="test"):
                loop.test(x, y)
    traced = [(step.step, step.stage) for step in session.recording.steps]
    assert traced == [(1, "train"), (4, "test"), (8, "train"), (10, "test"), (11, "train"), (15, "test")]
    watch = MemoryWatch(None, trace=[2, 4, 8, 10, 11, 15], strict=True)
    options = {"validation_data": loop.data(2), "shuffle": False, "verbose": 0, "callbacks": [watch]}
    loop.model.fit(loop.data(3), epochs=3, **options)
    traced = [(step.step, step.stage) for step in watch.recording.steps]
    assert traced == [(2, "train"), (4, "test"), (8, "train"), (10, "test"), (11, "train"), (15, "test")]


def test_validation_within_a_step_loop(loop: Loop) -> None:
    """Every few batches, as long trainings are validated; the epoch's batches go on where they were."""
    with MemorySession(loop.model, None, trace=[4, 6], strict=True) as session:
        for _ in session.epochs(1):
            for number, (x, y) in enumerate(session.steps(loop.data(6))):
                loop.train(x, y)
                if number == 2:
                    validated = number
        for _ in session.epochs([1]):
            batches = iter(loop.data(6))
            for number in range(6):
                with session.step():
                    loop.train(*next(batches))
                if number == 2:
                    for x, y in session.steps(loop.data(2), stage="test"):
                        loop.test(x, y)
    assert validated == 2
    assert column(session, "stage") == ["train"] * 9 + ["test"] * 2 + ["train"] * 3
    assert column(session, "train_step") == [*range(1, 10), 9, 9, 10, 11, 12]
    assert column(session, "epoch") == [0.0] * 6 + [1.0] * 8
    assert [step.step for step in session.recording.steps] == [4, 6]


def test_sessions_one_after_another_are_runs_of_their_own(loop: Loop, tmp_path: Path) -> None:
    sessions = []
    for _ in range(3):
        with MemorySession(loop.model, tmp_path, trace=[2], strict=True) as session:
            for x, y in session.steps(loop.data(3)):
                loop.train(x, y)
        sessions.append(session)
    assert [column(session, "step") for session in sessions] == [[1, 2, 3]] * 3
    assert [[step.step for step in session.recording.steps] for session in sessions] == [[2]] * 3
    assert sorted(kmw.runs(tmp_path)) == sorted(session.recording.run.name for session in sessions)
    assert len({session.recording.run.name for session in sessions}) == 3


def test_a_session_entered_again_goes_on(loop: Loop, tools: Any, tmp_path: Path) -> None:
    session = MemorySession(loop.model, tmp_path, run_name="mine", trace=[2, 5], strict=True)
    for _ in range(2):
        with session:
            for _ in session.epochs(1):
                for x, y in session.steps(loop.data(4)):
                    loop.train(x, y)
    assert column(session, "step") == column(session, "train_step") == list(range(1, 9))
    assert column(session, "epoch") == [0.0] * 8
    assert [step.step for step in session.recording.steps] == [2, 5]
    assert kmw.runs(tmp_path) == ["mine"]
    tools.read_back(session, tmp_path, "mine")


def test_a_run_of_the_same_name_is_continued_at_a_later_epoch(build: Any, tools: Any, tmp_path: Path) -> None:
    for begin, end in ((0, 2), (2, 3)):
        loop = Loop(build)
        with MemorySession(loop.model, tmp_path, run_name="mine", trace=False, strict=True) as session:
            for _ in session.epochs(end, initial_epoch=begin):
                for x, y in session.steps(loop.data(4)):
                    loop.train(x, y)
    assert kmw.runs(tmp_path) == ["mine"]
    assert column(session, "step") == list(range(1, 13))
    assert column(session, "epoch") == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    tools.read_back(session, tmp_path, "mine")


def test_epochs_may_be_any_numbers(loop: Loop) -> None:
    with MemorySession(loop.model, None, trace=False, strict=True) as session:
        for _ in session.epochs(number for number in (5, 7)):
            for x, y in session.steps(loop.data(1)):
                loop.train(x, y)
    assert column(session, "epoch") == [5.0, 7.0]


@pytest.mark.parametrize(
    "batches",
    [
        lambda x, y: ((x, y) for _ in range(3)),
        lambda x, y: [(x, y)] * 3,
        lambda x, y: [(x.numpy(), y.numpy())] * 3,
        lambda x, y: tuple({"x": x, "y": y} for _ in range(3)),
        lambda x, y: itertools.islice(tf.data.Dataset.from_tensors((x, y)).repeat(), 3),
        lambda x, y: tf.data.Dataset.from_tensors((x, y)).repeat(3).as_numpy_iterator(),
        lambda x, y: range(3),
    ],
    ids=["generator", "list", "numpy", "dicts", "islice", "numpy iterator", "range"],
)
def test_whatever_gives_batches(loop: Loop, batches: Callable[[Any, Any], Any]) -> None:
    given = []
    with MemorySession(loop.model, None, trace=[2], strict=True) as session:
        for batch in session.steps(batches(loop.x, loop.y)):
            given.append(batch)
            x, y = batch.values() if isinstance(batch, dict) else (loop.x, loop.y) if isinstance(batch, int) else batch
            loop.train(x, y)
    assert len(given) == 3
    assert column(session, "step") == [1, 2, 3]
    assert [step.step for step in session.recording.steps] == [2]


def test_data_of_several_devices_workers_and_none(loop: Loop) -> None:
    with MemorySession(loop.model, None, strict=True) as session:
        for _ in session.epochs(2):
            for _ in session.steps([]):
                raise AssertionError("there is no batch")
    assert session.recording.samples.num_samples == 0
    assert session.report.coverage is None


@pytest.mark.parametrize("every", [2, 5])
def test_sample_every(loop: Loop, tools: Any, tmp_path: Path, every: int) -> None:
    with MemorySession(loop.model, tmp_path, sample_every=every, trace=[4], strict=True) as session:
        for _ in session.epochs(2):
            for x, y in session.steps(loop.data(6)):
                loop.train(x, y)
    # The first, each n-th after it, and the last.
    assert column(session, "step") == sorted({*range(1, 13, every), 12})
    assert [step.step for step in session.recording.steps] == [4]
    tools.read_back(session, tmp_path)


@pytest.mark.parametrize("trace", [False, None, [], [100]])
def test_nothing_is_traced(loop: Loop, trace: Any) -> None:
    with MemorySession(loop.model, None, trace=trace, strict=True) as session:
        for x, y in session.steps(loop.data(12)):
            loop.train(x, y)
    assert session.recording.steps == ()
    assert session.report.coverage is None
    assert session.report.peak.by_category == {}
    # What Python knows is known all the same.
    assert session.report.weights_bytes == WEIGHTS_BYTES


def test_auto_takes_the_second_step_and_a_later_one(loop: Loop) -> None:
    with MemorySession(loop.model, None, strict=True) as session:
        for x, y in session.steps(loop.data(40)):
            loop.train(x, y)
    steps = [step.step for step in session.recording.steps]
    assert steps[:2] == [2, 10]
    assert len(steps) <= 4
    assert all(step.reason for step in session.recording.steps)


@pytest.mark.parametrize("given", [True, False])
def test_model_and_optimizer_are_found(build: Any, given: bool) -> None:
    loop = Loop(build, is_built=False)
    with MemorySession(loop.model if given else None, None, trace=[2], strict=True) as session:
        for x, y in session.steps(loop.data(3)):
            loop.train(x, y)
    rows = {row.path: (row.weights_bytes, row.optimizer_bytes) for row in session.recording.layers if row.class_name}
    first, second = (16 * 32 + 32) * 4, (32 * 4 + 4) * 4
    assert rows == {"dense": (first, 2 * first), "dense_1": (second, 2 * second)}


def test_functions_that_were_made_before_the_session(build: Any) -> None:
    """Nothing is seen to be called; what Python holds is known all the same, and the report says what is guessed."""
    loop = Loop(build)
    loop.train(loop.x, loop.y)
    with MemorySession(None, None, trace=[2], strict=True) as session:
        for x, y in session.steps(loop.data(3)):
            loop.train(x, y)
    paths = {row.path: row.weights_bytes for row in session.report.layers if row.class_name}
    # Models of other tests may be alive, too; then names are put before the paths.
    found = {path.rpartition("/")[2]: size for path, size in paths.items()}
    assert found["dense"] == (16 * 32 + 32) * 4 and found["dense_1"] == (32 * 4 + 4) * 4
    assert any("before the" in note for note in session.report.notes)


# -- what the loop and the session give ------------------------------------------------------------------------


def test_logs(loop: Loop) -> None:
    found = []
    with MemorySession(loop.model, None, trace=False, strict=True) as session:
        assert session.logs() == {}
        for _ in session.epochs(2):
            for number, (x, y) in enumerate(session.steps(loop.data(3))):
                loop.train(x, y)
                if not found and number == 1:
                    tf.zeros((8 * 2**20,))
            found.append(session.logs())
    assert all(
        set(logs) == {f"memory/{name}_mib" for name in ("device_peak", "device_in_use", "host_rss")} for logs in found
    )
    # The highest since the last call: 32 MiB were alive for a moment of the first epoch.
    assert 32 <= found[0]["memory/device_peak_mib"] >= found[1]["memory/device_peak_mib"] + 24
    samples = session.recording.samples
    for epoch, logs in enumerate(found):
        rows = samples["epoch"] == epoch
        highest = max(samples["device_peak_bytes"][rows].max(), np.nanmax(samples["device_between_peak_bytes"][rows]))
        assert logs["memory/device_peak_mib"] == highest / 2**20
        assert logs["memory/device_in_use_mib"] == samples["device_in_use_bytes"][rows][-1, 0] / 2**20
        assert logs["memory/host_rss_mib"] == samples["host_rss_bytes"][rows][-1] / 2**20
        assert all(isinstance(value, float) for value in logs.values())


@pytest.mark.parametrize(("verbose", "lines"), [("auto", 0), (False, 0), (0, 0), (True, 2), (1, 2), (2, 2)])
def test_line_after_an_epoch(loop: Loop, capsys: pytest.CaptureFixture[str], verbose: Any, lines: int) -> None:
    with MemorySession(loop.model, None, trace=False, verbose=verbose, strict=True) as session:
        for _ in session.epochs(2):
            for x, y in session.steps(loop.data(3)):
                loop.train(x, y)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    for number, line in enumerate(printed, 1):
        names = [part.partition(":")[0] for part in line.split(" - ")]
        assert names == [f"Epoch {number}", "memory/device_peak_mib", "memory/device_in_use_mib", "memory/host_rss_mib"]


def test_report_at_any_time(loop: Loop) -> None:
    session = MemorySession(loop.model, None, trace=[2], strict=True)
    assert session.recording.samples.num_samples == 0
    assert session.recording.steps == () and not session.active
    assert str(session.report)
    with session:
        assert session.active
        assert session.recording.samples.num_samples == 0
        for number, (x, y) in enumerate(session.steps(loop.data(4)), 1):
            loop.train(x, y)
            assert session.recording.samples.num_samples == number - 1
            assert [step.step for step in session.recording.steps] == ([2] if number > 2 else [])
        assert str(session.report)
    assert not session.active
    assert session.report.coverage is not None
    # In the text it may be folded, beside what earlier tests have left in this process.
    assert "dense" in {row.path for row in session.report.layers}
