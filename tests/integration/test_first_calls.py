"""What functions keep from their first call on, and variables' handles: the rest of what small models hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from forks import run_forked
from tensorflow.python import pywrap_tfe
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from kerasmemwatch import MemorySession
from kerasmemwatch.attribution import function_constants
from kerasmemwatch.attribution.events.allocation_events import read_events
from kerasmemwatch.attribution.events.profiler_capture import Capture
from kerasmemwatch.attribution.function_constants import FirstCalls
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.live import live_buffers
from kerasmemwatch.attribution.live.tensor_places import Place
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.owners import FUNCTIONS, VARIABLE_HANDLES


def captured(action: Any) -> bytes:
    capture = Capture()
    capture.start()
    try:
        kept = action()
        return capture.stop() or b""
    finally:
        capture.discard()
        del kept


def test_each_variable_has_a_handle_of_that_size() -> None:
    space = captured(lambda: [tf.Variable(tf.ones((size,))) for size in (3, 1000, 7)])
    (events,) = read_events(xplane_pb2.XSpace.FromString(space)).values()
    handles = [
        int(events.requested_bytes[event])
        for event in range(len(events))
        if events.births[event] and events.ops[events.op[event]] == "VarHandleOp"
    ]
    assert handles == [live_buffers.HANDLE_BYTES] * 3


def test_constants_are_what_outlives_the_first_call() -> None:
    table = np.arange(500.0, dtype=np.float32)

    @tf.function
    def looked_up(index: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.constant(table) * 2, index)

    stack, index = OwnerStack(), tf.constant([1, 2, 3])
    calls = FirstCalls(stack, Faults(strict=True))
    first = captured_call(calls, stack, lambda: looked_up(index))
    assert 2000 in first  # the product, which is computed once and for all
    again = captured_call(calls, stack, lambda: looked_up(index))
    assert again[: len(first)] == first
    assert sum(again[len(first) :]) < 100


def captured_call(calls: FirstCalls, stack: OwnerStack, call: Any) -> list[int]:
    with calls.captured():
        stack.made(stack.graph(call), "an operation")
        call()
    return [kept.bytes for kept in calls.kept()]


def test_whoever_makes_functions_at_every_step_is_captured_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_constants, "_MAX_CAPTURES", 3)
    stack, functions, index = OwnerStack(), list[Any](), tf.constant([1, 2, 3])
    calls = FirstCalls(stack, Faults(strict=True))
    for size in range(1000, 1005):
        function = tf.function(lambda index, size=size: tf.gather(tf.constant(np.arange(size)) * 2, index))
        functions.append(function)
        captured_call(calls, stack, lambda function=function: function(index))
    assert [left.bytes for left in calls.kept() if left.bytes >= 8000] == [8000, 8008, 8016]
    assert not calls._captured


def test_what_variables_and_tensors_hold_is_no_constant() -> None:
    stack, kept = OwnerStack(), list[Any]()
    calls = FirstCalls(stack, Faults(strict=True))

    def call() -> None:
        kept.append(tf.Variable(tf.zeros((1000,))))
        kept[0].assign_add(tf.ones((1000,)))  # moves it
        kept.append(kept[0].read_value() + 1)

    assert all(size < 4000 for size in captured_call(calls, stack, call))


def test_a_tape_around_does_not_watch_what_we_read() -> None:
    other, variable = tf.Variable(tf.zeros((1000,))), tf.Variable(1.0)
    calls, stack = FirstCalls(OwnerStack(), Faults(strict=True)), OwnerStack()
    with tf.GradientTape() as tape:
        captured_call(calls, stack, lambda: variable * 2)
        live_buffers.live_buffers()
    assert [each.ref() for each in tape.watched_variables()] == [variable.ref()]
    del other


def test_a_tape_around_does_not_record_what_we_read(monkeypatch: pytest.MonkeyPatch) -> None:
    variable, recorded = tf.Variable(tf.zeros((1000,))), list[bool]()

    def records() -> bool:
        return bool(pywrap_tfe.TFE_Py_TapeSetShouldRecordBackprop([variable.handle]))

    def place(*_: Any, **__: Any) -> Place:
        recorded.append(records())
        return Place()

    monkeypatch.setattr(live_buffers, "variable_place", place)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        assert records()
        live_buffers.live_buffers()
        assert recorded and not any(recorded)
        assert records()


def loop(width: int, steps: int = 3) -> MemorySession:
    model = keras.Sequential([keras.Input((width,)), keras.layers.Dense(width), keras.layers.Dense(2)])
    optimizer, x, y = keras.optimizers.SGD(), tf.ones((4, width)), tf.ones((4, 2))

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = keras.losses.mean_squared_error(y, model(x))
        optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)

    with MemorySession(model, log_dir=None, strict=True) as session:
        for _ in range(steps):
            with session.step():
                step()
    return session


@pytest.mark.long
def test_a_small_function_is_explained() -> None:
    # In a process of its own: beside what earlier tests have left, a few bytes are no share.
    status, out, errors = run_forked(
        Path(__file__).parent / "scripts" / "article_loops.py", "layer", "graph", "session"
    )
    assert status == 0, errors
    told = json.loads(out.splitlines()[-1])
    assert told["coverage"] >= 0.99
    assert 0 < told["held"][FUNCTIONS] < told["held"][VARIABLE_HANDLES]


@pytest.mark.long
def test_a_model_of_many_small_constants_is_explained() -> None:
    status, out, errors = run_forked(Path(__file__).parent / "scripts" / "many_constants.py")
    assert status == 0, errors
    told = json.loads(out.splitlines()[-1])
    assert told["coverage"] >= 0.99
    assert told["held"][FUNCTIONS] >= 1_200 * 16


def test_a_large_function_is_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FUNCTIONS in [row.path for row in loop(8).report.peak.by_layer]
    monkeypatch.setattr(function_constants, "_MAX_OPERATIONS", 20)
    monkeypatch.setattr(function_constants, "_SMALL_MODEL_BYTES", 1 << 60)  # whatever earlier tests have left
    assert FUNCTIONS in [row.path for row in loop(8).report.peak.by_layer]
    monkeypatch.setattr(function_constants, "_SMALL_MODEL_BYTES", 0)
    assert FUNCTIONS not in [row.path for row in loop(8).report.peak.by_layer]
    monkeypatch.undo()
    monkeypatch.setattr(function_constants, "_SMALL_MODEL_BYTES", 1 << 60)
    monkeypatch.setattr(function_constants, "_MAX_IF_SMALL", 20)
    assert FUNCTIONS not in [row.path for row in loop(8).report.peak.by_layer]


def test_a_long_loop_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> Any:
        @tf.function(autograph=False)
        def turns() -> Any:
            return tf.while_loop(lambda turn: turn < 50, lambda turn: turn + 1, [tf.constant(0)])

        stack = OwnerStack()
        return captured_call(FirstCalls(stack, Faults(strict=True)), stack, turns)

    assert kept()
    monkeypatch.setattr(function_constants, "_MAX_BYTES", 1000)
    assert kept() == []


def test_somebody_elses_profiler_is_left_alone(tmp_path: Any) -> None:
    stack = OwnerStack()
    tf.profiler.experimental.start(str(tmp_path))
    assert captured_call(FirstCalls(stack, Faults(strict=True)), stack, lambda: tf.ones((100,)) + 1) == []
    tf.profiler.experimental.stop()
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_an_exception_ends_the_capture() -> None:
    with pytest.raises(ZeroDivisionError), FirstCalls(OwnerStack(), Faults(strict=True)).captured():
        raise ZeroDivisionError
    assert captured(lambda: tf.ones((100,)) + 1)  # another can begin
