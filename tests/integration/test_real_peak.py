"""The step or gap that holds the run's peak is traced the next time one of its kind comes, and is what is shown."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.attribution.hooks import callback_turns
from kerasmemwatch.attribution.hooks.callback_turns import CallbackTurns
from kerasmemwatch.records.timeline import PHASES, TracedStep
from kerasmemwatch.tracing import captures, gap_tracer
from kerasmemwatch.tracing.traced_before import TRACED
from kerasmemwatch.watch import factory
from kerasmemwatch.watch.memory_session import MemorySession
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

FIFTY_MIB = 50 << 20


@pytest.fixture(autouse=True)
def _no_fit_is_like_another() -> None:
    TRACED.clear()


def allocate() -> None:
    """Have 50 MiB for a moment."""
    float(tf.reduce_sum(tf.random.uniform((FIFTY_MIB // 4,))))


class Histograms(keras.callbacks.Callback):
    """Needs 50 MiB in one of the hooks, in the calls of it that ``when`` names by number, from 1."""

    def __init__(self, hook: str = "on_epoch_end", when: Callable[[int], bool] = lambda number: True) -> None:
        super().__init__()
        self.number, self.when = 0, when
        setattr(self, hook, self.called)

    def called(self, *args: Any, **named: Any) -> None:
        self.number += 1
        if self.when(self.number):
            allocate()


@pytest.fixture
def fit(build: Any) -> Callable[..., MemoryWatch]:
    def fit(*others: Any, rows: int = 64, epochs: int = 4, watch: MemoryWatch | None = None, **options: Any) -> Any:
        case = build("mlp")
        watch = MemoryWatch(None, strict=True) if watch is None else watch
        x, y = np.ones((rows, 16), "float32"), np.ones((rows, 4), "float32")
        options = {"batch_size": 4, "shuffle": False, "verbose": 0, **options}
        case.model.fit(x, y, epochs=epochs, callbacks=[watch, *others], **options)
        return watch

    return fit


def gaps(watch: MemoryWatch) -> list[TracedStep]:
    return [one for one in watch.recording.steps if one.after is not None]


def holds(gap: TracedStep, owner: str) -> int:
    """The most bytes that an owner had at once."""
    timeline = gap.timeline
    mine = np.flatnonzero((timeline.owner == timeline.owners.index(owner)) & (timeline.birth >= 0))
    return int(timeline.requested_bytes[mine].max())


def in_use() -> int:
    return int(tf.config.experimental.get_memory_info("CPU:0")["current"])


def words(watch: MemoryWatch) -> str:
    return " ".join(watch.report.text().split())


def test_a_callback_that_needs_much_at_each_epochs_end_is_named(fit: Any, tmp_path: Path, tools: Any) -> None:
    left = in_use()
    watch = fit(Histograms(), watch=MemoryWatch(tmp_path, run_name="run", strict=True))
    [gap] = gaps(watch)
    assert (gap.number, gap.after, gap.step, gap.stage, gap.mode) == (32.5, 32, 33, "train", "")
    assert gap.reason.startswith("the gap before step 17 had peaked at")
    assert holds(gap, "callback Histograms") == FIFTY_MIB
    assert set(gap.timeline.phase) == {PHASES.index("between")}
    # What it says of the peak is the allocator's own, to the byte.
    samples = watch.recording.samples
    [row] = np.flatnonzero(samples["step"] == 33)
    assert int(gap.timeline.in_use_bytes.max()) == int(samples["device_between_peak_bytes"][row, 0])
    report = watch.report
    assert report.traced is not None and report.traced.after == 32
    assert report.peak.by_layer[0].path == "callback Histograms"
    # What earlier tests have left in the process is hidden from the search (see conftest.py), and has no owner.
    assert report.peak.by_category.get("unattributed", 0) <= left + 0.01 * FIFTY_MIB
    assert sum(report.peak.by_category.values()) == report.peak.requested_bytes
    assert 32 not in report.traced_steps and 33 not in report.traced_steps
    assert "50.0 MiB of it callback Histograms; a steady step peaks at" in words(watch)
    stored = tools.read_back(watch, tmp_path, "run")
    assert [(one.number, one.after) for one in stored.steps] == [(one.number, one.after) for one in report.steps]


@pytest.mark.long
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_begin", "on_test_begin", "on_test_end"])
def test_whichever_hook_it_is_in(fit: Any, hook: str) -> None:
    x, y = np.ones((16, 16), "float32"), np.ones((16, 4), "float32")
    watch = fit(Histograms(hook), validation_data=(x, y) if "test" in hook else None)
    found = gaps(watch)
    assert [holds(gap, "callback Histograms") for gap in found] == [FIFTY_MIB] * len(found)
    assert found
    assert watch.report.peak.by_layer[0].path == "callback Histograms"


def test_what_a_callback_runs_is_its_own_and_so_is_a_checkpoint(fit: Any, tmp_path: Path) -> None:
    class Evaluates(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model(tf.ones((100_000, 16)))

    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.weights.h5"), save_weights_only=True)
    [gap] = gaps(fit(checkpoint, Evaluates()))
    assert holds(gap, "callback Evaluates") >= 100_000 * 16 * 4
    made = np.flatnonzero(gap.timeline.birth >= 0)
    layers = {name for name, kind in zip(gap.timeline.owners, gap.timeline.classes, strict=True) if kind}
    assert not layers & {gap.timeline.owners[owner] for owner in gap.timeline.owner[made]}


def test_keras_own_histograms_are_named(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(50_000), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    watch, board = MemoryWatch(None, strict=True), keras.callbacks.TensorBoard(str(tmp_path), histogram_freq=1)
    x, y = np.ones((8, 16), "float32"), np.ones((8, 1), "float32")
    model.fit(x, y, batch_size=1, epochs=4, verbose=0, callbacks=[watch, board])
    found = gaps(watch)
    assert found
    assert holds(found[0], "callback TensorBoard") >= 16 * 50_000 * 4
    assert "callback TensorBoard" in words(watch)


def test_an_evaluate_by_itself_has_gaps_too(build: Any) -> None:
    case, watch = build("mlp"), MemoryWatch(None, strict=True)
    x, y = np.ones((80, 16), "float32"), np.ones((80, 4), "float32")
    other = Histograms("on_test_batch_end", when=lambda number: number > 5)
    case.model.evaluate(x, y, batch_size=4, verbose=0, callbacks=[watch, other])
    [gap] = gaps(watch)
    assert (gap.stage, gap.epoch, holds(gap, "callback Histograms")) == ("test", None, FIFTY_MIB)


def test_a_predict_by_itself_has_its_highest_step_traced(build: Any) -> None:
    case, watch = build("mlp"), MemoryWatch(None, strict=True)
    # While the tenth step is analysed nothing else is traced, and a busy machine takes long for that.
    small, large = (
        tf.data.Dataset.from_tensors(tf.ones((rows, 16))).repeat(times) for rows, times in ((4, 14), (20_000, 150))
    )
    case.model.predict(small.concatenate(large), verbose=0, callbacks=[watch])
    steps = [one.step for one in watch.recording.steps]
    # The predict keeps what it returns, so later steps may peak higher.
    assert steps[:2] == [2, 10] and steps[2] > 15


def test_a_callback_before_the_watch_is_named_as_well(build: Any) -> None:
    case, watch = build("mlp"), MemoryWatch(None, strict=True)
    case.model.fit(case.x, case.y, batch_size=4, epochs=4, verbose=0, callbacks=[Histograms(), watch])
    assert [holds(gap, "callback Histograms") for gap in gaps(watch)] == [FIFTY_MIB]


def test_several_steps_an_execution(build: Any) -> None:
    case, watch = build("mlp", steps_per_execution=4), MemoryWatch(None, strict=True)
    x, y = np.ones((192, 16), "float32"), np.ones((192, 4), "float32")
    case.model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[watch, Histograms()])
    [gap] = gaps(watch)
    assert (gap.after, gap.step, holds(gap, "callback Histograms")) == (96, 100, FIFTY_MIB)
    assert watch.report.peak.by_layer[0].path == "callback Histograms"


def test_a_peak_that_never_recurs_is_headlined_so(fit: Any) -> None:
    watch = fit(Histograms(when=lambda number: number == 1))
    # The next gap of its kind was captured, in vain.
    assert [gap.after for gap in gaps(watch)] == [32]
    text = words(watch)
    assert "step 17 (train, epoch 2), between two batches, not traced; a steady step peaks at" in text
    assert "between two batches, before training step 17, which was not traced. Shown is" in text


def test_a_larger_batch_that_comes_later_is_traced(build: Any) -> None:
    case, watch = build("mlp"), MemoryWatch(None, strict=True)
    parts = [(case.x[:4], 13), (np.ones((20_000, 16), "float32"), 27)]
    small, large = (
        tf.data.Dataset.from_tensors((x, np.ones((len(x), 4), "float32"))).repeat(count) for x, count in parts
    )
    case.model.fit(small.concatenate(large), shuffle=False, verbose=0, callbacks=[watch])
    steps = watch.recording.steps
    assert [one.step for one in steps[:3]] == [2, 10, 16]
    assert "had peaked at" in steps[2].reason
    # How many batches wait is up to the machine: a step may be higher by a few that happen not to wait when the next
    # one is traced.
    assert len(steps) <= 4 and watch.report.traced.step == steps[-1].step
    peaks = watch.recording.samples["device_peak_bytes"][:, 0]
    traced = peaks[watch.recording.samples["step"] == watch.report.traced.step]
    assert max(peaks) <= 1.5 * float(traced[0])


@pytest.mark.long
def test_six_traces_a_fit_at_most(fit: Any) -> None:
    class Grows(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            tf.ones((1 << 20) * (epoch + 1) ** 2)

    x, y = np.ones((64, 16), "float32"), np.ones((64, 4), "float32")
    watch = fit(Grows(), epochs=10, validation_data=(x, y))
    assert len(watch.recording.steps) == 6
    assert [one.number for one in watch.recording.steps if one.after is None] == [2, 10, 18, 26]


def test_a_gap_before_the_first_step_is_traced_in_the_next_fit(fit: Any) -> None:
    watch = fit(Histograms("on_train_begin"), epochs=1)
    assert gaps(watch) == []
    assert "step 1 (train, epoch 1), between two batches, not traced" in words(watch)
    [gap] = gaps(fit(Histograms("on_train_begin"), epochs=1, watch=watch))
    # The call was under way as the capture began: whose turn it was is not known.
    assert (gap.after, holds(gap, "callbacks")) == (16, FIFTY_MIB)


def test_a_gap_after_the_last_step_is_traced_too(fit: Any) -> None:
    [gap] = gaps(fit(Histograms(), epochs=2))
    assert (gap.after, gap.step) == (32, 32)
    assert holds(gap, "callback Histograms") == FIFTY_MIB


@pytest.mark.long
def test_without_windows_of_their_own_gaps_are_left_alone(fit: Any) -> None:
    for options in ({"sample_every": 2}, {"reset_peak": False}, {"trace": [2]}):
        assert gaps(fit(Histograms(), watch=MemoryWatch(None, strict=True, **options))) == []


def test_steps_of_a_session_are_traced_by_their_peak(build: Any) -> None:
    case = build("mlp")
    with MemorySession(case.model, None, strict=True) as session:
        for number in range(1, 25):
            with session.step():
                case.model(tf.ones((20_000 if number > 13 else 4, 16)))
    assert [one.step for one in session.recording.steps] == [2, 10, 16]


def test_single_batches_are_traced_by_their_peak(build: Any) -> None:
    case, watch = build("mlp"), MemoryWatch(None, strict=True)
    for number in range(1, 25):
        rows = 20_000 if number > 13 else 4
        with watch.batch(case.model):
            case.model.train_on_batch(np.ones((rows, 16), "float32"), np.ones((rows, 4), "float32"))
    assert any(one.step > 13 and "had peaked at" in one.reason for one in watch.recording.steps)
    assert gaps(watch) == []


# -- the first step ------------------------------------------------------------------------------------------------


def test_on_a_gpu_the_first_step_is_traced_too(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "has_gpu", lambda: True)
    x, y = np.ones((64, 16), "float32"), np.ones((64, 4), "float32")
    watch = fit(epochs=3, validation_data=(x, y))
    found = [(one.step, one.stage, one.reason) for one in watch.recording.steps]
    assert found[:3] == [(1, "train", "the first step"), (2, "train", "the second step"), (10, "train", "a later step")]
    assert [step for step, stage, _ in found if stage == "test"] == [18]
    # What the functions keep since their first call is known from it.
    assert watch.recording.steps[2].notes == ()
    later = watch.recording.steps[2].timeline
    assert later.requested_bytes[later.owner == later.owners.index("functions")].sum() > 0


def test_on_a_cpu_it_is_not(fit: Any) -> None:
    assert fit(epochs=1).report.traced_steps == (2, 10)


# -- nothing stays behind ------------------------------------------------------------------------------------------


class Seen(keras.callbacks.Callback):
    """Keeps what a list of callbacks looked like as it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.patched = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.patched += any(isinstance(each, callback_turns._InTurn) for each in gc.get_objects())


