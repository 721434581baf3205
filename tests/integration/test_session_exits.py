"""``MemorySession``: every way to leave a loop, and that nothing stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import pytest
import tensorflow as tf
from user_loop import Loop, column

from kerasmemwatch.watch.memory_session import MemorySession

pytestmark = pytest.mark.usefixtures("exact_counting")


@pytest.fixture
def loop(build: Any) -> Loop:
    return Loop(build)


# -- leaving loops ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("trace", [False, [2, 3]])
def test_break(loop: Loop, trace: Any) -> None:
    with MemorySession(loop.model, None, trace=trace, strict=True) as session:
        for _ in session.epochs(2):
            for number, (x, y) in enumerate(session.steps(loop.data(6)), 1):
                loop.train(x, y)
                if number == 3:
                    break
    # The step that was left with ``break`` has done its work, and it has a row.
    assert column(session, "step") == [1, 2, 3, 4, 5, 6]
    assert column(session, "epoch") == [0.0] * 3 + [1.0] * 3
    assert [step.step for step in session.recording.steps] == (trace or [])


@pytest.mark.usefixtures("nothing_is_left")
def test_break_of_all(loop: Loop) -> None:
    with MemorySession(loop.model, None, trace=[2], strict=True) as session:
        for epoch in session.epochs(5):
            for number, (x, y) in enumerate(session.steps(loop.data(6)), 1):
                loop.train(x, y)
                if epoch == 1 and number == 2:
                    break
            for x, y in session.steps(loop.data(3), stage="test"):
                loop.test(x, y)
                break
            if epoch == 1:
                break
    assert column(session, "stage") == ["train"] * 6 + ["test"] + ["train"] * 2 + ["test"]
    assert column(session, "train_step") == [1, 2, 3, 4, 5, 6, 6, 7, 8, 8]


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("trace", [False, [2, 3, 4, 5]])
def test_iterator_that_is_kept_after_a_break(loop: Loop, trace: Any) -> None:
    """Nothing closes it; its step has ended where the next begins."""
    with MemorySession(loop.model, None, trace=trace, strict=True) as session:
        kept = session.steps(loop.data(6))
        for number, (x, y) in enumerate(kept, 1):
            loop.train(x, y)
            if number == 2:
                break
        for x, y in session.steps(loop.data(2)):
            loop.train(x, y)
            kept.close()  # within a step of another
        assert column(session, "step") == [1, 2, 3, 4]
        last = session.steps(loop.data(6))
        loop.train(*next(last))
    last.close()
    # A step that is open as the session ends is none.
    assert column(session, "step") == column(session, "train_step") == [1, 2, 3, 4]
    assert [step.step for step in session.recording.steps] == (trace or [])[:3]


@pytest.mark.usefixtures("nothing_is_left")
def test_continue(loop: Loop) -> None:
    with MemorySession(loop.model, None, trace=[2], strict=True) as session:
        for number, (x, y) in enumerate(session.steps(loop.data(5)), 1):
            if number == 2:
                continue  # a batch that is skipped is a step that did nothing
            loop.train(x, y)
    assert column(session, "step") == [1, 2, 3, 4, 5]
    assert [step.step for step in session.recording.steps] in ([], [2])


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(
    ("mode", "kind", "form"),
    [
        ("eager", ValueError, "steps"),
        ("eager", KeyboardInterrupt, "step"),
        ("graph", SystemExit, "steps"),
        ("graph", ValueError, "step"),
        ("xla", KeyboardInterrupt, "steps"),
        ("xla", SystemExit, "step"),
    ],
)
def test_exception_in_a_traced_step(build: Any, mode: str, kind: type[BaseException], form: str) -> None:
    loop = Loop(build, mode)

    def run(session: MemorySession) -> None:
        if form == "steps":
            for number, (x, y) in enumerate(session.steps(loop.data(4)), 1):
                loop.train(x, y)
                if number == 2:
                    raise kind("of the loop")
        else:
            for number in range(1, 4):
                with session.step():
                    loop.train(loop.x, loop.y)
                    if number == 2:
                        raise kind("of the loop")

    with (
        pytest.raises(kind, match="of the loop"),
        MemorySession(loop.model, None, trace=[2, 3], strict=True) as session,
    ):
        run(session)
    assert column(session, "step") == [1, 2]
    assert column(session, "ended") == [True, False]
    assert session.recording.steps == ()
    # And it may be used again.
    with session:
        for x, y in session.steps(loop.data(4)):
            loop.train(x, y)
    assert column(session, "step") == [1, 2, 3, 4, 5, 6]
    assert [step.step for step in session.recording.steps] == [3]


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("traced_step", [1, 3])
def test_exception_while_a_function_is_traced(build: Any, kind: type[BaseException], traced_step: int) -> None:
    """In the first step, and in a later one whose batch is of another shape."""
    loop = Loop(build, is_built=False)

    class Interrupted(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            if inputs.shape[0] == 5:
                raise kind("in a layer")
            return inputs

    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(4), Interrupted()])

    def step(x: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x))
        loop.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    train = tf.function(step)
    with MemorySession(model, None, trace=[1, 2, 3], strict=True) as session:
        for number in range(1, 5):
            if number == traced_step:
                with pytest.raises(kind, match="in a layer"), session.step():
                    train(loop.x[:5])
                if number == 1:
                    train = tf.function(step)  # TensorFlow's, whose first call raised, does nothing from then on
            else:
                with session.step():
                    train(loop.x)
    assert column(session, "step") == [1, 2, 3, 4]
    assert column(session, "ended") == [number != traced_step for number in range(1, 5)]
    assert [step.step for step in session.recording.steps] == [step for step in (1, 2, 3) if step != traced_step]


@pytest.mark.usefixtures("nothing_is_left")
def test_exception_of_the_data(loop: Loop) -> None:
    def data() -> Iterator[Any]:
        yield loop.x, loop.y
        yield loop.x, loop.y
        raise OSError("the file is gone")

    def run() -> None:
        for x, y in session.steps(data()):
            loop.train(x, y)

    session = MemorySession(loop.model, None, trace=[2], strict=True)
    with pytest.raises(OSError, match="the file is gone"), session:
        run()
    assert column(session, "step") == [1, 2]
    assert [step.step for step in session.recording.steps] == [2]


@pytest.mark.usefixtures("nothing_is_left")
def test_exception_within_validation_that_is_caught(loop: Loop) -> None:
    with MemorySession(loop.model, None, trace=[2, 5], strict=True) as session:
        for _ in session.epochs(2):
            for x, y in session.steps(loop.data(3)):
                loop.train(x, y)
            try:
                for number, (x, y) in enumerate(session.steps(loop.data(3), stage="test")):
                    loop.test(x, y)
                    1 / (1 - number)
            except ZeroDivisionError:
                continue
    assert column(session, "stage") == [*["train"] * 3, *["test"] * 2] * 2
    assert column(session, "train_step") == [1, 2, 3, 3, 3, 4, 5, 6, 6, 6]
    assert column(session, "ended") == [True, True, True, True, False] * 2
    assert [step.step for step in session.recording.steps] == [2]  # the fifth did not end


@pytest.mark.usefixtures("nothing_is_left")
def test_out_of_memory_is_the_loops_to_handle(loop: Loop) -> None:
    with MemorySession(loop.model, None, trace=[1, 2, 3], strict=True) as session:
        for number in range(4):
            try:
                with session.step():
                    loop.train(loop.x, loop.y)
                    if number == 1:
                        raise tf.errors.ResourceExhaustedError(None, None, "no memory")
            except tf.errors.ResourceExhaustedError:
                continue
    assert column(session, "ended") == [True, False, True, True]
    assert [step.step for step in session.recording.steps] == [1, 3]
