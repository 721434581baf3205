"""A tape without a session of the user's: its own session, functions, threads, and what is left behind."""

from __future__ import annotations

import copy
import functools
import gc
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from leftovers import changed, functions, session_can_start
from tape_cases import alone, parts

import kerasmemwatch as kmw
from kerasmemwatch.attribution.variables.watched import Watched
from kerasmemwatch.watch.tapes import implicit_session
from kerasmemwatch.watch.tapes import memory_tape as tape_module

pytestmark = pytest.mark.usefixtures("exact_counting")

MODES = ("eager", "graph", "xla")


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


class Loop:
    def __init__(self, mode: str = "eager", make: Any = kmw.MemoryTape) -> None:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(32, "tanh", name="wide"), keras.layers.Dense(4, name="head")]
        self.model = keras.Sequential([keras.Input((8,)), *layers], name="model")
        self.optimizer = keras.optimizers.SGD(0.1)
        self.x = tf.constant(np.random.default_rng(0).normal(size=(16, 8)), tf.float32)
        self.make, self.tapes = make, list[Any]()
        compiled: dict[str, Callable[..., Any]] = {
            "eager": lambda step: step,
            "graph": tf.function,
            "xla": lambda step: tf.function(step, jit_compile=True),
        }
        self.train = compiled[mode](self._train)

    def _train(self, x: Any) -> Any:
        with self.make() as tape:
            loss = tf.reduce_mean(self.model(x) ** 2)
        gradients = tape.gradient(loss, self.model.trainable_weights)
        self.optimizer.apply(gradients, self.model.trainable_weights)
        self.tapes[:] = [tape]
        return loss

    def run(self, times: int) -> Any:
        """The session of the newest tape, after so many steps."""
        for _ in range(times):
            self.train(self.x)
        return self.session

    @property
    def session(self) -> Any:
        return self.tapes[0].session

    @property
    def weights(self) -> list[bytes]:
        return [weight.numpy().tobytes() for weight in self.model.weights]


@functools.cache
def weights_of_plain(mode: str, times: int) -> list[bytes]:
    """What ``tf.GradientTape`` makes of the weights; the model is gone by then, and its layers' paths."""
    plain = Loop(mode, tf.GradientTape)
    for _ in range(times):
        plain.train(plain.x)
    return plain.weights


def steps(session: Any) -> list[float]:
    return session.recording.samples["step"].tolist()


@pytest.mark.parametrize("mode", MODES)
def test_it_records_steps_and_names_layers(mode: str) -> None:
    plain_weights = weights_of_plain(mode, 6)
    keras.backend.clear_session()
    gc.collect()
    loop = Loop(mode)
    session = loop.run(6)
    # A function's tape is seen as the function is traced, in its first call; that is no step yet.
    assert steps(session) == list(range(1, 7 if mode == "eager" else 6))
    assert session.recording.samples["train_step"].tolist() == steps(session)
    assert loop.weights == plain_weights
    report = session.report
    assert {"wide", "head"} <= {layer.path for layer in report.layers}
    assert report.weights_bytes == sum(len(weight) for weight in loop.weights)
    rows = {row.path for row in report.peak.by_layer}
    assert {"wide", "head"} <= rows, rows
    assert session.active and not session._recorder.faults.notes


def fit_own_step(make: Any, mode: str, **options: Any) -> Any:
    """A fit of a model that makes a tape in its training step: the last one, the history, the weights, the model."""
    keras.utils.set_random_seed(0)
    tapes: list[Any] = []

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.wide = keras.layers.Dense(32, "tanh", name="wide")
            self.head = keras.layers.Dense(1, name="head")

        def call(self, inputs: Any) -> Any:
            return self.head(self.wide(inputs))

        def train_step(self, data: Any) -> Any:
            x, y = data
            with make() as tape:
                loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            tapes[:] = [tape]
            return {"loss": loss}

    model = Model()
    model.compile(keras.optimizers.Adam(), run_eagerly=mode == "eager", jit_compile=mode == "xla")
    history = model.fit(np.ones((32, 8), np.float32), np.ones((32, 1)), batch_size=8, verbose=0, **options).history
    return tapes[0], history, [weight.numpy().tobytes() for weight in model.weights], model


