"""The inventory of variables against independent counts, on real Keras models."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.attribution.variables.inventory import VariableMemory, inventory, layer_memory, variable_bytes
from kerasmemwatch.attribution.variables.layer_paths import layer_paths
from kerasmemwatch.errors import InvalidTypeError
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.watch.memory_watch import MemoryWatch

OPTIMIZERS = sorted(
    name
    for name, value in vars(keras.optimizers).items()
    if isinstance(value, type)
    and issubclass(value, keras.optimizers.Optimizer)
    and name not in {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}
)


def count(variables: Iterable[Any]) -> int:
    """Add bytes up from the arrays themselves."""
    return sum(variable.numpy().nbytes for variable in variables)


def by_owner(variables: Iterable[VariableMemory]) -> dict[str, LayerMemory]:
    rows = layer_memory(variables)
    found = {row.path: row for row in rows}
    assert len(found) == len(rows)
    return found


def fit(model: Any, *input_shape: int, outputs: int = 1) -> None:
    model.fit(np.ones((4, *input_shape), "float32"), np.ones((4, outputs), "float32"), batch_size=2, verbose=0)


def check_totals(
    model: Any, raw: Iterable[Any] = (), optimizers: Iterable[Any] | None = None
) -> dict[str, LayerMemory]:
    """Compare every category and the sum over the rows with counts that do not use the inventory."""
    found = inventory(model)
    optimizers = [model.optimizer] if optimizers is None else list(optimizers)
    weights = count(model.weights) + count(raw)
    slots = sum(count(optimizer.variables) for optimizer in optimizers)
    others = count([v for v in model.variables if "seed" in v.name]) + count(model.metrics_variables)
    assert variable_bytes(found, "weights") == weights
    assert variable_bytes(found, "optimizer") == slots
    assert variable_bytes(found, "other") == others
    rows = layer_memory(found)
    parts = [b for r in rows for b in (r.weights_bytes, r.optimizer_bytes, r.other_bytes)]
    assert sum(b for b in parts if b is not None) == weights + slots + others
    assert sum(r.num_variables or 0 for r in rows) == len(found)
    return by_owner(found)


def mlp(**compiled: Any) -> Any:
    model = keras.Sequential(
        [
            keras.Input((8,), name="input"),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.Dropout(0.5, name="drop"),
            keras.layers.Dense(1, name="head"),
        ],
        name="mlp",
    )
    model.compile(**({"optimizer": "adam", "loss": "mse", "metrics": ["mae"]} | compiled))
    return model


def test_mlp_rows() -> None:
    model = mlp()
    fit(model, 8)
    rows = check_totals(model)
    assert list(rows) == ["hidden", "drop", "head", "optimizer", "metrics"]
    hidden = (8 * 16 + 16) * 4
    assert rows["hidden"] == LayerMemory(
        path="hidden",
        class_name="Dense",
        weights_bytes=hidden,
        optimizer_bytes=2 * hidden,
        other_bytes=0,
        num_variables=6,
    )
    # A seed is two integers; Adam keeps an int64 step and a float32 rate; two means, a total and a count each.
    assert (rows["drop"].weights_bytes, rows["drop"].other_bytes) == (0, count(model.layers[1].variables))
    assert rows["optimizer"].optimizer_bytes == 12
    assert rows["metrics"].other_bytes == 16
    assert rows["metrics"].class_name == ""


def test_nothing_is_held_before_build_and_no_slots_before_fit() -> None:
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    assert inventory(unbuilt) == ()
    assert not unbuilt.built
    model = mlp()
    assert by_owner(inventory(model))["hidden"].optimizer_bytes == 0
    assert not model.optimizer.built


def test_other_than_a_model_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="Received: model='mlp'"):
        inventory("mlp")


def test_cnn_with_batch_normalization() -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.SeparableConv2D(5, 3, name="separable"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    fit(model, 8, 8, 3)
    rows = check_totals(model)
    assert rows["norm"].weights_bytes == 4 * 4 * 4
    assert rows["norm"].optimizer_bytes == 0
    roles = {v.path: v.role for v in inventory(model) if v.owner == "norm"}
    assert (roles["norm/gamma"], roles["norm/moving_mean"]) == ("trainable", "non_trainable")


@pytest.mark.long
def test_recurrent_layers_are_levels() -> None:
    keras.backend.clear_session()  # cells are numbered on
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True, dropout=0.1), name="both"),
            layers.RNN(
                layers.StackedRNNCells([layers.GRUCell(3), layers.GRUCell(2)]), return_sequences=True, name="rnn"
            ),
            layers.TimeDistributed(layers.Dense(3, name="each"), name="times"),
            layers.LSTM(2, name="last"),
            layers.Dense(1, name="head"),
        ]
    )
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
    fit(model, 5, 3)
    rows = check_totals(model)
    lstm = (3 * 16 + 4 * 16 + 16) * 4
    assert rows["both/forward_lstm/lstm_cell"].weights_bytes == lstm
    assert rows["both/backward_lstm/lstm_cell"].optimizer_bytes == 2 * lstm
    assert rows["times/each"].weights_bytes == (2 * 3 + 3) * 4
    cells = [path for path in rows if path.startswith("rnn/stacked_rnn_cells")]
    assert len(cells) == 2
    assert "last/lstm_cell" in rows


def test_attention_and_embedding() -> None:
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 8, name="tokens")(tokens)
    x = keras.layers.MultiHeadAttention(2, 4, dropout=0.1, name="attention")(x, x)
    model = keras.Model(tokens, keras.layers.Dense(1)(keras.layers.Flatten()(x)))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    fit(model, 6)
    rows = check_totals(model)
    assert rows["tokens"].weights_bytes == 20 * 8 * 4
    assert rows["attention/query"].weights_bytes == (8 * 2 * 4 + 2 * 4) * 4


def test_paths_of_a_sequential_model_name_layers_only() -> None:
    model = mlp()
    fit(model, 8)
    assert [layer.path for layer in layer_paths(model)] == ["mlp", "input", "hidden", "drop", "head"]


def test_shared_layer_counts_once_under_its_first_path() -> None:
    a, b = keras.Input((4,)), keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    tower = keras.Sequential([keras.Input((4,)), shared], name="tower")
    model = keras.Model([a, b], keras.layers.Add()([tower(a), shared(b), shared(a)]))
    rows = by_owner(inventory(model))
    paths = [path for path in rows if path.endswith("shared")]
    assert len(paths) == 1
    assert rows[paths[0]].weights_bytes == (16 + 4) * 4
    assert variable_bytes(inventory(model)) == count(model.weights)


def test_nested_three_levels_and_names_of_siblings() -> None:
    class Block(keras.layers.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.parts = {"first": keras.layers.Dense(4, name="dense"), "more": [keras.layers.Dense(4, name="dense")]}
            self.scale = self.add_weight(shape=(4,), name="scale")

        def call(self, x: Any) -> Any:
            return self.parts["more"][0](self.parts["first"](x)) * self.scale

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.blocks = [Block(name=f"block_{i}") for i in range(2)]
            self.encoder = keras.Sequential([Block(name="inner")], name="encoder")
            self.bias = self.add_weight(shape=(4,), name="bias")

        def call(self, x: Any) -> Any:
            for block in self.blocks:
                x = block(x)
            return self.encoder(x) + self.bias

    model = Net()
    model.compile("rmsprop", "mse")
    fit(model, 4, outputs=4)
    rows = check_totals(model)
    blocks = ["block_0", "block_1", "encoder/inner"]
    layers = [path for block in blocks for path in (block, f"{block}/dense", f"{block}/dense#2")]
    assert list(rows) == ["net", *layers, "optimizer", "metrics"]
    assert rows["block_1/dense#2"].optimizer_bytes == (16 + 4) * 4
    assert rows["net"].weights_bytes == 16


class Holder(tf.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.items = [tf.Variable(tf.zeros((3, 5)))]
        self.table = {"deep": ({"er": tf.Variable(tf.zeros(7, tf.float64))},)}
        self.layer = layer


class Raw(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="raw")
        self.dense = keras.layers.Dense(1, name="dense")
        self.hidden = keras.layers.Dense(2, name="hidden")
        self.hidden.build((None, 3))
        self.helper = Holder(keras.layers.Dense(2, name="untracked"))
        self.helper.layer.build((None, 5))
        self.single = tf.Variable(tf.zeros((4, 4)))
        self.several = [tf.Variable(tf.zeros(2)), (tf.Variable(tf.zeros(3, tf.int8)),)]
        self.named = {"a": {"b": tf.Variable(tf.zeros(6, tf.float16))}}
        self.again = self.single
        self.alias = self.hidden.kernel
        self.stored = self.hidden.bias.value
        self.text = tf.Variable(["some", "words"])

    def call(self, x: Any) -> Any:
        return self.dense(x) + tf.reduce_sum(self.single)


def test_raw_variables_are_weights_wherever_they_hide() -> None:
    model = Raw()
    model(np.ones((1, 4), "float32"))
    found = {v.path: v for v in inventory(model)}
    sizes = {
        "raw/single": 64,
        "raw/several[0]": 8,
        "raw/several[1][0]": 3,
        "raw/named['a']['b']": 12,
        "raw/helper.items[0]": 60,
        "raw/helper.table['deep'][0]['er']": 56,
        "raw/text": None,
    }
    assert {path: v.bytes for path, v in found.items() if v.role == "raw"} == sizes
    assert {v.category for v in found.values()} == {"weights"}
    rows = by_owner(found.values())
    assert rows["raw"].weights_bytes is None
    assert rows["raw"].num_variables == len(sizes)
    assert rows["hidden"].weights_bytes == (3 * 2 + 2) * 4
    assert rows["untracked"].weights_bytes == (5 * 2 + 2) * 4
    known = [v for v in found.values() if v.path != "raw/text"]
    raw = [model.single, *model.helper.items, model.several[0], model.several[1][0], model.named["a"]["b"]]
    raw.append(model.helper.table["deep"][0]["er"])
    assert variable_bytes(known) == count(model.weights) + count(raw) + count(model.helper.layer.weights)


def test_a_variable_of_unknown_shape_is_unknown_not_zero() -> None:
    layer = keras.layers.Dense(2, name="dense")
    layer.build((None, 3))
    layer.free = tf.Variable(tf.zeros(3), shape=tf.TensorShape(None))
    layer.partly = tf.Variable(tf.zeros((3, 2)), shape=(None, 2))
    found = {v.path: v for v in inventory(layer)}
    assert (found["dense/free"].shape, found["dense/free"].bytes) == ((None,), None)
    assert (found["dense/partly"].shape, found["dense/partly"].bytes) == ((None, 2), None)
    (row,) = layer_memory(found.values())
    assert (row.weights_bytes, row.other_bytes, row.num_variables) == (None, 0, 4)


class Gan(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="gan")
        self.generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, name="out")], name="generator")
        self.discriminator = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="judge")], name="critic")
        self.seen = keras.metrics.Mean(name="seen")

    def compile(self, d_optimizer: Any, g_optimizer: Any) -> None:
        super().compile()
        self.d_optimizer = d_optimizer
        self.others = {"g": [g_optimizer]}

    def train_step(self, data: Any) -> dict[str, Any]:
        noise = tf.random.normal((2, 2))
        for part, optimizer in ((self.discriminator, self.d_optimizer), (self.generator, self.others["g"][0])):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self.discriminator(self.generator(noise)))
            weights = part.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.seen.update_state(loss)
        return {"seen": self.seen.result()}


def test_gan_with_two_optimizers() -> None:
    model = Gan()
    d_optimizer, g_optimizer = keras.optimizers.Adam(), keras.optimizers.SGD(momentum=0.9)
    model.compile(d_optimizer, g_optimizer)
    model.fit(np.ones((4, 4), "float32"), batch_size=2, verbose=0)
    # compile() without an optimizer makes an RMSprop that never trains.
    rows = check_totals(model, optimizers=[d_optimizer, g_optimizer, model.optimizer])
    assert rows["generator/out"].optimizer_bytes == (2 * 4 + 4) * 4
    assert rows["critic/judge"].optimizer_bytes == 2 * (4 + 1) * 4
    assert rows["optimizer"].optimizer_bytes == 3 * 12


def test_optimizer_of_a_custom_loop() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")])
    optimizer = keras.optimizers.Lion()
    optimizer.build(model.trainable_variables)
    assert variable_bytes(inventory(model), "optimizer") == 0
    rows = by_owner(inventory(model, optimizers=[optimizer]))
    assert rows["dense"].optimizer_bytes == (8 + 2) * 4
    stranger = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    rows = by_owner(inventory(stranger, optimizers=[optimizer]))
    of_others = [row for path, row in rows.items() if path in {v.path for v in model.trainable_variables}]
    assert sum(row.weights_bytes for row in of_others) == (8 + 2) * 4
    assert sum(row.optimizer_bytes for row in of_others) == (8 + 2) * 4
    assert rows["optimizer"].optimizer_bytes == count(optimizer.variables) - (8 + 2) * 4


def slot_arguments(name: str) -> dict[str, Any]:
    extras = {
        "SGD": {"momentum": 0.9},
        "RMSprop": {"momentum": 0.9, "centered": True},
        "Adam": {"amsgrad": True},
        "AdamW": {"amsgrad": True},
        "Muon": {"exclude_layers": ["head"]},
    }
    return extras.get(name, {})


@pytest.mark.parametrize("extra", [{}, {"use_ema": True, "gradient_accumulation_steps": 2}], ids=["plain", "ema"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_by_layer(name: str, extra: dict[str, Any]) -> None:
    optimizer = getattr(keras.optimizers, name)(**slot_arguments(name), **extra)
    model = mlp(optimizer=optimizer)
    if name == "Adam" and not extra:
        fit(model, 8)
    else:
        optimizer.build(model.trainable_variables)  # as a fit does, which takes longer
    rows = check_totals(model)
    # All but a few scalars must have found their layer: the step, the rate, Nadam's running product.
    assert (rows["optimizer"].num_variables or 0) <= 3
    assert (rows["optimizer"].optimizer_bytes or 0) <= 16
    hidden, head = (8 * 16 + 16) * 4, (16 + 1) * 4
    slots = {"Adam": 3, "AdamW": 3, "Adadelta": 2, "Adamax": 2, "Ftrl": 2, "Lamb": 2, "Nadam": 2, "RMSprop": 3}
    slots |= {"Adagrad": 1, "Lion": 1, "SGD": 1, "ScheduleFreeAdamW": 2}
    if name in slots:
        copies = slots[name] + len(extra)
        assert rows["hidden"].optimizer_bytes == copies * hidden
        assert rows["head"].optimizer_bytes == copies * head
    else:
        assert name in {"Adafactor", "Muon"}
        assert (rows["hidden"].optimizer_bytes or 0) >= hidden * (1 + len(extra))
    roles = {v.role for v in inventory(model) if v.category == "optimizer" and v.owner != "optimizer"}
    if extra:
        assert {"slot:accumulated_gradients", "slot:model_variables_moving_average"} < roles


def test_adafactor_factors_belong_to_their_layer() -> None:
    model = mlp(optimizer="adafactor")
    fit(model, 8)
    # A row and a column factor for the kernel, a placeholder each for the bias, and a full second moment.
    assert by_owner(inventory(model))["hidden"].optimizer_bytes == (8 + 16 + 1 + 1 + 8 * 16 + 16) * 4


class Nested(keras.optimizers.SGD):
    def build(self, variables: list[Any]) -> None:
        super().build(variables)
        self.by_kind = [self.add_optimizer_variables(variables, name) for name in ("one", "two")]
        self.by_variable = [{"a": self.add_variable_from_reference(v, "three")} for v in variables]
        self.by_path = {v.path: self.add_variable_from_reference(v, "four") for v in variables}
        self.kept = list(variables)


def test_optimizer_with_two_variables_and_nested_slots() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, use_bias=False, name="a"),
            keras.layers.Dense(5, use_bias=False, name="b"),
        ]
    )
    model.compile(Nested(), "mse")
    fit(model, 4, outputs=5)
    found = inventory(model)
    rows = by_owner(found)
    assert (rows["a"].weights_bytes, rows["b"].weights_bytes) == (48, 60)
    assert (rows["a"].optimizer_bytes, rows["b"].optimizer_bytes) == (4 * 48, 4 * 60)
    assert rows["optimizer"].num_variables == 2
    # The optimizer keeps the variables that it updates: they are its own for no model.
    stranger = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    elsewhere = inventory(stranger, optimizers=[model.optimizer])
    assert variable_bytes(elsewhere, "optimizer") == 4 * (48 + 60) + 12


def test_multi_optimizer() -> None:
    inner = keras.optimizers.Adam()
    mapped = keras.optimizers.OptimizerMap(keras.optimizers.SGD(momentum=0.5), {".*hidden/.*": inner})
    model = mlp(optimizer=keras.optimizers.MultiOptimizer(mapped))
    fit(model, 8)
    rows = check_totals(model)
    assert rows["hidden"].optimizer_bytes == 2 * (8 * 16 + 16) * 4
    assert rows["head"].optimizer_bytes == (16 + 1) * 4


def test_mixed_precision_with_loss_scaling() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = mlp()
        fit(model, 8)
        rows = check_totals(model)
    finally:
        keras.config.set_dtype_policy("float32")
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"
    assert rows["hidden"].optimizer_bytes == 2 * (8 * 16 + 16) * 4
    assert {v.dtype for v in inventory(model) if v.owner == "hidden"} == {"float32"}


# Keras 3.15 itself calls np.array() on a variable without NumPy 2's copy keyword when it quantizes.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_low_precision_quantized_and_adapted_layers() -> None:
    half = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="bfloat16", name="half")])
    assert by_owner(inventory(half))["half"].weights_bytes == (4 * 3 + 3) * 2
    small = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="int8")])
    small.layers[0].quantize("int8")
    assert by_owner(inventory(small))["int8"].weights_bytes == 4 * 3 + 3 * 4 + 3 * 4
    assert variable_bytes(inventory(small)) == count(small.weights)
    adapted = mlp()
    adapted.layers[0].enable_lora(2)
    adapted.compile("adam", "mse")
    adapted.optimizer.build(adapted.trainable_variables)
    fit(adapted, 8)
    rows = check_totals(adapted)
    assert rows["hidden"].weights_bytes == (8 * 16 + 16 + 8 * 2 + 2 * 16) * 4
    assert rows["hidden"].optimizer_bytes == 2 * (16 + 8 * 2 + 2 * 16) * 4


def test_metrics_count_once_and_never_as_weights() -> None:
    class Judge(keras.metrics.Mean):
        def __init__(self) -> None:
            super().__init__(name="judge")
            self.network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8)])

    class Watched(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="watched")
            self.dense = keras.layers.Dense(1, name="metrics")
            self.judge = Judge()
            self.judges = (self.judge, keras.metrics.Sum(name="sum"))
            self.total = self.judge.variables[0]

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Watched()
    model.compile("sgd", "mse", metrics=["mae"])
    fit(model, 4)
    found = inventory(model)
    assert variable_bytes(found, "weights") == count(model.dense.weights)
    assert variable_bytes(found, "other") == count(model.metrics_variables) + count(model.judge.network.weights)
    rows = layer_memory(found)
    assert [(row.path, row.class_name) for row in rows] == [("metrics", "Dense"), ("optimizer", ""), ("metrics", "")]


MIRRORED = """
    import json
    import tensorflow as tf
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras, numpy as np
    from kerasmemwatch.attribution.variables.inventory import inventory
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(1)])
        model.layers[0].raw = tf.Variable(tf.zeros(3))
        model.compile("adam", "mse")
    model.fit(np.ones((4, 8), "float32"), np.ones((4, 1), "float32"), batch_size=2, verbose=0)
    expected = [v.value.values for v in model.weights + model.optimizer.variables + model.metrics_variables]
    expected.append(model.layers[0].raw.values)
    print(json.dumps({
        "found": [[v.owner, v.category, v.bytes, v.replicas] for v in inventory(model)],
        "everywhere": sum(part.numpy().nbytes for parts in expected for part in parts)}))
