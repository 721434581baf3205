"""Recorded figures against the allocator's own, the operating system's, and sums over the variables."""

from __future__ import annotations

import gc
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.units import MIB
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

MODELS = ["mlp", "cnn", "lstm", "shared", "raw_variable"]
STEPS = 20


class Witness(keras.callbacks.Callback):
    """Reads what the watch reads, a moment before it."""

    def __init__(self, memory: Any) -> None:
        super().__init__()
        self._memory = memory
        self.within: list[dict[str, int]] = []
        self.between: list[dict[str, int]] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.between.append(self._memory())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.within.append(self._memory())


def test_the_guard_can_fail(run_forked_python: Any) -> None:
    script = f"""
        import sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
        from conftest import counts_exactly
        print(counts_exactly())
    """
    assert run_forked_python(script, TF_CPU_ALLOCATOR_USE_BFC="0").stdout == "False\n"


@pytest.mark.parametrize("name", MODELS)
def test_peaks_and_in_use_bytes_are_the_allocators_own(build: Any, tools: Any, tmp_path: Path, name: str) -> None:
    case = build(name)
    witness, watch = Witness(tools.memory), MemoryWatch(tmp_path, strict=True)
    case.fit_steadily(STEPS, callbacks=[witness, watch])
    samples = tools.read_back(watch, tmp_path).samples
    assert samples["device_peak_bytes"].shape == (STEPS, 1)
    assert samples["device_peak_bytes"].dtype == np.int64
    assert samples["device_peak_bytes"][:, 0].tolist() == [info["peak"] for info in witness.within]
    assert samples["device_in_use_bytes"][:, 0].tolist() == [info["current"] for info in witness.within]
    assert samples["device_between_peak_bytes"][:, 0].tolist() == [info["peak"] for info in witness.between]
    assert (samples["device_peak_bytes"] >= samples["device_in_use_bytes"]).all()
    assert len(set(samples["device_peak_bytes"][:, 0].tolist()) | {0}) > 1
    [device] = watch.recording.run.devices
    assert (device.name, device.counting, device.remedy) == ("CPU:0", "exact", "")
    peak = watch.report.peak
    highest = max(info["peak"] for info in [*witness.within, *witness.between])
    assert (peak.bytes, peak.device) == (highest, "CPU:0")


@pytest.mark.parametrize("mode", [{"run_eagerly": True}, {"jit_compile": True}], ids=["eager", "xla"])
def test_peaks_are_the_allocators_own_in_other_modes(build: Any, tools: Any, mode: dict[str, bool]) -> None:
    case = build("cnn", **mode)
    witness, watch = Witness(tools.memory), MemoryWatch(None, strict=True)
    case.fit_steadily(8, callbacks=[witness, watch])
    samples = watch.recording.samples
    assert samples["device_peak_bytes"][:, 0].tolist() == [info["peak"] for info in witness.within]
    assert samples["device_in_use_bytes"][:, 0].tolist() == [info["current"] for info in witness.within]


def test_arrays_differ_by_no_more_than_the_batches_that_are_prefetched(build: Any, tools: Any) -> None:
    case = build("cnn")
    witness, watch = Witness(tools.memory), MemoryWatch(None, strict=True)
    case.fit(callbacks=[witness, watch], epochs=3)
    peaks = watch.recording.samples["device_peak_bytes"][:, 0]
    # A thread fills the pipeline all the while, also between the two readings; a peak can only have risen.
    surplus = peaks - np.array([info["peak"] for info in witness.within])
    assert (surplus >= 0).all()
    assert (surplus <= 4 * (case.x.nbytes + case.y.nbytes)).all()


