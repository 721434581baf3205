"""The cause of growth is found while a loop runs, and a loop that does not grow is not looked at."""

from __future__ import annotations

import gc
import os
import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from forks import run_forked

import kerasmemwatch as kmw
from kerasmemwatch.compat.tensorflow import EAGER_PY_FUNCTION, EAGER_TENSOR, LOOKUP_TABLE
from kerasmemwatch.leaks.evidence.functions import traced_functions
from kerasmemwatch.leaks.evidence.graph_sizes import graph_sizes, grown_graph
from kerasmemwatch.leaks.evidence.look import take_look
from kerasmemwatch.leaks.evidence.models import follow_models
from kerasmemwatch.leaks.evidence.piles import Count, count_classes
from kerasmemwatch.probes import heap
from kerasmemwatch.sampling.cost_share import CostShare
from kerasmemwatch.watch.search import allowance, investigation, leak_search

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "scripts" / "readme_growth.py"
pytestmark = pytest.mark.usefixtures("exact_counting")


def loop(step: Any, log_dir: Path, epochs: int = 4, steps: int = 50) -> Any:
    """Run a step 200 times in a session; the calls of the user's run while it ends."""
    session = kmw.MemorySession(log_dir=str(log_dir), trace=False, strict=True)
    with session:
        for _ in session.epochs(epochs):
            for number in range(steps):
                with session.step():
                    step(number)
    return session


@pytest.fixture(autouse=True)
def _no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Verdicts are given as often as there are rows for them, and looks are taken, however slow this machine is and
    # however many objects other tests left.
    monkeypatch.setattr(leak_search, "_VERDICT_SHARE", 1.0)
    monkeypatch.setattr(allowance, "_LOOK_S", 60.0)
    monkeypatch.setattr(leak_search, "AT_ENDS", CostShare(1.0))


def test_tensors_that_a_loop_keeps_are_found(tmp_path: Path) -> None:
    losses: list[Any] = []

    def step(number: int) -> None:
        losses.append(tf.ones((64, 64)) * number)

    session = loop(step, tmp_path)
    report = session.report
    leak = report.leaks[0]
    assert leak.cause == "retained_tensors" and leak.rate == pytest.approx(64 * 64 * 4, rel=0.2)
    assert leak.where.startswith(__file__) and leak.where.endswith("losses.append(tf.ones((64, 64)) * number)")
    assert "losses" in leak.trace[0].words and [link.verdict for link in leak.trace][1:] == ["suspect", "stuck"]
    assert kmw.load(tmp_path).report.leaks == report.leaks
    assert "losses.append(" in str(report) and "full garbage collection was run" in str(report.notes)
    [visits] = (note for note in report.notes if "live objects were visited" in note)
    assert visits.startswith("All live objects were visited ")
    # What the looks themselves added to RSS is recorded with their steps, so that no verdict takes it for growth.
    rises = kmw.load(tmp_path).run.own_rises
    assert rises == session.recording.run.own_rises and all(0 < rise.step <= 200 for rise in rises)
    assert ("RSS rose by" in visits) == bool(rises)


class Snapshots(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights.append(self.model.get_weights())


@pytest.fixture
def _heap_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_SHARE", 1e9)
    monkeypatch.setattr(heap, "_FIRST_SHARE", 1e9)
    monkeypatch.setattr(heap, "READINGS", heap._Readings())


@pytest.mark.usefixtures("_heap_at_each_step")
@pytest.mark.parametrize("keeps", [True, False])
def test_what_each_of_a_few_epochs_keeps_is_found_by_the_heap(keeps: bool) -> None:
    """RSS hardly moves, as free memory of the heap is used first, and does so in clean runs, too."""
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(256), keras.layers.Dense(256)])
    model.compile("sgd", "mse")
    watch, snapshots = kmw.MemoryWatch(log_dir=None, trace=False, strict=True), Snapshots()
    x, y = np.ones((320, 32), np.float32), np.ones((320, 256), np.float32)
    model.fit(x, y, batch_size=32, epochs=12, verbose=0, callbacks=[watch, *[snapshots] * keeps])
    report = watch.report
    told = {growth.label: growth for growth in report.growth}
    if not keeps:
        assert report.leaks == () and "host heap" not in told
        return
    [leak] = report.leaks
    assert leak.cause == "retained_arrays" and leak.where.endswith("self.weights.append(self.model.get_weights())")
    assert told["host heap"].verdict == "growing" and told["host heap"].unit == "epoch"
    assert told["host heap"].rate == pytest.approx(sum(each.nbytes for each in snapshots.weights[0]), rel=0.3)
    assert "host heap grows by " in str(report) and "what your code keeps explains it" in " ".join(str(report).split())


class Keeper(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Any] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.outputs.append(tf.ones((64, 64)) * batch)