@pytest.mark.usefixtures("nothing_is_left")
def test_the_patch_is_in_place_for_that_gap_only(fit: Any) -> None:
    seen = Seen()
    watch = fit(Histograms(), seen, epochs=5)
    assert (len(gaps(watch)), seen.patched) == (1, 1)


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(
    ("hook", "kind"),
    [
        ("on_epoch_end", ValueError),
        ("on_epoch_begin", KeyboardInterrupt),
        ("on_train_batch_end", KeyboardInterrupt),
        ("on_train_batch_begin", ValueError),
    ],
)
def test_nothing_is_left_after_an_exception_in_a_gap(fit: Any, hook: str, kind: type[BaseException]) -> None:
    class Fails(keras.callbacks.Callback):
        def fail(self, *args: Any, **named: Any) -> None:
            if captures._hooking and hook != "on_train_batch_begin":
                opened.append(1)
                raise kind("of another callback")
            if hook == "on_train_batch_begin" and gap_seen():
                opened.append(1)
                raise kind("of another callback")

    def gap_seen() -> bool:
        return bool(gaps(watch))

    opened: list[int] = []
    failing, watch = Fails(), MemoryWatch(None, strict=True)
    setattr(failing, hook, failing.fail)
    where = "on_train_batch_end" if "batch" in hook else "on_epoch_end"
    with pytest.raises(kind) as raised:
        fit(Histograms(where), failing, watch=watch)
    assert opened == [1]
    assert captures._hooking == {}
    assert not watch._tracing._highest.in_gap
    ours = [entry for entry in raised.traceback if "kerasmemwatch" + os.sep + "attribution" in str(entry.path)]
    assert ours == []
    # Counters for causes of growth go with the fit's list of callbacks, which the exception's traceback keeps.
    del raised, ours
    gc.collect()


