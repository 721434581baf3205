"""``MemoryTape`` computes what ``tf.GradientTape`` computes, and makes the same graphs."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import tensorflow as tf
from tape_cases import CASES, alone, inputs, nodes, outcome, parts, raised, recorded, variable

import kerasmemwatch as kmw
from kerasmemwatch.errors import InvalidTypeError

# XLA takes the longest and records nothing that a graph does not: one case of each kind.
IN_XLA = (
    "default",
    "higher_order",
    "custom_gradient",
    "sparse",
    "control_flow",
    "a_function_within",
    "jacobian_of_a_used_tape",
    "shared_layers",
)
# A function is made anew for each place, so only some are made in a session that traces nothing.
IN_AN_UNTRACED_SESSION = (*IN_XLA, "without_watching_accessed_variables", "overlapping", "errors")
METHODS = ("watch", "watched_variables", "gradient", "jacobian", "batch_jacobian", "stop_recording", "reset")


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@contextmanager
def surroundings(name: str) -> Iterator[Callable[[], Any]]:
    """Where a tape is used; gives the context of each of two steps."""
    with ExitStack() as exits:
        if name == "alone":
            yield ExitStack
            return
        trace: Any = {"untraced": False, "traced": [1, 2], "second step traced": [2]}[name]
        session = exits.enter_context(kmw.MemorySession(log_dir=None, trace=trace, strict=True))
        yield session.step
        assert session.recording.samples.num_samples == 2
        # With a strict session, each of its faults is an error. A step that raised leaves no row.
        assert len(session.recording.steps) == len(trace or ())


def compiled(function: Callable[..., Any], make: Any, jit_compile: bool) -> Any:
    def use(x: Any, ids: Any) -> Any:
        return function(make, x, ids)

    return tf.function(use, autograph=False, jit_compile=jit_compile)


@pytest.mark.parametrize("name", CASES)
def test_it_gives_the_same_eagerly(name: str) -> None:
    arguments = inputs()
    expected = expected_of(lambda: CASES[name](tf.GradientTape, *arguments))
    assert outcome(lambda: CASES[name](kmw.MemoryTape, *arguments)) == expected
    with surroundings("second step traced") as step:
        for number in (1, 2):
            with step():
                found = outcome(lambda: CASES[name](kmw.MemoryTape, *arguments))
            assert found == expected, number


@pytest.mark.parametrize(
    ("name", "jit_compile"), [*((name, False) for name in CASES), *((name, True) for name in IN_XLA)]
)
def test_it_gives_the_same_in_a_function(name: str, jit_compile: bool) -> None:
    arguments = inputs()
    plain = compiled(CASES[name], tf.GradientTape, jit_compile)
    expected = [expected_of(lambda: plain(*arguments)) for _ in range(2)]
    places = ("alone", "traced", "untraced") if name in IN_AN_UNTRACED_SESSION else ("alone", "traced")
    for where in places:
        ours = compiled(CASES[name], kmw.MemoryTape, jit_compile)
        with surroundings(where) as step:
            for each in expected:
                with step():
                    found = outcome(lambda ours=ours: ours(*arguments))
                assert found == each, where
        assert ours.experimental_get_tracing_count() == 1
        graphs = [function.get_concrete_function(*arguments).graph for function in (ours, plain)]
        assert nodes(graphs[0]) == nodes(graphs[1]), where
        assert ours.experimental_get_tracing_count() == 1


def expected_of(function: Callable[[], Any]) -> Any:
    """What TensorFlow's own tape gives, which is no error."""
    found = outcome(function)
    assert not (isinstance(found, tuple) and isinstance(found[0], type)), found[1]
    return found


