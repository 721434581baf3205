"""``summary`` on real models: what it says by independent arithmetic, and that it leaves no trace."""

from __future__ import annotations

import gc
import importlib.util
import random
import subprocess
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

import kerasmemwatch as kmw
from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError, ProbeUnavailableError
from kerasmemwatch.reports.report import Report
from kerasmemwatch.watch.model_summary.gradient_registry import step_graphs_dropped
from kerasmemwatch.watch.model_summary.zero_batch import example_inputs

pytestmark = pytest.mark.usefixtures("exact_counting")

layers = keras.layers
F32 = 4
BATCH = 8


def shown(model: Any, **options: Any) -> Report:
    """The report, without anything on the screen; of a step whose optimizer has no state, which takes half the time."""
    return kmw.summary(model, **{"batch_size": BATCH, "optimizer": "sgd", "print_fn": lambda text: None, **options})


def count(variables: Iterable[Any]) -> int:
    return sum(variable.numpy().nbytes for variable in variables)


def rows(report: Report) -> dict[str, Any]:
    return {row.path: row for row in report.layers}


def batch_bytes(report: Report) -> int:
    """The batch; the input pipeline has a flag of a byte beside it."""
    held = rows(report)["input pipeline"].inputs_bytes
    return held - held % 2


# -- models ------------------------------------------------------------------------------------------------------------


def mlp() -> Any:
    return keras.Sequential(
        [keras.Input((256,)), layers.Dense(128, "relu", name="hidden"), layers.Dense(10, name="head")]
    )


def cnn() -> Any:
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3)(inputs)
    x = layers.BatchNormalization(momentum=0.5)(x)
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4)(x))


def shared() -> Any:
    inputs = keras.Input((16,))
    encoder = layers.Dense(16, "tanh", name="encoder")
    return keras.Model(inputs, layers.Dense(4)(layers.Add()([encoder(inputs), encoder(encoder(inputs))])))


def nested() -> Any:
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="a"), layers.Dense(8, name="b")], name="inner")
    inputs = keras.Input((8,))
    middle = keras.Model(inputs, inner(layers.Dense(8, name="stem")(inputs)), name="middle")
    return keras.Sequential([keras.Input((8,)), middle, layers.Dense(2, name="head")])


def several() -> Any:
    """A dictionary of inputs, one of them indices, and of outputs."""
    numbers, words = keras.Input((5,), name="numbers"), keras.Input((3,), dtype="int32", name="words")
    embedded = layers.Flatten()(layers.Embedding(10, 4, name="embedding")(words))
    hidden = layers.Concatenate()([numbers, embedded])
    outputs = {"x": layers.Dense(2, name="x")(hidden), "y": layers.Dense(3, name="y")(hidden)}
    return keras.Model({"numbers": numbers, "words": words}, outputs)


def listed() -> Any:
    first, second = keras.Input((5,)), keras.Input((3,))
    hidden = layers.Concatenate()([first, second])
    return keras.Model([first, second], [layers.Dense(2, name="x")(hidden), layers.Dense(3, name="y")(hidden)])


def texts() -> Any:
    inputs = keras.Input((3,), dtype="string")
    numbers = layers.StringLookup(vocabulary=["a", "b"])(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Embedding(4, 2)(numbers))))


