"""Makes the ``*.hlo.xz`` files here: the compiled training steps of three small models, stripped to what is read.

Run it as ``python tests/data/make_hlo_fixtures.py``; the tests say what they expect of the models.
"""

from __future__ import annotations

import glob
import lzma
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BATCH_SIZE = 16


def models() -> dict[str, Any]:
    """Small models with what compiled programs differ in: plain operations, loops, branches."""
    import keras

    layers = keras.layers

    class Branch(layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="branch")
            self.one, self.other = layers.Dense(64, name="one"), layers.Dense(64, name="other")

        def build(self, shape: Any) -> None:
            self.one.build(shape)
            self.other.build(shape)
            self.built = True

        def call(self, inputs: Any) -> Any:
            positive = keras.ops.sum(inputs) > 0
            return keras.ops.cond(positive, lambda: keras.ops.tanh(self.one(inputs)), lambda: 2.0 * self.other(inputs))

    convolutional = [
        keras.Input((16, 16, 3)),
        layers.Conv2D(8, 3, activation="relu", name="c1"),
        layers.BatchNormalization(name="norm"),
        layers.MaxPooling2D(name="pool"),
        layers.Conv2D(16, 3, activation="relu", name="c2"),
        layers.Flatten(),
        layers.Dropout(0.2, name="drop"),
        layers.Dense(10, name="head"),
    ]
    recurrent = [keras.Input((12, 8)), layers.LSTM(16, name="memory"), layers.Dense(10, name="head")]
    branching = [keras.Input((16,)), Branch(), layers.Dense(10, name="head")]
    named = {"cnn": convolutional, "lstm": recurrent, "cond": branching}
    return {name: keras.Sequential(stack, name="model") for name, stack in named.items()}


def training_step(model: Any) -> Callable[[], Any]:
    """A function that runs one compiled training step of a model, already compiled."""
    import keras
    import numpy as np

    random = np.random.default_rng(0)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=True)
    model.optimizer.build(model.trainable_variables)  # else TensorFlow compiles the step twice
    x = random.normal(size=(BATCH_SIZE, *model.input_shape[1:])).astype("float32")
    y = random.integers(0, 10, BATCH_SIZE)
    for _ in range(2):
        model.train_on_batch(x, y)
    return lambda: model.train_on_batch(x, y)


def capture(step: Callable[[], Any]) -> Any:
    """What the profiler sees of a step, as an ``XSpace``."""
    from tensorflow.python.profiler.internal import _pywrap_profiler
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as directory:
        session = _pywrap_profiler.ProfilerSession()
        session.start(directory, {})
        step()
        session.export_to_tb()
        (path,) = glob.glob(f"{directory}/**/*.xplane.pb", recursive=True)
        return xplane_pb2.XSpace.FromString(Path(path).read_bytes())


def main() -> None:
    """Write the files."""
    from kerasmemwatch.attribution.events.allocation_events import read_events
    from kerasmemwatch.attribution.xla.hlo_proto import parse_hlo
    from kerasmemwatch.attribution.xla.program_runs import Programs, _hlo_protos, find_runs

    for name, model in models().items():
        space = capture(training_step(model))
        programs = Programs()
        programs.read(space)
        (run,) = find_runs(space, *read_events(space).values(), programs.requests)
        proto = parse_hlo(dict(_hlo_protos(space))[run.program_id])
        proto.DiscardUnknownFields()
        (HERE / f"{name}.hlo.xz").write_bytes(lzma.compress(proto.SerializeToString(), preset=9))


if __name__ == "__main__":
    os.environ.update(TF_CPU_ALLOCATOR_USE_BFC="1", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    main()
