"""Steps that an exception leaves: a row with the peak read there, and nothing else changed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from user_loop import Loop

from kerasmemwatch.recording import load
from kerasmemwatch.units import MIB
from kerasmemwatch.watch.memory_session import MemorySession
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = [
    pytest.mark.usefixtures("exact_counting"),
    # What Keras says of every data set that it is given, and of each of unknown length.
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),
]

MODES: dict[str, dict[str, bool]] = {
    "graph": {"jit_compile": False},
    "eager": {"run_eagerly": True, "jit_compile": False},
}
BIG_BYTES = 64 * MIB


@keras.saving.register_keras_serializable("tests")
class Grows(keras.layers.Layer):
    """Takes much for a batch of negative numbers, and then fails; passes others on."""

    def call(self, inputs: Any) -> Any:
        def fail() -> Any:
            big = tf.fill((BIG_BYTES // 4,), tf.reduce_sum(inputs))
            return inputs + tf.gather(big, [BIG_BYTES])[0]

        return tf.cond(tf.reduce_min(inputs) < 0, fail, lambda: inputs)


def make_model(**compiled: bool) -> Any:
    model = keras.Sequential([keras.Input((8,)), Grows(), keras.layers.Dense(4)])
    model.compile("sgd", "mse", **compiled)
    return model


def batches(fails_at: int | None, count: int = 6) -> Any:
    """Batches of a data set of unknown length, one of which makes the model fail."""

    def generate() -> Any:
        for step in range(1, count + 1):
            yield np.full((4, 8), -1 if step == fails_at else 1, "float32"), np.ones((4, 4), "float32")

    kind = (tf.TensorSpec((4, 8)), tf.TensorSpec((4, 4)))
    return tf.data.Dataset.from_generator(generate, output_signature=kind)


def fails(call: Callable[[], object]) -> None:
    """Nothing is kept of the error, whose frames hold what the step has made."""
    try:
        call()
    except tf.errors.InvalidArgumentError:
        pass
    else:
        raise AssertionError("Nothing was raised.")
    gc.collect()


def peaks(samples: Any) -> Any:
    return samples["device_peak_bytes"][:, 0]


def run(model: Any, stage: str, data: Any, callbacks: list[Any]) -> Any:
    method = {"train": model.fit, "test": model.evaluate, "predict": model.predict}[stage]
    return method(data, verbose=0, callbacks=callbacks)


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(
    ("mode", "stage", "fails_at"),
    [
        ("graph", "train", 1),
        ("graph", "train", 4),
        ("graph", "test", 4),
        ("graph", "predict", 1),
        ("eager", "train", 4),
        ("eager", "test", 1),
        ("eager", "predict", 4),
    ],
)
def test_a_step_that_fails_has_a_row_with_its_peak(mode: str, stage: str, fails_at: int, tmp_path: Any) -> None:
    model, watch = make_model(**MODES[mode]), MemoryWatch(tmp_path, trace=[2], strict=True)
    fails(lambda: run(model, stage, batches(fails_at), [watch]))
    samples = watch.recording.samples
    assert samples["step"].tolist() == list(range(1, fails_at + 1))
    assert samples["ended"].tolist() == [True] * (fails_at - 1) + [False]
    assert samples["stage"][-1] == stage
    assert BIG_BYTES <= peaks(samples)[-1] < 1.5 * BIG_BYTES
    assert (peaks(samples)[:-1] < BIG_BYTES).all()
    # What the next one finds is its own.
    run(model, stage, batches(None), [watch])
    samples = watch.recording.samples
    assert samples["ended"].tolist() == [True] * (fails_at - 1) + [False] + [True] * 6
    assert (peaks(samples)[fails_at:] < BIG_BYTES).all()
    # In eager mode the frames of the error hold what the step has made until somebody catches it.
    next_windows = samples["device_between_peak_bytes"][fails_at + (mode == "eager") :]
    assert (next_windows < BIG_BYTES).all()
    assert watch.report.peak.step == fails_at
    assert not watch.report.peak.ended
    watch._recorder.close()
    np.testing.assert_array_equal(load(tmp_path).samples["ended"], samples["ended"])


def test_the_report_says_that_the_last_step_did_not_end() -> None:
    model, watch = make_model(), MemoryWatch(None, strict=True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.fit(batches(4), verbose=0, callbacks=[watch])
    report = watch.report
    text = " ".join(str(report).split())
    assert "step 4 (train, epoch 1), which did not end" in text
    assert "Step 4 (train), the run's last, did not end: an exception left it." in text
    # The traced step's phase is not that of the peak.
    assert report.traced is not None and report.peak.phase is None
    model.fit(batches(None), verbose=0, callbacks=[watch])
    assert "Step 4 (train) did not end" in " ".join(str(watch.report).split())


def test_a_first_step_that_fails_leaves_a_report() -> None:
    model, watch = make_model(), MemoryWatch(None, strict=True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.fit(batches(1), verbose=0, callbacks=[watch])
    report = watch.report
    assert report.peak.bytes is not None and report.peak.bytes >= BIG_BYTES
    assert report.weights_bytes == sum(variable.numpy().nbytes for variable in model.weights)
    text = " ".join(str(report).split())
    assert "no step has completed" in text
    assert "Train a few steps more" not in text


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(
    ("hook", "watch_first", "kind"),
    [
        ("on_train_batch_begin", True, ValueError),
        ("on_train_batch_begin", False, KeyboardInterrupt),
        ("on_train_batch_end", True, SystemExit),
        ("on_train_batch_end", False, ValueError),
        ("on_train_batch_end", False, KeyboardInterrupt),
    ],
)
def test_a_callback_that_raises_within_a_batch(
    tools: Any, build: Any, hook: str, watch_first: bool, kind: type[BaseException]
) -> None:
    def fail(batch: int) -> None:
        if batch == 3:
            tf.fill((BIG_BYTES // 4,), 1.0).numpy()
            raise kind("on purpose")

    case, watch = build(), MemoryWatch(None, trace=[4], strict=True)
    other = tools.callback(**{hook: fail})
    with pytest.raises(kind):
        case.fit_steadily(6, callbacks=[watch, other] if watch_first else [other, watch])
    samples = watch.recording.samples
    if watch_first == (hook == "on_train_batch_begin"):
        # Raised between the watch's begin of the batch and its end.
        assert samples["ended"].tolist() == [True] * 3 + [False]
        assert peaks(samples)[-1] >= BIG_BYTES
    else:
        assert samples["ended"].all()
        assert samples["step"].tolist() == list(range(1, 5 if watch_first else 4))
    assert watch.recording.steps == () or samples["ended"].all()


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_validation_that_fails(fails_at: int) -> None:
    model, watch = make_model(), MemoryWatch(None, trace=False, strict=True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.fit(batches(None, 3), validation_data=batches(fails_at, 3), epochs=2, verbose=0, callbacks=[watch])
    samples = watch.recording.samples
    assert samples["stage"].tolist() == ["train"] * 3 + ["test"] * fails_at
    assert samples["ended"].tolist() == [True] * (2 + fails_at) + [False]


def test_a_validation_that_fails_in_a_callback_which_goes_on(tools: Any) -> None:
    def evaluate(batch: int) -> None:
        with pytest.raises(tf.errors.InvalidArgumentError):
            model.evaluate(batches(2), verbose=0, callbacks=[watch])

    model, watch = make_model(), MemoryWatch(None, trace=False, strict=True)
    other = tools.callback(on_train_batch_end=lambda batch: batch == 1 and evaluate(batch))
    model.fit(batches(None, 4), verbose=0, callbacks=[watch, other])
    samples = watch.recording.samples
    assert samples["stage"].tolist() == ["train", "train", "test", "test", "train", "train"]
    assert samples["ended"].tolist() == [True, True, True, False, True, True]
    assert samples["train_step"].tolist() == [1, 2, 2, 2, 3, 4]


def test_the_end_of_the_data_is_no_failure() -> None:
    model, watch = make_model(), MemoryWatch(None, trace=False, strict=True)
    data = batches(None, 3)
    model.fit(data, validation_data=data, epochs=3, verbose=0, callbacks=[watch])
    model.predict(data, verbose=0, callbacks=[watch])
    samples = watch.recording.samples
    assert samples["ended"].all()
    assert samples["step"].tolist() == list(range(1, 22))


@pytest.mark.usefixtures("nothing_is_left")
def test_two_watches_each_have_the_row() -> None:
    model, watches = (
        make_model(),
        [MemoryWatch(None, trace=[2], strict=True), MemoryWatch(None, trace=False, strict=True)],
    )
    for _ in range(2):
        with pytest.raises(tf.errors.InvalidArgumentError):
            model.fit(batches(3), verbose=0, callbacks=watches)
    for watch in watches:
        assert watch.recording.samples["ended"].tolist() == [True, True, False] * 2
        assert (peaks(watch.recording.samples)[[2, 5]] >= BIG_BYTES).all()


def test_a_batch_of_its_own(build: Any) -> None:
    model, watch = make_model(), MemoryWatch(None, trace=False, strict=True)
    x, y = np.ones((4, 8), "float32"), np.ones((4, 4), "float32")
    with watch.batch(model):
        model.train_on_batch(x, y)
    with pytest.raises(tf.errors.InvalidArgumentError), watch.batch(model):
        model.train_on_batch(-x, y)
    samples = watch.recording.samples
    assert samples["ended"].tolist() == [True, False]
    assert peaks(samples)[1] >= BIG_BYTES


# -- loops of the user's ---------------------------------------------------------------------------------------


def by_steps(session: MemorySession, step: Callable[[float], None], signs: list[float]) -> None:
    for sign in session.steps(signs):
        step(sign)


def by_step(session: MemorySession, step: Callable[[float], None], signs: list[float]) -> None:
    for sign in signs:
        with session.step():
            step(sign)


def within(context: Any, call: Callable[[], None]) -> None:
    with context:
        call()


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(
    ("loop", "compiled", "fails_at"),
    [(by_steps, True, 1), (by_steps, False, 3), (by_step, True, 3), (by_step, False, 1)],
)
def test_a_step_of_a_loop_that_fails(loop: Callable[..., None], compiled: bool, fails_at: int) -> None:
    model = make_model()

    def step(sign: float) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(tf.fill((4, 8), sign)) ** 2)
        model.optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)

    signs = [-1.0 if number == fails_at else 1.0 for number in range(1, 5)]
    model.optimizer.build(model.trainable_weights)
    step = tf.function(step) if compiled else step
    session = MemorySession(model, None, trace=[3], strict=True)
    for _ in range(2):
        fails(lambda: within(session, lambda: loop(session, step, list(map(tf.constant, signs)))))
    samples = session.recording.samples
    assert samples["ended"].tolist() == ([True] * (fails_at - 1) + [False]) * 2
    assert (peaks(samples)[~samples["ended"]] >= BIG_BYTES).all()
    assert (peaks(samples)[samples["ended"]] < BIG_BYTES).all()
    assert session.report.weights_bytes == sum(variable.numpy().nbytes for variable in model.weights)


def test_a_loop_over_an_iterator_that_is_kept_is_unknown(build: Any) -> None:
    def run() -> None:
        kept = session.steps(loop.data(4))
        for x, y in kept:
            loop.train(x, y)
            raise ValueError("x")

    loop = Loop(build)
    session = MemorySession(loop.model, None, strict=True)
    with pytest.raises(ValueError, match="x"), session:
        run()
    assert np.isnan(session.recording.samples["ended"]).tolist() == [True]
    assert "did not end" not in str(session.report)