"""


def test_mirrored_variables_count_one_replica(run_forked_python: Any) -> None:
    answer = json.loads(run_forked_python(MIRRORED).stdout.splitlines()[-1])
    found = answer["found"]
    assert {replicas for *_, replicas in found} == {2}
    assert sum(size for *_, size, _ in found) * 2 == answer["everywhere"]
    hidden = [(category, size) for owner, category, size, _ in found if owner == "hidden"]
    assert sum(size for category, size in hidden if category == "weights") == (8 * 16 + 16 + 3) * 4
    assert sum(size for category, size in hidden if category == "optimizer") == 2 * (8 * 16 + 16) * 4


ALONE = """
    import sys
    from kerasmemwatch.attribution.variables.inventory import inventory
    from kerasmemwatch.errors import InvalidTypeError
    try:
        inventory(object())
    except InvalidTypeError:
        print(sorted({"keras", "tensorflow"} & set(sys.modules)))
    import tensorflow
    print(sorted({"keras", "tensorflow"} & set(sys.modules)))
"""


@pytest.mark.long
def test_no_library_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ALONE)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    # The second line shows that the first could have been another.
    assert done.stdout.splitlines() == ["[]", "['keras', 'tensorflow']"]


class Cell(keras.layers.Layer):
    """A layer with one weight and, in a chain, one child."""

    def __init__(self, variable: Any, name: str) -> None:
        super().__init__(name=name)
        self.inner: Any = None
        self.weight = variable


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record each look at a layer's attributes, the unit of the inventory's work."""
    from kerasmemwatch.attribution.variables import object_walk

    reads: list[Any] = []
    original = object_walk._attributes

    def counting(owner: Any) -> list[tuple[str, Any]]:
        reads.append(owner)
        return original(owner)

    monkeypatch.setattr(object_walk, "_attributes", counting)
    return reads