class Subclassed(keras.Model):
    """Counts its calls in a raw variable and in a number, draws random numbers of every kind, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = layers.BatchNormalization(momentum=0.5), layers.Dropout(0.5)
        self.dense = layers.Dense(4)
        self.seen = tf.Variable(0, trainable=False)
        self.noise = tf.random.Generator.from_seed(3)
        self.helper = [tf.Module()]
        self.helper[0].table = tf.Variable(tf.ones((16,)))
        self.calls, self.error = 0, None

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        self.calls += 1
        if self.error is not None:
            tf.py_function(self._fail, [], [])
        self.seen.assign_add(1)
        drawn = self.noise.normal((16,)) + keras.random.normal((16,)) + tf.random.normal((16,))
        random.random(), np.random.random()
        self.add_loss(keras.ops.mean(drawn))
        return self.dense(self.drop(self.norm(inputs * self.helper[0].table + drawn, training=training)))

    def _fail(self) -> None:
        if int(self.seen) >= 1:
            raise self.error("on purpose")


class OwnStep(keras.Model):
    """With a training step, two optimizers and a metric of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = layers.Dense(16, name="first"), layers.Dense(16, name="second")
        self.mean = keras.metrics.Mean()

    def compile(self, one: Any, other: Any) -> None:
        super().compile()
        self.one, self.other = one, other

    def call(self, inputs: Any) -> Any:
        return self.second(self.first(inputs))

    def train_step(self, data: Any) -> Any:
        (inputs,) = data if isinstance(data, tuple) else (data,)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self(inputs) ** 2)
        weights = [*self.first.trainable_variables, *self.second.trainable_variables]
        gradients = tape.gradient(loss, weights)
        self.one.apply_gradients(zip(gradients[:2], weights[:2], strict=True))
        self.other.apply_gradients(zip(gradients[2:], weights[2:], strict=True))
        self.mean.update_state(loss)
        return {"mean": self.mean.result()}


NEEDS_INPUTS: dict[str, Any] = {"inputs": lambda: keras.Input((16,))}
MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "mlp": (mlp, {}),
    "cnn": (cnn, {}),
    "shared": (shared, {}),
    "nested": (nested, {}),
    "several": (several, {}),
    "listed": (listed, {}),
    "texts": (texts, {}),
    "subclassed": (Subclassed, NEEDS_INPUTS),
    "own step": (OwnStep, NEEDS_INPUTS),
    "not built": (lambda: keras.Sequential([layers.Dense(3), layers.BatchNormalization()]), NEEDS_INPUTS),
}


def made(name: str) -> tuple[Any, dict[str, Any]]:
    make, options = MODELS[name]
    return make(), {key: value() for key, value in options.items()}


# -- what it says ------------------------------------------------------------------------------------------------------


def test_every_figure_of_a_dense_layer_by_arithmetic() -> None:
    report = shown(mlp(), batch_size=32, optimizer="adam")
    assert list(rows(report))[:2] == ["hidden", "head"]
    hidden, head = rows(report)["hidden"], rows(report)["head"]
    weights = (256 * 128 + 128) * F32
    assert (hidden.weights_bytes, hidden.optimizer_bytes, hidden.gradients_bytes) == (weights, 2 * weights, weights)
    assert hidden.output_bytes == hidden.activations_bytes == 32 * 128 * F32
    assert head.output_bytes == 32 * 10 * F32
    assert report.traced is not None
    assert (report.traced.step, report.traced.stage, report.traced.mode) == (2, "train", "graph")
    assert batch_bytes(report) == 32 * 256 * F32
    assert sum(report.peak.by_category.values()) == report.peak.requested_bytes


def test_the_batch_and_the_optimizer_are_those_asked_for() -> None:
    model = mlp()
    weights = count(model.weights)
    outputs = {}
    for size in (1, 64):
        report = shown(model, batch_size=size, optimizer="sgd")
        outputs[size] = rows(report)["hidden"].output_bytes
        assert report.weights_bytes == weights
        assert rows(report)["hidden"].optimizer_bytes == 0
    assert outputs == {1: 128 * F32, 64: 64 * 128 * F32}
    momentum = keras.optimizers.SGD(momentum=0.9)
    assert rows(shown(model, optimizer=momentum))["head"].optimizer_bytes == (128 * 10 + 10) * F32
    assert not momentum.built