def short_fit(watch: kmw.MemoryWatch) -> None:
    """Few enough steps that a second verdict is due at the end only; nobody else knows the callback."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(np.ones((50, 4)), np.ones((50, 2)), batch_size=1, epochs=4, verbose=0, callbacks=[watch, Keeper()])


def test_what_a_callback_keeps_is_found_in_a_short_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first verdict within the fit takes all of the time that verdicts may take.
    monkeypatch.setattr(leak_search, "_VERDICT_SHARE", 1e-9)
    watch = kmw.MemoryWatch(None, trace=False, strict=True, verbose=0)
    short_fit(watch)
    [leak] = watch.report.leaks
    assert leak.cause == "retained_tensors" and leak.where.endswith("self.outputs.append(tf.ones((64, 64)) * batch)")
    assert "callback Keeper of test_leak_search.py" in leak.trace[0].words and "self.outputs.clear()" in leak.fix
    notes = str(watch.report).partition("\n* ")[2]
    assert "retained_tensors" not in notes and "retained_tensors" in str(watch.report)


@pytest.mark.long
def test_readme_shows_such_a_cause() -> None:
    status, out, errors = run_forked(
        SCRIPT, str(ROOT / "docs" / "growing.py"), environment={**os.environ, "KERAS_BACKEND": "tensorflow"}
    )
    assert status == 0, errors
    shown = (ROOT / "README.md").read_text().partition("docs/growing.py`")[2].split("```")[1]

    def words(text: str) -> list[str]:
        return re.findall(r"^ *(?:Growing: [\w:]+|[A-Z]\w+:|callback Probe|-> [^\d]+)", text, re.MULTILINE)

    assert sorted(words(out)) == sorted(words(shown)) and len(words(shown)) > 8
    assert "self.outputs.append(self.model(X[:64]))" in out and "CHANGE THIS" in out


WORDS = tf.constant([f"word {number}" for number in range(2000)])
VECTOR, WEIGHT = tf.ones(4096), tf.Variable(tf.ones(4096))


def make_a_table(number: int) -> None:
    keys = tf.lookup.KeyValueTensorInitializer(WORDS, tf.range(2000) * number)
    assert int(tf.lookup.StaticHashTable(keys, -1).lookup(WORDS[1])) == number


def call_a_py_function(number: int) -> None:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.py_function(np.cos, [VECTOR], tf.float32) * WEIGHT)
    tape.gradient(loss, WEIGHT)


@pytest.mark.parametrize(
    ("step", "cause", "line"),
    [
        (make_a_table, "resource_tables", "assert int(tf.lookup.StaticHashTable("),
        (call_a_py_function, "tape_cache", "loss = tf.reduce_sum(tf.py_function("),
    ],
)
def test_what_tensorflow_keeps_is_found_with_its_line(step: Any, cause: str, line: str, tmp_path: Path) -> None:
    before = LOOKUP_TABLE.get(), EAGER_PY_FUNCTION.get()
    report = loop(step, tmp_path).report
    [leak] = report.leaks
    assert (leak.cause, leak.whose) == (cause, "TensorFlow's")
    assert leak.where.startswith(__file__) and f", {line}" in leak.where
    assert (LOOKUP_TABLE.get(), EAGER_PY_FUNCTION.get()) == before


@pytest.mark.usefixtures("_heap_at_each_step")
def test_garbage_that_only_the_heap_shows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = [bytearray(100 * 1024) for _ in range(300)]  # which the C library keeps, so that RSS does not rise
    done = [0]

    def step(number: int) -> None:
        cycle: list[Any] = [bytearray(100 * 1024)]
        cycle.append(cycle)
        done[0] += 1
        if done[0] in (70, 190):
            gc.collect()

    gc.collect()
    gc.disable()  # Python collects when this test says so
    monkeypatch.setattr(gc, "isenabled", lambda: True)
    room.clear()
    try:
        report = loop(step, tmp_path, epochs=6).report
    finally:
        gc.enable()
    told = {growth.label: growth for growth in report.growth}
    assert told["host heap"].verdict == "waits for the collector"
    assert told["host heap"].rate == pytest.approx(100 * 1024, rel=0.05)
    [leak] = report.leaks
    assert leak.cause == "waits_for_collector" and leak.fix in told["host heap"].explanation


def test_shapes_of_calls_are_counted_from_the_first_verdict_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(leak_search.Makings, "count_some_shapes", lambda found: counted.append(1))
    loop(lambda number: None, tmp_path)
    assert counted


def test_operations_that_a_loop_adds_to_a_graph_are_found() -> None:
    graph = tf.Graph()
    with graph.as_default():
        total = tf.constant(1.0)
    # They are counted before there is a look.
    sizes = count_classes(5).graphs
    assert sizes is not None and 1 in sizes.operations.values()
    assert grown_graph([graph], sizes, sizes) is None
    for _ in range(20):
        with graph.as_default():
            total = total + 1.0
    graphs = [tf.Graph(), graph]
    grown = grown_graph(graphs, graph_sizes(graphs, step=15), sizes)
    assert grown is not None and (grown.num_operations, grown.more, grown.steps) == (41, 40, 10)
    assert grown.place is not None and grown.place.source == "total = total + 1.0"


ENDLESS = """
import sys
import tensorflow as tf
from kerasmemwatch.leaks.evidence.look import take_look

