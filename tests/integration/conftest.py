"""Real fits on a CPU whose allocator counts every byte."""

from __future__ import annotations

import os

# Read when TensorFlow makes its context, so before anything imports it.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from forks import run_forked
from leftovers import nothing_left

if TYPE_CHECKING:
    from kerasmemwatch.recording import Recording
    from kerasmemwatch.watch.memory_watch import MemoryWatch

ROOT = Path(__file__).parents[2]
# Run in processes of their own, not imported.
collect_ignore = ["scripts"]
BATCH_SIZE = 8


@dataclass
class Case:
    """A compiled model, data for it, and the variables that Keras does not list."""

    model: Any
    x: Any
    y: Any
    raw: Sequence[Any] = ()

    def dataset(self, steps: int) -> Any:
        """The same batch again and again: no thread of the input pipeline allocates beside the steps."""
        import tensorflow as tf

        return tf.data.Dataset.from_tensors((self.x[:BATCH_SIZE], self.y[:BATCH_SIZE])).repeat(steps)

    def fit(self, **options: Any) -> Any:
        """Fit on the arrays: 8 batches an epoch."""
        return self.model.fit(self.x, self.y, **{"batch_size": BATCH_SIZE, "verbose": 0, **options})

    def fit_steadily(self, steps: int, **options: Any) -> Any:
        """Fit on ``dataset``."""
        return self.model.fit(self.dataset(steps), **{"shuffle": False, "verbose": 0, **options})


def _mlp() -> Case:
    import keras

    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(4)])
    return Case(model, *_data((16,)))


def _cnn() -> Case:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )
    return Case(model, *_data((12, 12, 3)))


def _lstm() -> Case:
    import keras

    layers = keras.layers
    model = keras.Sequential([keras.Input((3, 5)), layers.Bidirectional(layers.LSTM(7)), layers.Dense(4)])
    return Case(model, *_data((3, 5)))


def _shared() -> Case:
    import keras

    inputs = keras.Input((16,))
    encoder = keras.layers.Dense(16, "tanh", name="encoder")
    outputs = keras.layers.Dense(4)(keras.layers.Add()([encoder(inputs), encoder(encoder(inputs))]))
    return Case(keras.Model(inputs, outputs), *_data((16,)))


def _raw_variable() -> Case:
    import keras
    import tensorflow as tf

    class Scaled(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.table = tf.Variable(tf.ones((300, 16)), trainable=False)

        def call(self, inputs: Any) -> Any:
            return inputs * self.table[0]

    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.scaled = Scaled()
            self.head = keras.layers.Dense(4)

        def call(self, inputs: Any) -> Any:
            return self.head(self.scaled(inputs))

    model = Subclassed()
    return Case(model, *_data((16,)), [model.scaled.table])


_MODELS = {"mlp": _mlp, "cnn": _cnn, "lstm": _lstm, "shared": _shared, "raw_variable": _raw_variable}


def _data(shape: tuple[int, ...], num_samples: int = 64) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    return random.normal(size=(num_samples, *shape)).astype("float32"), np.ones((num_samples, 4), "float32")


@pytest.fixture(scope="session")
def build() -> Callable[..., Case]:
    """``build("mlp", seed=0, jit_compile=False, ...)``: a compiled model with data.

    An optimizer with state has TensorFlow make the step's graph twice: it is for tests that are about its state.
    """

    def build(name: str = "mlp", *, seed: int = 0, optimizer: Any = "sgd", **options: Any) -> Case:
        import keras

        keras.backend.clear_session()  # names begin anew, and cycles of an earlier model are collected now
        keras.utils.set_random_seed(seed)
        case = _MODELS[name]()
        case.model.compile(optimizer, "mse", **{"jit_compile": False, **options})
        return case

    return build


@pytest.fixture
def tools() -> SimpleNamespace:
    """The allocator's own figures, and callbacks made of plain functions."""
    import keras
    import tensorflow as tf

    def callback(base: type = keras.callbacks.Callback, **hooks: Callable[..., None]) -> Any:
        """``callback(on_epoch_end=function)``: the function gets the hook's arguments without the logs."""
        made = {name: (lambda hook: lambda self, *args, **logs: hook(*args[:1]))(hook) for name, hook in hooks.items()}
        return type("UserCallback", (base,), made)()

    return SimpleNamespace(
        memory=lambda: tf.config.experimental.get_memory_info("CPU:0"),
        callback=callback,
        counts_exactly=counts_exactly,
        read_back=read_back,
    )


@pytest.fixture
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compare every function of the frameworks, the profiler and the temporary files before and after."""
    with nothing_left(monkeypatch):
        yield


@pytest.fixture
def our_log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    """What the package logs; TensorFlow may complain of so many models."""
    return lambda: [record for record in caplog.records if record.name.startswith("kerasmemwatch")]


def counts_exactly() -> bool:
    """Whether the allocator sees a tensor of 256 bytes come and go."""
    import tensorflow as tf

    def in_use() -> int:
        return int(tf.config.experimental.get_memory_info("CPU:0")["current"])

    before = in_use()
    tensor = tf.random.uniform((64,))
    within = in_use()
    del tensor
    return within > before


@pytest.fixture(scope="session")
def exact_counting() -> None:
    """Fails where TensorFlow does not count each allocation: these tests would then prove nothing."""
    if not counts_exactly():
        pytest.fail(
            "Expected an allocator that counts every byte. Something made TensorFlow's context before "
            f"tests/integration/conftest.py set TF_CPU_ALLOCATOR_USE_BFC={os.environ['TF_CPU_ALLOCATOR_USE_BFC']!r}."
        )


def read_back(watch: MemoryWatch, log_dir: Path, run: str | None = None) -> Recording:
    """The recording from disk, having checked that it is what the watch holds."""
    from kerasmemwatch.recording import load

    held, waited_s = watch.recording, 0.0
    while (stored := load(log_dir, run)).layers != held.layers and waited_s < 10:
        time.sleep(0.05)  # what describes a run is stored soon, by a thread
        waited_s += 0.05
    assert set(stored.samples) == set(held.samples)
    for name, values in held.samples.items():
        np.testing.assert_array_equal(stored.samples[name], values, err_msg=name)
    # How a run ended is read from what it left; after an exception, a watch is open until it is used again or dropped.
    assert replace(stored.run, ending=held.run.ending) == held.run
    assert stored.layers == held.layers
    return stored


@pytest.fixture
def run_forked_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_python`` without the seconds of TensorFlow's import, for what does not hang on how a process begins."""

    def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(script))
        status, out, errors = run_forked(path, *arguments, environment={**os.environ, **variables}, folder=tmp_path)
        assert status == 0, errors
        return subprocess.CompletedProcess([str(path), *arguments], status, out, errors)

    return run


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_python(script, *arguments, VARIABLE=value)`` in a process of its own, in ``tmp_path``; it must succeed."""

    def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return run