def test_the_comparison_can_fail() -> None:
    x, _ = inputs()
    slices = tf.IndexedSlices(x, tf.constant([0, 1, 2]))
    different = [x, x + 1e-7, tf.cast(x, tf.float64), x[:2], None, [x], slices, {"x": x}]
    seen = [parts(each) for each in different]
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])
    with tf.Graph().as_default() as graph:
        tf.add(tf.constant(1.0), 2.0)
    with tf.Graph().as_default() as other:
        tf.subtract(tf.constant(1.0), 2.0)
    assert nodes(graph) != nodes(other)
    with tf.Graph().as_default() as calling:
        tf.py_function(lambda: 1.0, [], tf.float32)
    with pytest.raises(AssertionError):
        nodes(calling)


def test_its_methods_are_described_as_tensorflow_s() -> None:
    ours, theirs = inspect.signature(kmw.MemoryTape.__init__), inspect.signature(tf.GradientTape.__init__)
    added = ours.parameters["session"]
    assert added.kind is added.KEYWORD_ONLY and added.default is None
    for one, other in zip(list(ours.parameters.values())[:-1], theirs.parameters.values(), strict=True):
        assert (one.name, one.default, one.kind) == (other.name, other.default, other.kind)
    for name in METHODS:
        one, other = getattr(kmw.MemoryTape, name), getattr(tf.GradientTape, name)
        assert inspect.signature(one) == inspect.signature(other)
        assert one.__doc__ == other.__doc__ and one.__name__ == name
    assert {name for name in vars(tf.GradientTape) if not name.startswith("_")} == set(METHODS)
    assert issubclass(kmw.MemoryTape, tf.GradientTape)


def test_a_session_is_a_session() -> None:
    with pytest.raises(InvalidTypeError, match="MemorySession or a MemoryWatch"):
        kmw.MemoryTape(session="logs")
    with pytest.raises(TypeError):
        kmw.MemoryTape(True, True, None)


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("state", ["new", "recorded", "used"])
def test_copies_behave_alike(how: str, state: str) -> None:
    x, _ = inputs()
    make_copy = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda tape: pickle.loads(pickle.dumps(tape))}

    def behaviour(make: Any) -> Any:
        tape, y = (make(), x) if state == "new" else recorded(make, x)
        if state == "used":
            tape.gradient(y, x)
        copied = make_copy[how](tape)
        assert type(copied) is type(tape)
        answers = raised(lambda: copied.gradient(y, x)), copied._persistent, copied._watch_accessed_variables
        with make_copy[how](make(True)) as again:
            again.watch(x)
            z = tf.exp(x)
        return answers, parts(again.gradient(z, x)), parts(again.gradient(z, x))

    found = [[raised(lambda make=make: behaviour(make))] for make in (kmw.MemoryTape, tf.GradientTape)]
    assert found[0] == found[1]
    if not found[0][0]:
        assert behaviour(kmw.MemoryTape) == behaviour(tf.GradientTape)


def test_a_copy_keeps_what_was_measured() -> None:
    x, _ = inputs()
    tape, y = recorded(kmw.MemoryTape, x)
    tape.gradient(y, x)
    assert tape.memory is not None
    assert pickle.loads(pickle.dumps(tape)).memory == copy.deepcopy(tape).memory == tape.memory


# -- functions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit_compile", [False, True])
def test_nothing_retraces(jit_compile: bool) -> None:
    w = variable("retraced")

    def step(x: Any, make: Any) -> Any:
        with make() as tape:
            loss = tf.reduce_sum(tf.tanh(x @ w) ** 2)
        return tape.gradient(loss, w)

    ours = tf.function(lambda x: step(x, kmw.MemoryTape), jit_compile=jit_compile)
    plain = tf.function(lambda x: step(x, tf.GradientTape), jit_compile=jit_compile)
    x, _ = inputs()
    expected = parts(plain(x))

    def call(times: int) -> None:
        for _ in range(times):
            assert parts(ours(x)) == expected

    call(4)
    for trace in ([1, 3], False, "auto"):
        with kmw.MemorySession(log_dir=None, trace=trace, strict=True) as session:
            for _ in range(4):
                with session.step():
                    call(1)
            call(1)
        call(2)
    own = kmw.MemoryTape()
    with own:
        call(1)
    assert ours.experimental_get_tracing_count() == 1
    # It does retrace where TensorFlow's own would.
    for function in (ours, plain):
        function(x[:2])
        assert function.experimental_get_tracing_count() == 2