def raw_bytes(name: str, model: Any) -> int:
    """What no layer lists: a counter and a table. A generator's state is found by nobody yet."""
    return count([model.seen, model.helper[0].table]) if name == "subclassed" else 0


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_slots_of_every_model(name: str) -> None:
    model, options = made(name)
    trained = shown(model, optimizer="adam", **options)
    if not model.built:
        model(tf.zeros((2, 16)))
    assert trained.weights_bytes == count(model.weights) + raw_bytes(name, model)
    # Adam's own are an int64 step and a float32 rate.
    assert trained.optimizer_bytes == 2 * count(model.trainable_variables) + 12
    assert sum(row.gradients_bytes or 0 for row in trained.layers) > 0
    assert trained.traced is not None
    assert trained.traced.stage == "train"


@pytest.mark.parametrize("name", ["several", "subclassed", "not built"])
def test_a_prediction_has_weights_only(name: str) -> None:
    model, options = made(name)
    predicted = shown(model, mode="inference", **options)
    if not model.built:
        model(tf.zeros((2, 16)))
    assert predicted.weights_bytes == count(model.weights) + raw_bytes(name, model)
    assert predicted.optimizer_bytes == 0
    assert not any(row.gradients_bytes for row in predicted.layers)
    assert predicted.traced is not None
    assert predicted.traced.stage == "predict"


def test_nested_layers_have_paths_of_the_model_itself() -> None:
    found = rows(shown(nested()))
    assert {"middle/stem", "middle/inner/a", "middle/inner/b", "head"} <= set(found)


def test_a_compiled_model_is_measured_as_it_is_compiled() -> None:
    model = listed()
    model.compile(
        keras.optimizers.SGD(momentum=0.9),
        {"x": "mse", "y": "sparse_categorical_crossentropy"},
        metrics={"y": "accuracy"},
        run_eagerly=True,
        steps_per_execution=2,
    )
    report = shown(model, optimizer=None)
    assert report.traced is not None
    assert report.traced.mode == "eager"
    # A rate and a step beside the slots.
    assert report.optimizer_bytes == count(model.trainable_variables) + 12
    before = len(model.metrics)
    listed_metrics = {row.path for row in report.layers if row.other_bytes}
    assert "metrics" in listed_metrics
    assert len(model.metrics) == before


def test_an_own_step_runs_if_no_optimizer_is_named() -> None:
    model = OwnStep()
    model.compile(keras.optimizers.SGD(momentum=0.9), keras.optimizers.Adam())
    found = rows(shown(model, optimizer=None, inputs=keras.Input((16,))))
    size = (16 * 16 + 16) * F32
    assert (found["first"].optimizer_bytes, found["second"].optimizer_bytes) == (size, 2 * size)
    found = rows(shown(model, optimizer="adam", inputs=keras.Input((16,))))
    assert (found["first"].optimizer_bytes, found["second"].optimizer_bytes) == (2 * size, 2 * size)


def test_arrays_are_the_batch() -> None:
    report = shown(mlp(), inputs=np.ones((5, 256)))
    assert rows(report)["hidden"].output_bytes == 5 * 128 * F32
    assert batch_bytes(report) == 5 * 256 * F32


def test_targets_are_taken() -> None:
    model = mlp()
    model.compile("sgd", lambda y, p: keras.ops.mean(keras.ops.abs(p)) * keras.ops.mean(y[:, 7]))
    with pytest.raises(Exception) as caught:
        shown(model, optimizer=None, targets=np.ones((BATCH, 3)))
    assert not hasattr(caught.value, "__notes__")
    assert shown(model, optimizer=None, targets=np.ones((BATCH, 8))).traced
    model.compile("sgd", lambda y, p: keras.ops.mean(y[:, 17]))
    with pytest.raises(Exception) as caught:
        shown(model, optimizer=None)
    assert "pass targets=" in caught.value.__notes__[0]


def test_the_text_has_every_layer(capfd: pytest.CaptureFixture[str]) -> None:
    report = kmw.summary(cnn(), batch_size=4)
    printed = capfd.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("Memory of a training step of functional")
    assert printed.out.splitlines()[0].endswith("with adam, batch of 4")
    for heading in ("weights", "activa-", "share", "added"):
        assert heading in printed.out
    # Names may be folded.
    assert all(row.path[:8] in printed.out for row in report.layers if row.class_name)
    texts: list[str] = []
    kmw.summary(cnn(), mode="inference", print_fn=texts.append)
    assert capfd.readouterr() == ("", "")
    assert len(texts) == 1
    assert "a prediction of" in texts[0]


