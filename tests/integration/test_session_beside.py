"""``MemorySession``: misuse, and other watches, sessions, threads and profilers beside it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from user_loop import WEIGHTS_BYTES, Loop, column

import kerasmemwatch as kmw
from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError, LogDirError, SessionError
from kerasmemwatch.watch.memory_session import MemorySession
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")


@pytest.fixture
def loop(build: Any) -> Loop:
    return Loop(build)


# -- misuse ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["epochs", "steps", "step", "test step"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_use_outside_of_the_session(use: str, when: str) -> None:
    session = MemorySession(None, None, strict=True)
    if when == "after":
        with session:
            pass
    with pytest.raises(SessionError, match=r"Expected .* within the session\. Received: .* not open\. Write: with "):
        {
            "epochs": lambda: session.epochs(3),
            "steps": lambda: session.steps([1]),
            "step": session.step,
            "test step": lambda: session.step(stage="test"),
        }[use]()


def test_entered_twice_at_once() -> None:
    with MemorySession(None, None, strict=True) as session:
        with pytest.raises(SessionError, match=r"Expected .* Received: "), session:
            pass
        assert session.active
        with session.step():
            pass
    assert column(session, "step") == [1]


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("trace", [False, [1, 2, 3, 4, 5, 6]])
def test_step_within_a_step(loop: Loop, trace: Any) -> None:
    """The outer one ends where the inner begins."""
    with MemorySession(loop.model, None, trace=trace, strict=True) as session:
        for x, y in session.steps(loop.data(3)):
            loop.train(x, y)
            with session.step():
                loop.train(x, y)
    assert column(session, "step") == column(session, "train_step") == [1, 2, 3, 4, 5, 6]
    assert [step.step for step in session.recording.steps] == (trace or [])


@pytest.mark.parametrize("stage", ["training", "", None, 1])
def test_unknown_stage(stage: Any) -> None:
    with MemorySession(None, None, strict=True) as session:
        for use in (lambda: session.step(stage=stage), lambda: session.steps([], stage=stage)):
            with pytest.raises(InvalidArgumentError, match=r"Expected stage to be one of 'train', .* Received: stage="):
                use()


@pytest.mark.parametrize("epochs", ["3", 2.5, None, True, b"x"])
def test_epochs_of_the_wrong_type(epochs: Any) -> None:
    with (
        MemorySession(None, None, strict=True) as session,
        pytest.raises(InvalidTypeError, match=r"Expected .* Received: "),
    ):
        session.epochs(epochs)


@pytest.mark.parametrize("data", [None, 3])
def test_data_that_gives_no_batches(data: Any) -> None:
    with (
        MemorySession(None, None, strict=True) as session,
        pytest.raises(InvalidTypeError, match=r"Expected .* Received: "),
    ):
        session.steps(data)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": 3}, InvalidTypeError),
        ({"model": "model"}, InvalidTypeError),
        ({"model": [None]}, InvalidTypeError),
        ({"model": keras.layers.Dense}, InvalidTypeError),
        ({"log_dir": 3}, InvalidTypeError),
        ({"sample_every": 0}, InvalidArgumentError),
        ({"sample_every": 1.5}, InvalidTypeError),
        ({"trace": "always"}, InvalidArgumentError),
        ({"trace": [0]}, InvalidArgumentError),
        ({"run_name": "../up"}, InvalidArgumentError),
        ({"verbose": "loud"}, InvalidArgumentError),
        ({"probes": [3]}, InvalidTypeError),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"Expected .* Received: "):
        MemorySession(**{"log_dir": None, **arguments})


def test_log_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogDirError, match=r"Expected .* Received: "):
        MemorySession(None, tmp_path / "file")


def test_nothing_is_written_before_the_first_step(loop: Loop, tmp_path: Path) -> None:
    with MemorySession(loop.model, tmp_path / "logs", strict=True) as session:
        assert not (tmp_path / "logs").exists()
        with session.step():
            loop.train(loop.x, loop.y)
        assert len(list((tmp_path / "logs").iterdir())) == 1


# -- beside others ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_is_left")
def test_disabled(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KERASMEMWATCH_DISABLE", "1")
    seen = []
    with MemorySession(loop.model, tmp_path / "logs", verbose=True, strict=True) as session:
        for epoch in session.epochs(2):
            for x, y in session.steps(loop.data(3)):
                seen.append((epoch, float(loop.train(x, y))))
            for x, y in session.steps(loop.data(1), stage="test"):
                loop.test(x, y)
        with session.step():
            loop.train(loop.x, loop.y)
        assert session.logs() == {} and not session.active
    assert len(seen) == 6
    assert session.recording.samples.num_samples == 0
    assert str(session.report)
    assert not (tmp_path / "logs").exists()
    assert capsys.readouterr().out == ""


def test_disabled_between_two_uses(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    session = MemorySession(loop.model, None, trace=[2], strict=True)
    for disabled in (False, True):
        monkeypatch.setenv("KERASMEMWATCH_DISABLE", "1" if disabled else "")
        with session:
            for x, y in session.steps(loop.data(3)):
                loop.train(x, y)
        assert column(session, "step") == [1, 2, 3]


@pytest.mark.usefixtures("nothing_is_left")
def test_fit_with_a_watch_within_a_session(build: Any, our_log: Any) -> None:
    """Both record; steps that both want are traced by one of them at a time."""
    loop = Loop(build)
    watch = MemoryWatch(None, trace=[2, 4], strict=True)
    with MemorySession(loop.model, None, trace=[2, 3], strict=True) as session:
        for x, y in session.steps(loop.data(2)):
            loop.train(x, y)
        with session.step():
            loop.case.fit(callbacks=[watch])
        for x, y in session.steps(loop.data(2)):
            loop.train(x, y)
    assert column(session, "step") == [1, 2, 3, 4, 5]
    assert watch.recording.samples["step"].tolist() == list(range(1, 9))
    assert [step.step for step in session.recording.steps] == [2, 3]
    # The session's step 3 is the whole fit, so its trace is the only one at that time, and the watch says so.
    assert watch.recording.steps == ()
    assert any("another watch traced a step" in note for note in watch.recording.run.notes)


def test_fit_with_a_watch_between_steps_of_a_session(build: Any) -> None:
    loop = Loop(build)
    watch = MemoryWatch(None, trace=[2, 4], strict=True)
    with MemorySession(loop.model, None, trace=[2, 3], strict=True) as session:
        for x, y in session.steps(loop.data(2)):
            loop.train(x, y)
        loop.case.fit(callbacks=[watch])
        for x, y in session.steps(loop.data(2)):
            loop.train(x, y)
    assert [step.step for step in session.recording.steps] == [2, 3]
    assert [step.step for step in watch.recording.steps] == [2, 4]
    for found in (session, watch):
        assert found.report.weights_bytes == WEIGHTS_BYTES


def test_sessions_within_each_other(loop: Loop) -> None:
    outer = MemorySession(loop.model, None, trace=[2], strict=True)
    inner = MemorySession(loop.model, None, trace=[1], strict=True)
    with outer, inner:
        for x, y in outer.steps(inner.steps(loop.data(3))):
            loop.train(x, y)
    assert column(outer, "step") == column(inner, "step") == [1, 2, 3]
    assert [step.step for step in outer.recording.steps] == [2]
    assert [step.step for step in inner.recording.steps] == [1]


@pytest.mark.usefixtures("nothing_is_left")
def test_steps_in_another_thread_than_the_session(loop: Loop) -> None:
    errors: list[BaseException] = []

    def train() -> None:
        try:
            for x, y in session.steps(loop.data(4)):
                loop.train(x, y)
        except BaseException as error:
            errors.append(error)

    with MemorySession(loop.model, None, trace=[2], strict=True) as session:
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    assert errors == []
    assert column(session, "step") == column(session, "train_step") == [1, 2, 3, 4]
    [step] = session.recording.steps
    assert (step.step, step.mode) == (2, "graph")
    assert step.gradient_bytes == {"dense": (16 * 32 + 32) * 4, "dense_1": (32 * 4 + 4) * 4}


def test_two_threads_with_a_session_each(build: Any) -> None:
    loops = [Loop(build), Loop(build)]
    sessions = [MemorySession(loop.model, None, trace=[2, 4], strict=False) for loop in loops]
    barrier, errors = threading.Barrier(2), list[BaseException]()

    def run(loop: Loop, session: MemorySession) -> None:
        try:
            with session:
                barrier.wait(60)
                for x, y in session.steps(loop.data(20)):
                    loop.train(x, y)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(loops, sessions, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for session in sessions:
        assert column(session, "step") == list(range(1, 21))
        assert {step.step for step in session.recording.steps} <= {2, 4}
        assert session.report.weights_bytes is not None


def test_another_profiler_has_precedence(loop: Loop, tmp_path: Path) -> None:
    tf.profiler.experimental.start(str(tmp_path))
    try:
        with MemorySession(loop.model, None, trace=[2]) as session:
            for x, y in session.steps(loop.data(3)):
                loop.train(x, y)
    finally:
        tf.profiler.experimental.stop()
    assert list(tmp_path.rglob("*.xplane.pb"))
    assert session.recording.steps == ()
    assert any("profiler" in note for note in session.recording.run.notes)


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_no_function_is_traced_again(build: Any, mode: str) -> None:
    plain = Loop(build, mode)
    for x, y in plain.data(6):
        plain.train(x, y)
    loop = Loop(build, mode)
    counts = []
    with MemorySession(loop.model, None, trace=[2, 4], strict=True) as session:
        for x, y in session.steps(loop.data(6)):
            loop.train(x, y)
            counts.append(loop.train.experimental_get_tracing_count())
    loop.train(loop.x, loop.y)
    counts.append(loop.train.experimental_get_tracing_count())
    # Twice within its first call, as TensorFlow does where a function makes variables.
    assert counts == [plain.train.experimental_get_tracing_count()] * 7
    assert [step.step for step in session.recording.steps] == [2, 4]


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "graph") for name in ("raw_variable", "cnn")), ("cnn", "eager"), ("mlp", "xla")],
)
def test_weights_are_bit_identical_with_a_session(build: Any, mode: str, name: str) -> None:
    def trained(trace: Any) -> list[bytes]:
        loop = Loop(build, mode, name)
        if trace is None:
            for x, y in loop.data(6):
                loop.train(x, y)
        else:
            with MemorySession(loop.model, None, trace=trace, strict=True) as session:
                for x, y in session.steps(loop.data(6)):
                    loop.train(x, y)
            assert [step.step for step in session.recording.steps] == (trace or [])
        variables = [*loop.model.variables, *loop.optimizer.variables, *loop.case.raw]
        return [np.asarray(variable.numpy()).tobytes() for variable in variables]

    plain = trained(None)
    assert trained(False) == plain
    assert trained([1, 2, 3, 4, 5, 6]) == plain


@pytest.mark.long
def test_a_script_with_a_session_under_run(run_python: Any, tmp_path: Path) -> None:
    """``kerasmemwatch run`` watches fits; a script's own session records beside that."""
    (tmp_path / "train.py").write_text(
        """
import keras, numpy as np, tensorflow as tf
import kerasmemwatch as kmw
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
model.compile("sgd", "mse", jit_compile=False)
optimizer = keras.optimizers.SGD()
x, y = np.ones((32, 8), "float32"), np.ones((32, 4), "float32")
with kmw.MemorySession(model, "mine", trace=[2], strict=True) as session:
    for batch in session.steps([(x, y)] * 4):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(batch[0]) - batch[1]) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
model.fit(x, y, batch_size=8, verbose=0)
print(len(session.recording.steps), session.report.coverage >= 0.99)
"""
    )
    done = run_python(
        "import sys; from kerasmemwatch.cli import main; sys.exit(main(['run', '--log-dir', 'logs', 'train.py']))"
    )
    assert "1 True" in done.stdout, done.stdout
    [own] = kmw.runs(tmp_path / "mine")
    assert kmw.load(tmp_path / "mine", own).samples["step"].tolist() == [1, 2, 3, 4]
    [watched] = kmw.runs(tmp_path / "logs")
    assert kmw.load(tmp_path / "logs", watched).samples["step"].tolist() == [1, 2, 3, 4]


def test_example_of_the_documentation(run_forked_python: Any) -> None:
    script = """
        import doctest
        from kerasmemwatch.watch import memory_session
        from kerasmemwatch.watch.tapes import memory_tape
        for module in (memory_session, memory_tape):
            print(doctest.testmod(module))
    """
    lines = run_forked_python(script).stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("TestResults(failed=0, attempted=") for line in lines), lines
