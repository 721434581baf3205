"""``tape.memory`` against counts of the test's own, and tapes that are kept."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tape_cases import alone

import kerasmemwatch as kmw
from kerasmemwatch.analysis.steps.live_set import by_layer, peak_event
from kerasmemwatch.watch.tapes.memory_tape import TapeMemory

pytestmark = pytest.mark.usefixtures("exact_counting")


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    gc.collect()
    with alone():
        yield


def in_use() -> int:
    return int(tf.config.experimental.get_memory_info("CPU:0")["current"])


def peak() -> int:
    return int(tf.config.experimental.get_memory_info("CPU:0")["peak"])


class Loop:
    def __init__(self) -> None:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(256, "tanh", name="wide"), keras.layers.Dense(64, name="head")]
        self.model = keras.Sequential([keras.Input((32,)), *layers])
        self.optimizer = keras.optimizers.SGD(0.1)
        self.x = tf.constant(np.random.default_rng(0).normal(size=(64, 32)), tf.float32)
        self.gradients_bytes = 4 * (32 * 256 + 256 + 256 * 64 + 64)
        self.activations_bytes = 4 * 64 * (256 + 64)
        self.kept: list[Any] = []

    def step(self, *, keep: bool = False) -> Any:
        with kmw.MemoryTape(persistent=keep) as tape:
            loss = tf.reduce_mean(self.model(self.x) ** 2)
        gradients = tape.gradient(loss, self.model.trainable_weights)
        self.optimizer.apply(gradients, self.model.trainable_weights)
        if keep:
            self.kept.append(tape)
        return tape


@pytest.fixture
def loop() -> Loop:
    gc.collect()  # tapes of earlier tests, which may be in cycles
    return Loop()


def test_it_is_none_before_use() -> None:
    tape = kmw.MemoryTape()
    assert tape.memory is None and tape.session is None
    with tape:
        assert tape.memory is None
    assert tape.memory is not None and tape.memory.gradients_bytes is None


@pytest.mark.parametrize("trace", [False, [2]])
def test_eager_figures_are_those_of_an_independent_count(loop: Loop, trace: Any) -> None:
    model, x = loop.model, loop.x
    with kmw.MemorySession(log_dir=None, trace=trace, strict=True) as session:
        for number in (1, 2, 3):
            with session.step():
                gc.collect()
                tape = kmw.MemoryTape()
                before = in_use()
                with tape:
                    loss = tf.reduce_mean(model(x) ** 2)
                saved = in_use() - before
                assert tape.memory == TapeMemory("allocator", number, saved)
                # The loss is kept, too, and the outputs' chunks are as large as they are.
                assert saved >= loop.activations_bytes
                gradients = tape.gradient(loss, model.trainable_weights)
                sizes = [gradient.numpy().nbytes for gradient in gradients]
                assert sum(sizes) == loop.gradients_bytes
                assert tape.memory == TapeMemory("allocator", number, saved, sum(sizes), peak())
                del loss, gradients, tape
    assert len(session.recording.steps) == (1 if trace else 0)


def test_gradients_that_are_sparse_or_none(loop: Loop) -> None:
    table, other = tf.Variable(tf.ones((100, 8))), tf.Variable(1.0)
    with kmw.MemoryTape(persistent=True) as tape:
        y = tf.reduce_sum(tf.gather(table, [3, 5, 7])) * 2.0
    slices, none = tape.gradient(y, [table, other])
    assert none is None and isinstance(slices, tf.IndexedSlices)
    assert tape.memory.gradients_bytes == slices.values.numpy().nbytes + slices.indices.numpy().nbytes == 3 * 8 * 4 + 12
    tape.gradient(y, [table, other], unconnected_gradients="zero")
    assert tape.memory.gradients_bytes == 108 + 4
    tape.gradient(y, {"table": table})
    assert tape.memory.gradients_bytes == 108
    jacobian = tape.jacobian(tf.stack([y, y]), other)
    assert jacobian is None and tape.memory.gradients_bytes == 0
    rows = tf.ragged.constant([[1.0, 2.0], [3.0]])
    with kmw.MemoryTape() as tape:
        tape.watch(rows)
        z = rows * rows
    gradient = tape.gradient(z, rows)
    assert tape.memory.gradients_bytes in (None, gradient.flat_values.numpy().nbytes)


def test_jacobians(loop: Loop) -> None:
    x = tf.ones((5, 3))
    with kmw.MemoryTape(persistent=True) as tape:
        tape.watch(x)
        y = tf.exp(x)
    tape.jacobian(y, x)
    assert tape.memory.gradients_bytes == 15 * 15 * 4
    tape.batch_jacobian(y, x)
    assert tape.memory.gradients_bytes == 5 * 3 * 3 * 4


@pytest.mark.parametrize(("reset_peak", "sample_every"), [(False, 1), (True, 2)])
def test_the_peak_is_unknown_where_it_is_not_the_step_s(loop: Loop, reset_peak: bool, sample_every: int) -> None:
    options = {"reset_peak": reset_peak, "sample_every": sample_every, "trace": False, "strict": True}
    with kmw.MemorySession(log_dir=None, **options) as session, session.step():
        tape = loop.step()
    assert tape.memory.gradients_bytes == loop.gradients_bytes
    assert tape.memory.peak_bytes is None


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_function_s_figures_are_those_of_the_newest_traced_step(loop: Loop, jit_compile: bool) -> None:
    tapes: list[Any] = []

    @tf.function(jit_compile=jit_compile)
    def train(x: Any) -> Any:
        with kmw.MemoryTape() as tape:
            loss = tf.reduce_mean(loop.model(x) ** 2)
        loop.optimizer.apply(tape.gradient(loss, loop.model.trainable_weights), loop.model.trainable_weights)
        tapes.append(tape)
        return loss

    seen = []
    with kmw.MemorySession(loop.model, log_dir=None, trace=[2, 4], strict=True) as session:
        for _ in range(5):
            with session.step():
                train(loop.x)
            seen.append(tapes[0].memory)
    assert len(tapes) == 1
    assert seen[0] is None
    assert [(memory.source, memory.step) for memory in seen[1:]] == [
        ("trace", 2),
        ("trace", 2),
        ("trace", 4),
        ("trace", 4),
    ]
    memory, [*_, newest] = seen[-1], session.recording.steps
    line = newest.timeline
    alive = [line.requested_bytes[(line.birth <= e) & (line.death > e)].sum() for e in range(-1, line.num_events)]
    assert memory.peak_bytes == max(alive)
    if jit_compile:
        # The program never holds all gradients at once, and some it never writes down.
        assert 4 * 256 * 64 <= memory.gradients_bytes <= loop.gradients_bytes
    else:
        assert memory.gradients_bytes == loop.gradients_bytes
        assert memory.saved_for_backward_bytes == loop.activations_bytes


def test_what_an_earlier_tape_holds_is_not_the_function_s(loop: Loop) -> None:
    @tf.function(jit_compile=False)
    def train(x: Any) -> Any:
        with kmw.MemoryTape() as tape:
            loss = tf.reduce_mean(loop.model(x) ** 2)
        loop.optimizer.apply(tape.gradient(loss, loop.model.trainable_weights), loop.model.trainable_weights)
        tapes.append(tape)

    tapes: list[Any] = []
    with kmw.MemorySession(loop.model, log_dir=None, trace=[4], strict=True) as session:
        with session.step():
            loop.step(keep=True)
        for _ in range(3):
            with session.step():
                train(loop.x)
    assert held(session)[4] >= loop.activations_bytes
    assert tapes[0].memory.saved_for_backward_bytes == loop.activations_bytes


def held(session: Any) -> dict[int, int]:
    """By traced step, what is said to be held by kept tapes."""
    found = {}
    for step in session.recording.steps:
        line = step.timeline
        of_tapes = [index for index, owner in enumerate(line.owners) if owner == "kept tapes"]
        found[step.step] = int(line.requested_bytes[np.isin(line.owner, of_tapes)].sum())
    return found


def test_a_tape_that_is_kept_is_the_owner_of_what_it_holds(loop: Loop) -> None:
    with kmw.MemorySession(loop.model, log_dir=None, trace=[2, 4, 6, 8], strict=True) as session:
        for number in range(1, 9):
            with session.step():
                loop.step(keep=number in (3, 5))
            if number == 7:
                saved = [tape.memory.saved_for_backward_bytes for tape in loop.kept]
                before = in_use()
                loop.kept.clear()
                # It was truly held: all of it is free again, and the weights of that time, which the tapes had read.
                assert before - in_use() >= sum(saved)
    assert min(saved) >= loop.activations_bytes
    assert held(session) == {2: 0, 4: saved[0], 6: sum(saved), 8: 0}
    [both] = [step.timeline for step in session.recording.steps if step.step == 6]
    rows = {row.path: row for row in by_layer(both, peak_event(both))}
    assert rows["kept tapes"].activations_bytes == sum(saved)
    assert "kept tapes" in {row.path for row in session.report.layers}


def test_a_tape_that_was_used_up_is_not_kept(loop: Loop) -> None:
    kept = []
    with kmw.MemorySession(loop.model, log_dir=None, trace=[3], strict=True) as session:
        for _ in range(3):
            with session.step():
                kept.append(loop.step())
    assert held(session) == {3: 0}