# -- what it leaves ----------------------------------------------------------------------------------------------------


def state(model: Any) -> dict[str, Any]:
    """What a model is, as far as anybody can see it from outside, found without the code under test."""
    optimizer = getattr(model, "optimizer", None)
    found: dict[str, Any] = {
        name: getattr(model, name, None)
        for name in (
            "built",
            "compiled",
            "loss",
            "train_function",
            "test_function",
            "predict_function",
            "stop_training",
        )
    }
    found |= {f"optimizer {id(optimizer)}": getattr(optimizer, "built", None), "variables": len(model.variables)}
    found |= {f"attribute {name}": id(value) for name, value in vars(model).items()}
    flat = list(model._flatten_layers())
    found |= {f"{index} {layer.name}": sorted(vars(layer)) for index, layer in enumerate(flat)}
    found |= {f"{index} losses": len(layer._losses) for index, layer in enumerate(flat)}
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else ())]
    raw = [getattr(model, "seen", None), *(vars(module)["table"] for module in getattr(model, "helper", ()))]
    raw += [getattr(getattr(model, "noise", None), "state", None)]
    for index, variable in enumerate([*variables, *(one for one in raw if one is not None)]):
        found[f"variable {index}"] = (getattr(variable, "path", ""), variable.numpy().tobytes())
    return found


def random_numbers() -> list[Any]:
    """What everybody would draw next; draws it."""
    return [
        random.random(),
        np.random.random(),
        *(np.asarray(draw((2,))).tolist() for draw in (keras.random.normal, tf.random.normal)),
        tf.random.get_global_generator().normal((2,)).numpy().tolist(),
        layers.Dense(1).name,
        keras.optimizers.SGD().name,
    ]