def _doubled_if_large(x: Any) -> Any:
    if tf.reduce_sum(tf.abs(x)) > 1.0:
        x = x * 2.0
    return x


def _loop_with(make: Any) -> Callable[..., Any]:
    """A function that only AutoGraph makes a graph of."""

    def function(x: Any, steps: Any) -> Any:
        @tf.custom_gradient
        def odd(value: Any) -> Any:
            def gradient(upstream: Any) -> Any:
                # A helper's conditions are converted as well.
                return _doubled_if_large(upstream)

            return value + 0.0, gradient

        total = tf.zeros_like(x)
        for i in tf.range(steps):
            with make(persistent=True) as tape:
                tape.watch(x)
                y = x * x if i % 2 == 0 else odd(tf.exp(x))
                if tf.reduce_sum(y) > 4.0:
                    y = y / 2.0
            gradient = tape.gradient(y, x)
            if gradient is None:
                gradient = tf.zeros_like(x)
            total += gradient
            del tape
            if i > 3:
                break
        with make() as tape:
            tape.watch(x)
            z = odd(x) * total
        return total, tape.gradient(z, x)

    return function


def test_autograph_converts_the_same(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    x, _ = inputs()
    steps = tf.constant(6)
    plain, ours = tf.function(_loop_with(tf.GradientTape)), tf.function(_loop_with(kmw.MemoryTape))
    expected = outcome(lambda: plain(x, steps))
    assert isinstance(expected, list)
    for where in ("alone", "traced"):
        with surroundings(where) as step:
            for _ in range(2):
                with step():
                    assert outcome(lambda: ours(x, steps)) == expected
        graphs = [function.get_concrete_function(x, steps).graph for function in (ours, plain)]
        assert nodes(graphs[0]) == nodes(graphs[1])
        ours = tf.function(_loop_with(kmw.MemoryTape))
    assert not [record for record in caplog.records if "AutoGraph" in record.getMessage()]
    assert "AutoGraph" not in capfd.readouterr().err


def test_errors_of_functions_show_the_user_s_code_only() -> None:
    x, _ = inputs()

    @tf.custom_gradient
    def failing(value: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            if tf.reduce_sum(upstream) > 0.0:  # TensorFlow does not convert this one
                upstream *= 2.0
            return upstream

        return value * 1.0, gradient

    def step(make: Any, x: Any) -> Any:
        with make() as tape:
            tape.watch(x)
            y = failing(x)
        return tape.gradient(y, x)

    plain = outcome(lambda: tf.function(step)(tf.GradientTape, x))
    assert "in user code" in plain[1]
    for where in ("alone", "session"):
        with surroundings_that_may_raise(where) as around, around():
            assert outcome(lambda: tf.function(step)(kmw.MemoryTape, x)) == plain


def test_an_error_of_an_operation_is_the_same() -> None:
    x, _ = inputs()

    def wrong(make: Any) -> str:
        tape, y = recorded(make, x)
        return raised(lambda: tape.gradient(y, x, output_gradients=tf.ones((7, 7, 7))))

    plain = wrong(tf.GradientTape)
    assert "[7,7,7] vs. [3,4]" in plain
    assert wrong(kmw.MemoryTape) == plain
    with kmw.MemorySession(log_dir=None, trace=[2], strict=True) as session:
        for _ in range(2):
            with session.step():
                found = wrong(kmw.MemoryTape)
            # Eager operations take another path of TensorFlow's in a traced step, which leaves out an empty name.
            assert found.removesuffix(" name: ") == plain.removesuffix(" name: ")


@contextmanager
def surroundings_that_may_raise(name: str) -> Iterator[Callable[[], Any]]:
    if name == "alone":
        yield ExitStack
        return
    with kmw.MemorySession(log_dir=None, trace=[1], strict=True) as session:
        yield session.step