@pytest.mark.usefixtures("nothing_is_left")
def test_nothing_is_left_after_an_exception_that_nobody_tells_of(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.ones((16, 16), "float32"), np.ones((16, 4), "float32")
    make = keras.Model.evaluate

    def evaluate(self: Any, *args: Any, **named: Any) -> Any:
        if captures._hooking:
            raise ValueError("as validation began")
        return make(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "evaluate", evaluate)
        with pytest.raises(ValueError, match="as validation began"):
            fit(Histograms("on_test_begin"), epochs=4, validation_data=data)
    gc.collect()
    assert captures._hooking == {}


@pytest.mark.long
def test_a_fault_of_ours_costs_the_gap_only(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **named: Any) -> None:
        raise RuntimeError("our own")

    for owner, name in ((CallbackTurns, "install"), (captures.Captures, "complete"), (gap_tracer, "CapturedStep")):
        with monkeypatch.context() as patch:
            TRACED.clear()
            watch = MemoryWatch(None)
            patch.setattr(owner, name, fail if name != "complete" else _failing_for_gaps())
            found = fit(Histograms(), watch=watch)
        assert gaps(found) == []
        assert found.report.traced_steps == (2, 10)
        assert any("our own" in note for note in found.report.notes)
        assert captures._hooking == {}


def _failing_for_gaps() -> Callable[..., Any]:
    plain = captures.Captures.complete

    def complete(self: Any, captured: Any) -> None:
        if captured.after is not None:
            raise RuntimeError("our own")
        plain(self, captured)

    return complete


def test_a_gap_that_takes_long_is_given_up(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # As soon as it has begun: the timer's own thread would make the test wait.
    class Now:
        daemon = False

        def __init__(self, interval: float, function: Callable[..., None], args: Any) -> None:
            self.start, self.cancel = (lambda: function(*args)), lambda: None

    monkeypatch.setattr(gap_tracer.threading, "Timer", Now)
    watch = fit(Histograms())
    assert gaps(watch) == []
    assert any("took longer than 30 s" in note for note in watch.report.notes)
    assert "not traced" in words(watch)


def test_another_profiler_has_precedence_in_a_gap(fit: Any, tmp_path: Path) -> None:
    class Profiles(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            tf.profiler.experimental.start(str(tmp_path / str(epoch)))
            allocate()
            tf.profiler.experimental.stop()

    watch = fit(Profiles())
    assert gaps(watch) == []
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 4
    assert any("profiler" in note for note in watch.report.notes)


def test_weights_are_the_same_with_traced_gaps(build: Any) -> None:
    def trained(*callbacks: Any) -> list[bytes]:
        case = build("mlp")
        case.model.fit(case.x, case.y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[*callbacks])
        return [np.asarray(weight).tobytes() for weight in case.model.get_weights()]

    watch = MemoryWatch(None, strict=True)
    watched = trained(watch, Histograms())
    assert gaps(watch)
    assert watched == trained(Histograms())