@functools.cache
def fitted_plainly(mode: str) -> Any:
    return fit_own_step(tf.GradientTape, mode)[1:3]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("watched", [False, True])
def test_within_a_model_s_own_train_step(mode: str, watched: bool) -> None:
    watch = kmw.MemoryWatch(None, trace=[2], strict=True)
    options = {"callbacks": [watch]} if watched else {}
    plain = fitted_plainly(mode)
    keras.backend.clear_session()
    gc.collect()
    tape, history, weights, _model = fit_own_step(kmw.MemoryTape, mode, **options)
    assert (history, weights) == plain
    assert tape.session is watch if watched else tape.session is implicit_session._own
    assert steps(tape.session) == [1, 2, 3, 4] if watched or mode == "eager" else [1, 2, 3]
    paths = {layer.path for layer in tape.session.report.layers}
    assert {"wide", "head"} <= paths
    if watched:
        [traced] = watch.recording.steps
        assert {"wide", "head"} <= set(traced.timeline.owners)
        assert implicit_session._own is None


# -- what is left behind -----------------------------------------------------------------------------------------


def test_only_the_function_s_own_call_is_replaced() -> None:
    loop = Loop("graph")
    before = functions()
    session = loop.run(4)
    assert steps(session) == [1, 2, 3]
    # No class has a hook; the tracing of functions is told to the session, which lives as long as the process.
    assert [place[1:] for place in changed(before)] == [("_create_concrete_function", "")]
    assert "_call" in vars(loop.train)
    assert session_can_start()


def test_an_eager_step_ends_when_it_is_asked_for() -> None:
    loop = Loop()
    before = functions()
    session = loop.run(2)  # the second step is traced
    assert len(session.recording.steps) == 1
    assert steps(session) == [1, 2]
    assert [place[1:] for place in changed(before)] == [("_create_concrete_function", "")]
    assert session_can_start()
    loop.run(1)
    assert steps(session) == [1, 2, 3]


def test_an_eager_step_gives_way_to_a_watch_and_to_a_session() -> None:
    loop = Loop()
    own = loop.run(1)
    with kmw.MemorySession(log_dir=None, trace=[2], strict=True) as session:
        for _ in range(3):
            with session.step():
                loop.run(1)
        assert loop.session is session
    assert len(session.recording.steps) == 1 and steps(session) == [1, 2, 3]
    assert loop.run(1) is own
    loop.model.compile("sgd", "mse")
    watch = kmw.MemoryWatch(None, trace=[2], strict=True)
    loop.model.fit(np.ones((32, 8)), np.ones((32, 4)), batch_size=8, verbose=0, callbacks=[watch])
    assert len(watch.recording.steps) == 1
    assert steps(own) == [1, 2]
    assert not own._recorder.faults.notes


def test_a_recorded_function_is_no_step_of_its_own_in_a_session() -> None:
    loop = Loop("graph")
    own = loop.run(3)
    assert steps(own) == [1, 2]
    with kmw.MemorySession(log_dir=None, trace=[2], strict=True) as session:
        for _ in range(3):
            with session.step():
                loop.run(1)
    assert steps(session) == [1, 2, 3] and steps(own) == [1, 2]
    assert len(session.recording.steps) == 1
    loop.run(1)
    assert steps(own) == [1, 2, 3]
    assert loop.train.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("trace", ["auto", list(range(1, 200, 10))])