def prepared(name: str, is_trained: bool) -> tuple[Any, dict[str, Any]]:
    """A model that is not even compiled, or one that has been trained."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model, options = made(name)
    if is_trained:
        data = example_inputs(model, options.get("inputs"), BATCH)
        targets = keras.tree.map_structure(tf.ones_like, model(data))
        if name == "own step":
            model.compile(keras.optimizers.SGD(momentum=0.9), keras.optimizers.Adam())
        else:
            model.compile("adam", "mse", metrics=["mae"] if tf.is_tensor(targets) else None, jit_compile=False)
            model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
        batch = (data,) if name == "own step" else (data, keras.tree.lists_to_tuples(targets))
        model.fit(tf.data.Dataset.from_tensors(batch).repeat(2), shuffle=False, verbose=0)
    return model, options


@pytest.mark.parametrize(
    ("name", "is_trained"),
    [
        ("cnn", False),
        ("nested", False),
        ("not built", False),
        ("subclassed", False),
        ("cnn", True),
        ("several", True),
        ("own step", True),
        ("subclassed", True),
    ],
)
def test_a_model_is_as_it_was(name: str, is_trained: bool) -> None:
    model, options = prepared(name, is_trained)
    before = state(model)
    for how in ({"optimizer": "adam"}, {"mode": "inference"}, *([{"optimizer": None}] if model.compiled else [])):
        shown(model, **how, **options)
        assert state(model) == before, how


@pytest.mark.long
@pytest.mark.parametrize("name", ["cnn", "subclassed", "not built"])
def test_training_goes_on_as_if_it_had_not_been_called(name: str) -> None:
    def trained(watched: bool) -> list[Any]:
        keras.backend.clear_session()
        keras.utils.set_random_seed(7)
        tf.random.get_global_generator().reset_from_seed(1)
        model, options = made(name)
        model.compile("adam" if name == "cnn" else "sgd", "mse")
        shape = (12, 12, 3) if name == "cnn" else (16,)
        x, y = np.random.normal(size=(32, *shape)), np.ones((32, 3 if name == "not built" else 4))
        if watched:
            shown(model, optimizer="adam", **options)
            shown(model, optimizer=None, **options)
            shown(model, mode="inference", **options)
        model.fit(x, y, batch_size=8, verbose=0)
        return [*(variable.numpy().tobytes() for variable in model.variables), *random_numbers()]

    assert trained(watched=True) == trained(watched=False)


def test_random_numbers_would_differ_if_a_model_drew_them() -> None:
    keras.utils.set_random_seed(7)
    first = random_numbers()
    keras.utils.set_random_seed(7)
    Subclassed()(tf.zeros((2, 16)))
    assert random_numbers()[:4] != first[:4]


@pytest.mark.parametrize("optimizer", ["adam", None])
def test_an_error_in_a_layer_restores_everything(optimizer: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cnn()
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 12, 12, 3)), np.ones((8, 4)), verbose=0)
    before, weights = state(model), state_of_weights(model)
    had_changed: list[bool] = []

    def python() -> None:
        had_changed.append(state_of_weights(model) != weights)
        if had_changed[-1]:
            raise RuntimeError("on purpose")

    def fails(self: Any, x: Any, training: bool = False) -> Any:
        tf.py_function(python, [], [])
        return original(self, x, training=training)

    original = layers.Dropout.call
    monkeypatch.setattr(layers.Dropout, "call", fails)
    with pytest.raises(tf.errors.UnknownError, match="on purpose"):
        shown(model, optimizer=optimizer)
    monkeypatch.undo()
    # A step was over by then, and variables had changed.
    assert had_changed[-1]
    assert state(model) == before


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_an_interrupt_in_a_layer_restores_everything(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cnn()
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 12, 12, 3)), np.ones((8, 4)), verbose=0)
    model.predict(np.ones((8, 12, 12, 3)), verbose=0)
    before = state(model)

    def fails(self: Any, x: Any, training: bool = False) -> Any:
        with tf.init_scope():
            assert state(model) != before
        raise KeyboardInterrupt

    monkeypatch.setattr(layers.Dropout, "call", fails)
    with pytest.raises(KeyboardInterrupt):
        shown(model, mode=mode)
    monkeypatch.undo()
    assert state(model) == before


def state_of_weights(model: Any) -> list[bytes]:
    return [variable.numpy().tobytes() for variable in model.variables]


def test_an_interrupt_between_two_steps_restores_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from kerasmemwatch.watch.memory_watch import MemoryWatch

    model = cnn()
    before, changed = state(model), []

    def interrupted(self: Any, *args: Any, **logs: Any) -> None:
        changed.append(state_of_weights(model))
        raise KeyboardInterrupt

    monkeypatch.setattr(MemoryWatch, "on_train_batch_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shown(model)
    assert changed[0] != [value[1] for key, value in before.items() if key.startswith("variable ")]
    assert state(model) == before


def test_device_memory_is_given_back(tools: SimpleNamespace) -> None:
    model = mlp()
    shown(model)
    gc.collect()
    before = tools.memory()["current"]
    for _ in range(3):
        shown(model)
        shown(model, mode="inference")
    # The slots alone would be 270 kB for each call; constants that TensorFlow keeps are a few bytes.
    assert tools.memory()["current"] - before < 8192


def test_the_gradient_of_a_function_of_the_users_stays_registered() -> None:
    """Its graph refers to the gradient by name, and the function keeps the graph."""

    @tf.function
    @tf.custom_gradient
    def scaled(x: Any) -> Any:
        return x, lambda upstream: 3.0 * upstream

    registered = ops.gradient_registry._registry
    before, x = set(registered), tf.ones((4,))
    with step_graphs_dropped(), tf.GradientTape() as tape:
        tape.watch(x)
        y = scaled(x)
    assert tape.gradient(y, x).numpy().tolist() == [3.0] * 4
    assert len(set(registered) - before) == 1
    before = set(registered)
    shown(mlp())
    assert set(registered) == before


@pytest.mark.long
def test_a_checkpoint_can_be_written_afterwards(tmp_path: Any) -> None:
    model = cnn()
    model.compile("adam", "mse")
    shown(model, optimizer=None)
    shown(model)
    model.fit(np.ones((8, 12, 12, 3)), np.ones((8, 4)), verbose=0)
    tf.train.Checkpoint(model).save(str(tmp_path / "checkpoint"))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [value.tobytes() for value in loaded.get_weights()] == [value.tobytes() for value in model.get_weights()]


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [(tf.Module(), "Keras model"), ("mlp", "Keras model"), (layers.Dense(3), "Sequential"), (None, "Keras model")],
)
def test_what_is_no_model_is_refused(value: Any, words: str) -> None:
    with pytest.raises(InvalidTypeError, match=words):
        shown(value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"batch_size": 0}, InvalidArgumentError, "batch_size=0"),
        ({"batch_size": 2.0}, InvalidTypeError, "batch_size=2.0"),
        ({"batch_size": True}, InvalidTypeError, "batch_size=True"),
        ({"mode": "test"}, InvalidArgumentError, "mode='test'"),
        ({"optimizer": None}, InvalidArgumentError, "not compiled"),
        ({"inputs": [1, 2]}, InvalidTypeError, "made of arrays"),
    ],
)
def test_impossible_arguments_are_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        shown(mlp(), **options)


def test_inputs_that_cannot_be_told_are_asked_for() -> None:
    inputs = keras.Input((None, 8), name="sequence")
    unknown = keras.Model(inputs, layers.LSTM(4)(inputs))
    with pytest.raises(InvalidArgumentError, match=r"'sequence'.*\(None, None, 8\).*inputs="):
        shown(unknown)
    assert batch_bytes(shown(unknown, inputs=keras.Input((6, 8)))) == BATCH * 6 * 8 * F32
    for model in (Subclassed(), keras.Sequential([layers.Dense(3)])):
        with pytest.raises(InvalidArgumentError, match="Pass inputs="):
            shown(model)
        assert not model.built
    sparse = keras.Input((8,), sparse=True, name="few")
    with pytest.raises(InvalidArgumentError, match="'few' to be dense"):
        shown(keras.Model(sparse, layers.Dense(3)(sparse)))


def test_a_model_without_numbers_to_train_is_refused() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.argmax(layers.Dense(3)(inputs), axis=-1))
    with pytest.raises(InvalidArgumentError, match="mode='inference'"):
        shown(model)
    assert shown(model, mode="inference").traced


# -- in other processes ------------------------------------------------------------------------------------------------

_SCRIPT = """
    import keras
    import kerasmemwatch as kmw
    model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512), keras.layers.Dense(512)])
    kmw.summary(model)
"""


@pytest.mark.long
def test_a_partial_count_says_so_and_how_to_make_it_exact(
    run_forked_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    text = run_forked_python(_SCRIPT, TF_CPU_ALLOCATOR_USE_BFC="0").stdout
    assert "partial: only allocations of 256.0 KiB or more are counted" in text
    assert text.startswith("CPU:0 is counted in part: start Python with TF_CPU_ALLOCATOR_USE_BFC=1")
    exact = run_forked_python(_SCRIPT).stdout
    assert "partial" not in exact
    assert "dense_1" in exact


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_another_backend_is_refused(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    script = """
        import keras
        import kerasmemwatch as kmw
        try:
            kmw.summary(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
        except kmw.MemWatchError as error:
            print(type(error).__name__, error)
    """
    text = run_python(script, KERAS_BACKEND="jax").stdout
    assert text.startswith(ProbeUnavailableError.__name__)
    assert "this is jax" in text


def test_disabled_it_does_nothing(run_forked_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    script = _SCRIPT + "    print(model.compiled)\n"
    done = run_forked_python(script, KERASMEMWATCH_DISABLE="1")
    assert done.stdout.splitlines() == ["Nothing was measured: KERASMEMWATCH_DISABLE is set.", "False"]