@pytest.mark.parametrize(
    ("hook", "watch_first", "step"),
    [
        ("on_train_batch_end", True, 3),
        ("on_train_batch_begin", False, 2),
        ("on_epoch_begin", True, 9),
        ("on_epoch_begin", False, 9),
        ("on_epoch_end", True, 17),
        ("on_epoch_end", False, 17),
    ],
)
def test_a_peak_between_batches_is_caught(
    build: Any, tools: Any, tmp_path: Path, hook: str, watch_first: bool, step: int
) -> None:
    calls: list[int] = []

    def allocate(number: int) -> None:
        calls.append(number)
        if len(calls) == 2:
            tf.fill((64 * MIB // 4,), 1.0).numpy()

    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    left = tools.memory()["current"]  # by earlier tests in this process
    other = tools.callback(**{hook: allocate})
    case.fit(epochs=3, callbacks=[watch, other] if watch_first else [other, watch])
    samples = tools.read_back(watch, tmp_path).samples
    # Once, in the row of the batch that comes after.
    high = samples["device_between_peak_bytes"][:, 0] >= left + 48 * MIB
    assert samples["step"][high].tolist() == [step]
    assert (samples["device_peak_bytes"] < left + 48 * MIB).all()
    peak = watch.report.peak
    assert (peak.phase, peak.step) == ("between", step)
    assert peak.bytes == samples["device_between_peak_bytes"].max()
    assert 64 * MIB <= peak.bytes < left + 80 * MIB


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end"])
def test_what_happens_within_the_window_of_a_batch_is_its_peak(build: Any, tools: Any, hook: str) -> None:
    def allocate(batch: int) -> None:
        if batch == 4:
            tf.fill((64 * MIB // 4,), 1.0).numpy()

    case, watch = build(), MemoryWatch(None, trace=False, strict=True)
    other = tools.callback(**{hook: allocate})
    case.fit(callbacks=[watch, other] if hook == "on_train_batch_begin" else [other, watch])
    samples = watch.recording.samples
    assert samples["step"][samples["device_peak_bytes"][:, 0] >= 64 * MIB].tolist() == [5]
    assert (samples["device_between_peak_bytes"] < 64 * MIB).all()
    assert watch.report.peak.step == 5
    assert watch.report.peak.phase is None  # only a traced step tells which


@pytest.mark.parametrize(
    ("name", "optimizer"), [*((name, "adam") for name in MODELS), ("mlp", "sgd"), ("cnn", "rmsprop")]
)
def test_weights_and_optimizer_are_sums_over_the_variables(
    build: Any, tools: Any, tmp_path: Path, name: str, optimizer: str
) -> None:
    def size(variables: Any) -> int:
        return sum(math.prod(variable.shape) * np.dtype(variable.dtype).itemsize for variable in variables)

    case, watch = build(name, optimizer=optimizer), MemoryWatch(tmp_path, strict=True)
    if case.model.built:
        case.model.optimizer.build(case.model.trainable_variables)  # else TensorFlow makes the step's graph twice
    case.fit(callbacks=[watch])
    report = tools.read_back(watch, tmp_path).report
    raw = sum(variable.numpy().nbytes for variable in case.raw)
    assert report.weights_bytes == size(case.model.weights) + raw
    assert report.optimizer_bytes == size(case.model.optimizer.variables)
    assert report.weights_bytes > 0
    assert report.optimizer_bytes > 0


def test_rss_is_the_operating_systems(run_forked_python: Any) -> None:
    """In a process of its own: what earlier tests have freed may be given out again, or back to the system."""
    script = f"""
        import mmap
        import numpy as np
        import keras
        import psutil
        from kerasmemwatch import MemoryWatch

        class Grow(keras.callbacks.Callback):
            def __init__(self):
                super().__init__()
                self.ballast, self.rss = [], []

            def on_train_batch_begin(self, batch, logs=None):
                self.ballast.append(mmap.mmap(-1, 4 * {MIB}))
                self.ballast[-1].write(bytes(4 * {MIB}))

            def on_train_batch_end(self, batch, logs=None):
                self.rss.append(psutil.Process().memory_info().rss)

        model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4)])
        model.compile("sgd", "mse")
        x = np.ones(({STEPS} * 8, 8), "float32")
        model.fit(x, x[:, :4], batch_size=8, verbose=0)
        grow, watch = Grow(), MemoryWatch(None, strict=True)
        model.fit(x, x[:, :4], batch_size=8, verbose=0, callbacks=[grow, watch])
        rss = watch.recording.samples["host_rss_bytes"]
        print(*(int(value) for value in rss))
        print(*grow.rss)
    """
    recorded, read = (
        np.array(line.split(), dtype=np.int64) for line in run_forked_python(script).stdout.splitlines()[-2:]
    )
    assert recorded.shape == read.shape == (STEPS,)
    # The kernel counts by CPU and adds up in batches of pages; what psutil itself touches is between the readings.
    assert np.abs(recorded - read).max() <= MIB
    assert recorded[-1] - recorded[0] >= (STEPS - 2) * 4 * MIB


def test_tensorflow_loses_the_sizes_of_what_was_concatenated() -> None:
    """docs/figures.md says so of what stays unknown in eager mode; no watch is here."""
    x = tf.ones((8, 4))

    def gradient() -> None:
        with tf.GradientTape() as tape:
            tape.watch(x)
            both = tf.reduce_sum(tf.concat([x, x], -1))
        tape.gradient(both, x)

    def grown() -> int:
        gc.collect()
        before = tf.config.experimental.get_memory_info("CPU:0")["current"]
        for _ in range(50):
            gradient()
        gc.collect()
        return int(tf.config.experimental.get_memory_info("CPU:0")["current"]) - before

    grown()
    # Threads of earlier fits in this process may allocate or free beside it.
    assert 40 * 256 <= grown() <= 60 * 256