def test_a_loop_without_models_is_not_searched_for_them_again_and_again(
    trace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[int] = []
    monkeypatch.setattr(Watched, "find_alive", lambda self: searches.append(1))
    w = tf.Variable(tf.ones((4,)))

    @tf.function
    def step(x: Any) -> Any:
        with kmw.MemoryTape() as tape:
            y = tf.reduce_sum(x * w)
        return tape.gradient(y, w)

    with kmw.MemorySession(log_dir=None, trace=trace) as session:
        for _ in range(200):
            with session.step():
                step(tf.ones((4,)))
    assert 1 <= len(searches) <= 3


# -- functions ---------------------------------------------------------------------------------------------------


def test_two_functions_and_one_that_another_calls() -> None:
    w = tf.Variable(tf.ones((4,)))

    @tf.function
    def inner(x: Any) -> Any:
        with kmw.MemoryTape() as tape:
            y = tf.reduce_sum(x * w)
        return tape.gradient(y, w)

    @tf.function
    def outer(x: Any) -> Any:
        with kmw.MemoryTape() as tape:
            y = tf.reduce_sum(inner(x) * w)
        return tape.gradient(y, w)

    x = tf.range(4.0)
    for _ in range(3):
        outer(x)
    own = implicit_session._own
    assert steps(own) == [1, 2]  # inner is a part of outer's
    assert "_call" in vars(outer) and "_call" not in vars(inner)
    for _ in range(3):
        inner(x)
    # It has a trace by now, in which no tape is seen again: its calls are no steps.
    assert steps(own) == [1, 2]
    for _ in range(3):
        inner(tf.ones((3, 4)))
    assert steps(own) == [1, 2, 3, 4]
    with kmw.MemoryTape() as tape:
        tape.watch(x)
        y = outer(x)
    tape.gradient(y, x)
    assert steps(own) == [1, 2, 3, 4, 5]  # an eager step, which a call within is a part of
    outer(x)
    assert steps(own) == [1, 2, 3, 4, 5, 6]


def test_methods_have_steps_each() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.w = tf.Variable(2.0)

        @tf.function
        def step(self, x: Any) -> Any:
            with kmw.MemoryTape() as tape:
                y = x * self.w
            return tape.gradient(y, self.w)

    one, other = Trainer(), Trainer()
    assert [one.step(tf.constant(value)).numpy() for value in (1.0, 2.0, 3.0)] == [1.0, 2.0, 3.0]
    assert [other.step(tf.constant(value)).numpy() for value in (1.0, 2.0, 3.0)] == [1.0, 2.0, 3.0]
    assert steps(implicit_session._own) == [1, 2, 3, 4]


def test_a_recorded_function_is_let_go_as_without_us() -> None:
    w = tf.Variable(1.0)
    gone = []
    for make in (tf.GradientTape, kmw.MemoryTape):

        def step(x: Any, make: Any = make) -> Any:
            with make() as tape:
                y = x * w
            return tape.gradient(y, w)

        function = tf.function(step)
        for _ in range(3):
            function(tf.constant(1.0))
        assert ("_call" in vars(function)) == (make is kmw.MemoryTape)
        gc.collect()
        gc.disable()
        try:
            reference = weakref.ref(function)
            del function
            gone.append(reference() is None)
        finally:
            gc.enable()
    assert gone == [True, True]


def test_a_copy_of_a_recorded_function_works_without_the_original() -> None:
    w = tf.Variable(1.0)

    def step(x: Any) -> Any:
        with kmw.MemoryTape() as tape:
            y = x * w
        return tape.gradient(y, w)

    function = tf.function(step)
    function(tf.constant(2.0))
    copied = copy.copy(function)
    assert copied(tf.constant(3.0)).numpy() == 3.0
    del function
    gc.collect()
    assert copied(tf.constant(4.0)).numpy() == 4.0
    module = tf.Module()
    module.step = tf.function(step, input_signature=[tf.TensorSpec(())])
    module.w = w
    assert module.step(tf.constant(5.0)).numpy() == 5.0


def test_a_recorded_function_is_saved_and_loaded(tmp_path: Any) -> None:
    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(2.0)

        @tf.function(input_signature=[tf.TensorSpec((), tf.float32)])
        def slope(self, x: Any) -> Any:
            with kmw.MemoryTape() as tape:
                y = x * self.w
            return tape.gradient(y, self.w)

    module = Module()
    for _ in range(2):
        assert module.slope(tf.constant(3.0)).numpy() == 3.0
    tf.saved_model.save(module, str(tmp_path))
    assert tf.saved_model.load(str(tmp_path)).slope(tf.constant(4.0)).numpy() == 4.0


def test_an_error_in_a_recorded_function_is_the_user_s() -> None:
    w = tf.Variable([1.0])

    @tf.function
    def step(x: Any) -> Any:
        with kmw.MemoryTape() as tape:
            y = tf.reduce_sum(tf.debugging.check_numerics(x, "not a number") * w)
        return tape.gradient(y, w)

    for _ in range(2):
        step(tf.constant([1.0]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a number") as caught:
        step(tf.constant([float("nan")]))
    files = [entry.path.name for entry in caught.traceback]
    assert "implicit_session.py" not in files[1:-1]
    assert not {"memory_session.py", "loop_watcher.py"} & set(files)
    step(tf.constant([1.0]))
    recording = implicit_session._own.recording
    assert steps(implicit_session._own) == [1, 2, 3]
    assert recording.samples["ended"].tolist() == [True, False, True]


# -- the function in which the first tape is seen ----------------------------------------------------------------


def hooks_in_place(before: dict[tuple[str, str, str], Any]) -> list[tuple[str, ...]]:
    """What is not as it was, but for what the session keeps as long as the process lives."""
    return [place[1:] for place in changed(before) if place[1:] != ("_create_concrete_function", "")]


def in_function(body: Callable[[], Any]) -> tuple[Any, list[tuple[str, ...]]]:
    """A function with a tape, and what was hooked while it was traced."""
    before, within = functions(), list[list[tuple[str, ...]]]()
    w = tf.Variable([2.0])

    @tf.function
    def step(x: Any) -> Any:
        with kmw.MemoryTape() as tape:
            y = tf.reduce_sum(x * w**2)
        within.append(hooks_in_place(before))
        body()
        return tape.gradient(y, w)

    step.hooks = lambda: hooks_in_place(before)
    return step, within


def test_hooks_stay_until_the_function_was_called() -> None:
    step, within = in_function(lambda: None)
    step(tf.constant([3.0]))
    assert ("FuncGraph", "_create_op_internal") in within[0]
    assert step.hooks() == [] and session_can_start()
    step(tf.constant([3.0]))
    step(tf.constant([3.0, 4.0]))  # traced again, within a step
    assert step.hooks() == [] and session_can_start()


def test_a_function_that_cannot_be_traced_is_not_waited_for() -> None:
    step, within = in_function(broken)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken on purpose"):
            step(tf.constant([3.0]))
        gc.collect()  # what the exception has kept alive
        assert step.hooks() == [] and session_can_start()
    assert all(within)


@pytest.mark.parametrize("then", ["fit", "session", "eager tape", "another function", "functions"])
def test_a_function_whose_graph_an_exception_keeps_is_not_waited_for_long(then: str) -> None:
    step, within = in_function(broken)
    with pytest.raises(RuntimeError, match="broken on purpose") as kept:
        step(tf.constant([3.0]))
    assert within and step.hooks()
    if then == "fit":
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        watch = kmw.MemoryWatch(log_dir=None, strict=True, trace=[2])
        model.fit(np.ones((6, 2)), np.ones((6, 1)), batch_size=2, verbose=0, callbacks=[watch])
        assert watch.report.traced_steps == (2,)
    elif then == "session":
        with kmw.MemorySession(log_dir=None, strict=True) as session, session.step():
            pass
    elif then == "eager tape":
        with kmw.MemoryTape() as tape:
            pass
        assert tape.session.recording  # which ends its step
    elif then == "another function":
        other = in_function(lambda: None)[0]
        for _ in range(4):
            other(tf.constant([3.0]))
        assert steps(implicit_session._own) == [1, 2, 3]
        assert implicit_session._own.report.traced_steps == (2,)
    else:
        for _ in range(5):
            tf.function(lambda: tf.constant(1.0))()
    assert step.hooks() == [] and session_can_start()
    assert kept.tb


def test_the_first_call_tells_whose_operations_are() -> None:
    loop = Loop("graph")
    report = loop.run(4).report
    assert {layer.path: layer.gradients_bytes for layer in report.layers if layer.weights_bytes} == {
        "wide": 4 * 9 * 32,
        "head": 4 * 33 * 4,
    }
    assert not [note for note in report.notes if "names only" in note]


# -- turned off, forked, in threads ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_turned_off_it_is_a_plain_tape(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERASMEMWATCH_DISABLE", "1")
    before = functions()
    loop = Loop(mode)
    assert loop.run(3) is None
    assert loop.weights == weights_of_plain(mode, 3)
    assert implicit_session._own is None and changed(before) == []
    memory = loop.tapes[0].memory
    if mode == "eager":  # which needs no session, but for the peak
        assert memory.gradients_bytes == 4 * (8 * 32 + 32 + 32 * 4 + 4) and memory.peak_bytes is None
    else:
        assert memory is None and "_call" not in vars(loop.train)


def test_tapes_of_several_threads() -> None:
    x = tf.constant([1.0, 2.0, 3.0])
    errors: list[BaseException] = []
    found: dict[int, list[Any]] = {}
    start = threading.Barrier(4)

    def work(number: int) -> None:
        try:
            w = tf.Variable(float(number))
            function = tf.function(lambda x: differentiate(x, w))
            start.wait()
            for _ in range(10):
                found.setdefault(number, []).append((parts(differentiate(x, w)), parts(function(x))))
        except BaseException as error:
            errors.append(error)

    def differentiate(x: Any, w: Any) -> Any:
        with kmw.MemoryTape(persistent=True) as tape:
            tape.watch(x)
            y = tf.sin(x * w)
        return tape.gradient(y, [x, w]), tape.jacobian(y, x, experimental_use_pfor=False)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for number in range(4):
        assert len(found[number]) == 10
        assert all(each == found[number][0] for each in found[number])
        assert found[number][0][0] == found[number][0][1] or number  # eager and graph agree where nothing is fused
    own = implicit_session._own
    # The steps are one thread's; the recording is whole.
    recorded = steps(own)
    assert recorded == list(range(1, len(recorded) + 1)) and len(recorded) >= 10
    assert not own._recorder.faults.notes
    assert len(own.recording.steps) >= 1
    assert session_can_start()


def test_tapes_of_other_threads_within_a_traced_step() -> None:
    x = tf.constant([1.0, 2.0, 3.0])
    found: list[Any] = []

    def differentiate() -> Any:
        with kmw.MemoryTape() as tape:
            tape.watch(x)
            y = tf.sin(x) * x
        return parts(tape.gradient(y, x))

    expected = differentiate()
    with kmw.MemorySession(log_dir=None, trace=[2], strict=True) as session:
        for _ in range(3):
            with session.step():
                threads = [
                    threading.Thread(target=lambda: found.extend(differentiate() for _ in range(20))) for _ in range(3)
                ]
                for thread in threads:
                    thread.start()
                found.append(differentiate())
                for thread in threads:
                    thread.join()
    assert found == [expected] * 3 * 61
    assert steps(session) == [1, 2, 3] and len(session.recording.steps) == 1


def test_another_thread_takes_over_once_the_first_has_ended() -> None:
    loop = Loop()
    thread = threading.Thread(target=loop.run, args=(2,))
    thread.start()
    thread.join()
    session = loop.run(3)
    assert len(steps(session)) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_a_session_of_its_own(run_forked_python: Any) -> None:
    script = """
        import os, sys
        import tensorflow as tf
        import kerasmemwatch as kmw
        from kerasmemwatch.watch.tapes import implicit_session

        w = tf.Variable(1.0)

        def step():
            with kmw.MemoryTape() as tape:
                y = w * 2.0
            tape.gradient(y, w)
            return tape.session

        parent = step()
        pid = os.fork()
        if pid == 0:
            child = step()
            os._exit(0 if child is not parent and child.recording.samples.num_samples == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert step() is parent and parent.recording.samples.num_samples == 2
    """
    run_forked_python(script)


# -- faults ------------------------------------------------------------------------------------------------------


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken on purpose")


BOTH = ("eager", "graph")
FAULTS: list[tuple[Any, str, tuple[str, ...]]] = [
    # What fails, and in which modes it is met.
    (tape_module, "session_of_tape", BOTH),
    (tape_module, "_allocator", ("eager",)),
    (tape_module, "tensor_bytes", ("eager",)),
    (tape_module, "_peak", ("eager",)),
    (tape_module, "_step", ("eager",)),
    (tape_module, "traced_memory", ("graph",)),
    (tape_module.persistent_tapes, "keep", ("eager",)),
    (implicit_session, "_outermost_function", ("graph",)),
    (implicit_session, "current", BOTH),
    (implicit_session, "_own_session", BOTH),
    (implicit_session, "_calls_are_steps", ("graph",)),
    (implicit_session, "AwaitedCall", ("graph",)),
    (implicit_session.AwaitedCall, "expect", ("graph",)),
    (implicit_session._OwnSession, "step", BOTH),
    (implicit_session._OwnSession, "steps_are_here", BOTH),
    (implicit_session._OwnSession, "_begin", BOTH),
    (implicit_session._OwnSession, "_enter", BOTH),
    (implicit_session._OwnSession, "_leave", BOTH),
    (implicit_session._OwnSession, "_end_eager_step", BOTH),
]


@pytest.mark.parametrize(
    ("owner", "name", "mode"),
    [(owner, name, mode) for owner, name, met in FAULTS for mode in met],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_of_ours_is_reported_once_and_reaches_nobody(
    owner: Any,
    name: str,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tape_module, "_faults", type(tape_module._faults)())  # it has reported none yet
    expected = weights_of_plain(mode, 5)
    loop = Loop(mode)
    # Before the session is closed that broke, all is whole again.
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, logger="kerasmemwatch"):
        patch.setattr(owner, name, broken)
        loop.run(5)
        assert loop.tapes[0].memory is None or mode == "eager" or name != "traced_memory"
    assert loop.weights == expected
    records = [record.getMessage() for record in caplog.records if "broken on purpose" in record.getMessage()]
    assert len(records) == 1, records


BIG_BYTES = 64 * 1024**2


def grow(value: Any) -> Any:
    """Takes much and fails, if the value is negative."""

    def fail() -> Any:
        return tf.gather(tf.fill((BIG_BYTES // 4,), value), BIG_BYTES)

    return tf.cond(value < 0, fail, lambda: value)


@tf.custom_gradient
def grows_backward(value: Any, sign: Any) -> Any:
    return tf.identity(value), lambda upstream: (grow(upstream * sign), None)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("where", ["forward", "gradient"])
def test_a_step_that_fails_ends_there(where: str, compiled: bool) -> None:
    weight, tapes = tf.Variable(1.0), list[Any]()

    def step(sign: Any) -> Any:
        with kmw.MemoryTape() as tape:
            tapes[:] = [tape]
            loss = weight * 2.0
            loss = grow(loss * sign) if where == "forward" else grows_backward(loss, sign)
        return tape.gradient(loss, weight)

    failed, step = list[bool](), tf.function(step) if compiled else step
    for sign in (1.0, 1.0, -1.0, 1.0):
        try:
            step(tf.constant(sign))
        except tf.errors.InvalidArgumentError:
            failed.append(True)
            tf.fill((2 * BIG_BYTES // 4,), 1.0).numpy()  # not the step's any more
    samples = tapes[0].session.recording.samples
    peaks, ended = samples["device_peak_bytes"][:, 0], samples["ended"]
    # The first call of a function that is made in it is none of the steps.
    assert ended.tolist() == [True, True, False, True][compiled:]
    assert failed == [True]
    assert (peaks[~ended] >= BIG_BYTES).all() and (peaks[~ended] < 1.9 * BIG_BYTES).all()
    assert (peaks[ended] < BIG_BYTES).all()


def test_a_batch_that_is_gone_within_the_step_is_an_input() -> None:
    loop = Loop()
    iterator = iter(tf.data.Dataset.from_tensor_slices(np.ones((48, 8), "float32")).batch(4))
    batches = list(iterator)

    def of_the_step() -> Any:
        loop.train(batch := batches.pop())
        del batch
        # Another dies, too, that no iterator has returned.
        others.pop()

    others = [tf.ones((40, i + 1)) for i in range(12)]
    for _ in range(11):
        of_the_step()
    [_, traced] = loop.session.report.steps
    gone = (traced.timeline.birth < 0) & (traced.timeline.death < traced.timeline.num_events)
    sizes = traced.timeline.requested_bytes[gone].tolist()
    owners = [traced.timeline.owners[code] for code in traced.timeline.owner[gone].tolist()]
    found = dict(zip(sizes, owners, strict=True))
    assert found[4 * 8 * 4] == "input pipeline"
    assert [owner for size, owner in found.items() if size >= 160 and size % 160 == 0] == ["eager tensors"]
