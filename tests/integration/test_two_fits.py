"""Two fits in two threads of a process: each has its own rows and layers, and says what is shared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

WAIT_S = 60
X, Y = np.ones((48, 16), "float32"), np.ones((48, 1), "float32")


def together(*works: Callable[[], None]) -> None:
    """Run each in a thread of its own."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


class Waiting(keras.layers.Layer):
    """In its second step it lets another fit run its first one."""

    def __init__(self, inside: threading.Event, done: threading.Event) -> None:
        super().__init__(name="waiting")
        self.inside, self.done, self.steps = inside, done, 0

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.steps += bool(training)
        if self.steps == 2:
            self.inside.set()
            assert self.done.wait(WAIT_S)
        return inputs


def test_what_two_fits_say_of_each_other(tools: Any) -> None:
    inside, done, traced = threading.Event(), threading.Event(), threading.Event()
    layers = keras.layers
    one = keras.Sequential([keras.Input((16,)), layers.Dense(32, name="one"), Waiting(inside, done), layers.Dense(1)])
    one.compile("sgd", "mse", run_eagerly=True)
    two = keras.Sequential([keras.Input((16,)), layers.Dense(64, name="two"), layers.Dense(1, name="head")])
    two.compile("sgd", "mse", jit_compile=False)
    first, second = MemoryWatch(None, trace=[2], strict=True), MemoryWatch(None, trace=[4], strict=True)

    def wait(batch: int) -> None:
        assert inside.wait(WAIT_S)

    def go_on(batch: int) -> None:
        done.set()
        if batch == 1:
            assert traced.wait(WAIT_S)

    other = tools.callback(on_train_batch_begin=wait, on_train_batch_end=go_on)
    told = tools.callback(on_train_batch_end=lambda batch: batch == 1 and traced.set())

    def fit(model: Any, watch: MemoryWatch, callback: Any) -> None:
        model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[callback, watch])

    together(lambda: fit(one, first, told), lambda: fit(two, second, other))
    for watch, own in ((first, {"one", "waiting"}), (second, {"two", "head"})):
        assert watch.recording.samples["step"].tolist() == list(range(1, 7))
        names = {row.path for row in watch.report.layers if row.class_name}
        assert own <= names | {"waiting"}
        assert not names & ({"one", "two", "waiting", "head"} - own)
        assert watch.report.traced_steps
    assert any("Another fit ran in a thread" in note for note in first.report.notes)
    notes = " ".join(second.report.notes)
    assert "One fit per process is traced at a time, and another was" in notes
    assert "before the watch was added" not in notes


def test_what_another_eager_fit_holds_is_not_this_ones(tools: Any) -> None:
    """Both run the same hooked methods of Keras and TensorFlow; layers, loss and variables are each fit's own."""
    inside, done = threading.Event(), threading.Event()
    layers, wide = keras.layers, 100_000
    one = keras.Sequential([keras.Input((16,)), layers.Dense(32, name="one"), Waiting(inside, done), layers.Dense(1)])
    two = keras.Sequential([keras.Input((16,)), layers.Dense(wide, name="two")])
    for model in (one, two):
        model.compile("sgd", "mse", run_eagerly=True)
    first = MemoryWatch(None, trace=[2], strict=True)

    def wait(batch: int) -> None:
        assert inside.wait(WAIT_S)

    other = tools.callback(on_train_batch_begin=wait, on_train_batch_end=lambda batch: done.set())
    wide_labels = np.ones((8, wide), "float32")
    together(
        lambda: one.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[first]),
        lambda: two.fit(X[:8], wide_labels, batch_size=8, verbose=0, callbacks=[other, MemoryWatch(None, trace=[9])]),
    )
    rows = {row.path: row for row in first.report.layers}
    assert not [path for path in rows if "two" in path]
    assert first.report.weights_bytes == sum(weight.numpy().nbytes for weight in one.weights)
    # The other loss alone takes several times 8 x 100,000 floats.
    assert rows["loss"].total_bytes < wide
    assert any("Another fit ran in a thread" in note for note in first.report.notes)


def test_a_fit_after_another_is_alone() -> None:
    for watch in (MemoryWatch(None, trace=[2], strict=True), MemoryWatch(None, trace=[2], strict=True)):
        model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
        together(lambda model=model, watch=watch: model.fit(X, Y, batch_size=8, verbose=0, callbacks=[watch]))
        assert watch.report.traced_steps == (2,)
        assert not any("nother" in note for note in watch.report.notes)