data = tf.data.Dataset.range(8).map(lambda i: tf.zeros(1024))
good, bad = iter(data.cache().repeat()), iter(data.repeat().cache())
for _ in range(50):
    next(good), next(bad)
look = take_look(1, lambda found: [], sys._getframe())
print(look.cached_bytes, look.cache_place.source)
"""


def test_a_cache_that_is_never_full_is_found(run_forked_python: Any) -> None:
    size, _, source = run_forked_python(ENDLESS).stdout.partition(" ")
    assert 58 * 4096 <= int(size) < 2 * 58 * 4352 and source.startswith("good, bad = ")


def test_a_loop_that_keeps_nothing_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for dear in ("take_look", "collect"):
        monkeypatch.setattr(investigation, dear, lambda *args, **more: pytest.fail("looked"))
    report = loop(lambda number: tf.ones((64, 64)) * number, tmp_path).report
    assert not report.leaks


def test_the_first_look_is_refused_if_it_takes_more_than_all_looks_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(investigation, "count_classes", lambda *moment: Count(60.0, {}))
    for dear in ("take_look", "collect"):
        monkeypatch.setattr(investigation, dear, lambda *args, **more: pytest.fail("looked"))
    kept: list[Any] = []
    report = loop(lambda number: kept.append(tf.ones((64, 64)) * number), tmp_path).report
    assert report.growth[0].verdict == "growing" and not report.leaks
    [refused] = (note for note in report.notes if "growth" in note)
    assert "the cause of growth was not searched for" in refused and "the limit is 60 s or 1% of" in refused


class Ring:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.itself = self


def test_the_cycle_is_told_after_a_second_collection_where_time_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    run = investigation.collect

    def collect(*args: Any, cycles: bool, **more: Any) -> Any:
        asked.append(cycles)
        return run(*args, cycles=cycles, **more)

    monkeypatch.setattr(investigation, "collect", collect)
    # A count takes so long that a collection and a look fit, but no collection more.
    monkeypatch.setattr(investigation, "count_classes", lambda *moment: Count(10.0, {}))
    was_enabled, thresholds = gc.isenabled(), gc.get_threshold()
    gc.set_threshold(700, 10, 10**6)  # no full collection by itself
    try:
        report = loop(lambda number: Ring(tf.ones((64, 64)) * number), tmp_path, epochs=8).report
    finally:
        gc.set_threshold(*thresholds)
    assert was_enabled and asked == [False, True]
    [leak] = report.leaks
    assert leak.cause == "waits_for_collector" and leak.where.endswith("self.itself = self")
    assert "objects of class Ring, each of which refers to itself through .itself" in leak.evidence
    assert "again to find what waits for it" in str(report.notes)


def test_no_look_is_taken_if_it_is_not_wanted(tmp_path: Path) -> None:
    session = kmw.MemorySession(log_dir=str(tmp_path), detect_leaks=False)
    with session, session.step():
        pass
    assert session._leak_search is None


def test_a_traced_function_tells_in_what_its_traces_differ() -> None:
    @tf.function
    def add(x: Any, number: Any) -> Any:
        return x + number

    for number in range(6):
        add(tf.ones(3), number)
    for size in range(4, 9):
        add(tf.ones(size), tf.constant(1.0))
    [found] = traced_functions([add])
    assert (found.num_traces, found.num_objects, found.file) == (11, 1, __file__)
    kinds = {each.name: each.kind for each in found.differences}
    assert kinds["x"] == "shape"


def test_models_that_histories_keep_are_found() -> None:
    kept = []
    for _ in range(4):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse", run_eagerly=True)
        kept.append(model.fit(np.ones((2, 4)), np.ones((2, 2)), verbose=0))
    found = take_look(1, lambda found: [], sys._getframe(), model).models
    assert found.count >= 4 and found.num_bytes
    assert EAGER_TENSOR.exists and kept


def test_functional_models_that_a_sequential_made_of_itself_are_not_counted() -> None:
    def count() -> int:
        gc.unfreeze()
        gc.collect()
        models = [each for each in gc.get_objects() if isinstance(each, keras.Model)]
        try:
            return follow_models(models, None, 0.0).count
        finally:
            models.clear()

    before, grown = count(), []
    for _ in range(3):
        model = keras.Sequential([keras.Input((4,))])
        for _ in range(3):
            model.add(keras.layers.Dense(2))
        grown.append(model)
    assert count() - before == 3
    # The user's own have the same layers each time, which are those of one that the model made of itself.
    extractors = [keras.Model(model.inputs, model.layers[1].output) for _ in range(3)]
    assert count() - before == 3 + len(extractors) + 1