def test_two_thousand_layers_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    width = 2_000
    model = keras.layers.Layer(name="wide")
    # Keras takes most of a millisecond to make a variable: a quarter of the layers has one.
    weights = [keras.Variable(np.zeros(3, "float32")) if i % 4 == 0 else None for i in range(width)]
    model.cells = [Cell(weight, "cell") for weight in weights]
    reads = count_reads(monkeypatch)
    found = inventory(model)
    assert len(reads) == width + 1
    assert variable_bytes(found) == width // 4 * 12
    assert [row.path for row in layer_memory(found)] == ["cell", *(f"cell#{i}" for i in range(5, width + 1, 4))]


@pytest.mark.long
def test_levels_deeper_than_recursion_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 1_200
    assert depth > sys.getrecursionlimit()
    cells = [Cell(keras.Variable(np.zeros(3, "float32")), "c") for _ in range(depth)]
    for outer, inner in itertools.pairwise(cells):
        outer.inner = inner
    reads = count_reads(monkeypatch)
    found = inventory(cells[0])
    assert len(reads) == depth
    assert variable_bytes(found) == depth * 12
    assert max(found, key=lambda v: len(v.owner)).owner == "/".join(["c"] * (depth - 1))


@pytest.mark.parametrize(("trace", "most"), [(False, 1), ([2], 5)], ids=["untraced", "traced"])
def test_a_fit_walks_each_layer_as_often_however_many_steps_it_has(
    trace: Any, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cost of a model of thousands of layers: an inventory, and for a traced step what it is compared with."""
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(4) for _ in range(8))])
    model.compile("sgd", "mse", jit_compile=False)
    reads = count_reads(monkeypatch)
    for steps in (3, 9):
        reads.clear()
        x = np.ones((4 * steps, 4), "float32")
        model.fit(x, x, batch_size=4, verbose=0, callbacks=[MemoryWatch(None, trace=trace, strict=True)])
        walks = {layer.name: sum(owner is layer for owner in reads) for layer in model.layers}
        assert set(walks.values()) == {most}


def test_cycles_end() -> None:
    outer, inner = (Cell(keras.Variable(np.zeros(3, "float32")), name) for name in ("outer", "inner"))
    outer.inner, inner.inner = inner, outer
    loop: list[Any] = [tf.Variable(1.0)]
    loop.append(loop)
    # Past Keras' attribute tracking, which would copy the list without end.
    vars(inner)["loop"] = loop
    assert [(layer.path, layer.depth) for layer in layer_paths(outer)] == [("outer", 0), ("inner", 1)]
    assert variable_bytes(inventory(outer)) == 12 + 12 + 4


def test_root_named_like_a_child_keeps_rows_apart() -> None:
    outer, inner = (Cell(keras.Variable(np.zeros(size, "float32")), "same") for size in (1, 2))
    outer.inner = inner
    assert {v.owner: v.bytes for v in inventory(outer)} == {"same#2": 4, "same": 8}


def test_sums_of_shapes_agree_with_the_arrays() -> None:
    model = mlp()
    fit(model, 8)
    by_shape = [math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in inventory(model) if None not in v.shape]
    assert sum(by_shape) == variable_bytes(inventory(model))
