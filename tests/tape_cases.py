"""What a tape can be asked for, as functions of the tape's class; each gives values, or the error that is raised."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmemwatch.watch.tapes import implicit_session

# Each takes a tape's class and the tensors x [3, 4] and ids [3, 2].
CASES: dict[str, Callable[..., Any]] = {}


def case(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def without_text(*arguments: Any) -> Any:
        # A compiled function returns no text.
        return tf.nest.map_structure(_as_numbers, function(*arguments))

    CASES[function.__name__] = without_text
    return function


def _as_numbers(value: Any) -> Any:
    return tf.constant(np.frombuffer(value.encode(), np.uint8)) if isinstance(value, str) else value


def inputs() -> tuple[tf.Tensor, tf.Tensor]:
    random = np.random.default_rng(3)
    return tf.constant(random.normal(size=(3, 4)), tf.float32), tf.constant(random.integers(0, 6, (3, 2)), tf.int32)


@functools.cache
def variable(name: str = "w", trainable: bool = True) -> tf.Variable:
    value = np.random.default_rng(len(name)).normal(size=(4, 2)).astype("float32")
    with tf.init_scope():
        return tf.Variable(value, trainable=trainable, name=name)


def raised(function: Callable[[], Any]) -> str:
    """The error that a call ends with, ``""`` if with none."""
    try:
        function()
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__qualname__}: {error}"
    return ""


def recorded(make: Callable[..., Any], x: tf.Tensor, **options: bool) -> tuple[Any, tf.Tensor]:
    """A tape that has recorded x * x."""
    with make(**options) as tape:
        tape.watch(x)
        y = x * x
    return tape, y


# -- arguments and methods ---------------------------------------------------------------------------------------


@case
def default(make: Any, x: Any, ids: Any) -> Any:
    w = variable()
    with make() as tape:
        loss = tf.reduce_sum(tf.tanh(x @ w))
    return tape.gradient(loss, w), [each.name for each in tape.watched_variables()]


@case
def persistent(make: Any, x: Any, ids: Any) -> Any:
    with make(persistent=True) as tape:
        tape.watch(x)
        y = tf.exp(x)
        z = y * y
    found = tape.gradient(z, x), tape.gradient(y, x), tape.gradient([y, z], [x, y])
    del tape
    return found


@case
def positional_arguments(make: Any, x: Any, ids: Any) -> Any:
    w = variable()
    with make(True, False) as tape:
        tape.watch(x)
        y = x @ w
    return tape.gradient(y, [x, w], None, "zero"), tape.gradient(y, [x, w], tf.ones_like(y), "none")


@case
def without_watching_accessed_variables(make: Any, x: Any, ids: Any) -> Any:
    w, other = variable(), variable("other")
    with make(watch_accessed_variables=False) as tape:
        tape.watch(other)
        loss = tf.reduce_sum(x @ w * tf.reduce_sum(other))
    found = tape.gradient(loss, [w, other])
    assert found[0] is None and found[1] is not None
    return found, [each.name for each in tape.watched_variables()]


@case
def untrainable_variable(make: Any, x: Any, ids: Any) -> Any:
    fixed = variable("fixed", False)
    with make(persistent=True) as tape:
        y = tf.reduce_sum(x @ fixed)
    before = tape.gradient(y, fixed)
    with make() as tape:
        tape.watch([fixed, x])
        y = tf.reduce_sum(x @ fixed)
    return before, tape.gradient(y, {"x": x, "fixed": fixed})


@case
def output_gradients(make: Any, x: Any, ids: Any) -> Any:
    with make(persistent=True) as tape:
        tape.watch(x)
        y, z = tf.sin(x), tf.cos(x)
    return (
        tape.gradient(y, x, output_gradients=tf.random.stateless_uniform(x.shape, (1, 2))),
        tape.gradient([y, z], x, output_gradients=[2 * x, tf.ones_like(x)]),
    )


@case
def unconnected(make: Any, x: Any, ids: Any) -> Any:
    other = tf.constant([1.0, 2.0])
    with make(persistent=True) as tape:
        tape.watch([x, other])
        y = tf.exp(x)
    return (
        tape.gradient(y, [x, other]),
        tape.gradient(y, [x, other], unconnected_gradients="zero"),
        tape.gradient(y, other, unconnected_gradients=tf.UnconnectedGradients.ZERO),
        tape.gradient(y, other, unconnected_gradients=tf.UnconnectedGradients.NONE),
        tape.gradient(tf.cast(tf.cast(y, tf.int32), tf.float32), x),
    )


@case
def nested_sources(make: Any, x: Any, ids: Any) -> Any:
    w = variable()
    with make() as tape:
        tape.watch(x)
        y = {"sum": x @ w, "more": [x * 2, (x - 1,)]}
    return tape.gradient(y, {"a": [x, (w,)], "b": x})


@case
def jacobian(make: Any, x: Any, ids: Any) -> Any:
    with make(persistent=True) as tape:
        tape.watch(x)
        y = tf.tanh(x @ variable())
    sources = {"x": x, "w": [variable()]}
    return (
        tape.jacobian(y, sources),
        tape.jacobian(y, sources, experimental_use_pfor=False),
        tape.jacobian(y, x, parallel_iterations=2),
        tape.jacobian(y, x, "zero", 2, False),
        tape.jacobian(y, variable("other")),
        tape.jacobian(y, x[0], unconnected_gradients="none"),
    )


@case
def jacobian_of_a_used_tape(make: Any, x: Any, ids: Any) -> Any:
    tape, y = recorded(make, x)
    return tape.jacobian(y, x), raised(lambda: tape.jacobian(y, x)), raised(lambda: tape.gradient(y, x))


@case
def batch_jacobian(make: Any, x: Any, ids: Any) -> Any:
    with make(persistent=True) as tape:
        tape.watch(x)
        y = tf.sin(x @ variable())
    return (
        tape.batch_jacobian(y, x),
        tape.batch_jacobian(y, x, experimental_use_pfor=False),
        tape.batch_jacobian(y, x, parallel_iterations=2),
        tape.batch_jacobian(y, x, tf.UnconnectedGradients.ZERO, 2, False),
        tape.batch_jacobian(y, tf.ones((3, 2))),
    )


@case
def batch_jacobian_once(make: Any, x: Any, ids: Any) -> Any:
    tape, y = recorded(make, x)
    return tape.batch_jacobian(y, x), raised(lambda: tape.batch_jacobian(y, x))


@case
def stop_recording(make: Any, x: Any, ids: Any) -> Any:
    with make() as tape:
        tape.watch(x)
        with tape.stop_recording():
            y = x * x
        z = y + tf.exp(x)
        with tape.stop_recording():
            inner = tape._recording
    return tape.gradient(z, x), inner


@case
def reset(make: Any, x: Any, ids: Any) -> Any:
    with make(persistent=True) as tape:
        tape.watch(x)
        y = x * x
        tape.reset()
        names = [each.name for each in tape.watched_variables()]
        tape.watch(x)
        z = y + x**3
    return tape.gradient(z, x), names


@case
def reentered(make: Any, x: Any, ids: Any) -> Any:
    tape = make()
    with tape:
        tape.watch(x)
        y = x * x
    with tape as again:
        z = y + tf.exp(x)
    assert again is tape
    return tape.gradient(z, x)


@case
def within_its_context(make: Any, x: Any, ids: Any) -> Any:
    with make() as tape:
        tape.watch(x)
        y = x * x
        found = tape.gradient(y, x)
        after = x * y
    with make(persistent=True) as tape:
        tape.watch(x)
        first = tape.gradient(x**3, x)
    return found, after, tape.gradient(first, x)


@case
def raised_within(make: Any, x: Any, ids: Any) -> Any:
    tape = make()

    def failing() -> None:
        with tape:
            tape.watch(x)
            raise KeyError("of the user's")

    return raised(failing), tape._recording, tape.gradient(x, x)


# -- tapes among tapes -------------------------------------------------------------------------------------------


@case
def higher_order(make: Any, x: Any, ids: Any) -> Any:
    with make() as third:
        third.watch(x)
        with make() as second:
            second.watch(x)
            with make() as first:
                first.watch(x)
                y = tf.sin(x) * x**3
            dy = first.gradient(y, x)
        d2y = second.gradient(dy, x)
    return dy, d2y, third.gradient(d2y, x)


@case
def within_and_without_tensorflow_s_own(make: Any, x: Any, ids: Any) -> Any:
    found = []
    for outer, inner in ((make, tf.GradientTape), (tf.GradientTape, make)):
        with outer() as second:
            second.watch(x)
            with inner() as first:
                first.watch(x)
                y = x**4
            dy = first.gradient(y, x)
        found += [dy, second.gradient(dy, x)]
    return found


@case
def hessian(make: Any, x: Any, ids: Any) -> Any:
    w = variable()
    with make() as outer:
        with make() as inner:
            loss = tf.reduce_sum(tf.tanh(x @ w) ** 2)
        gradient = inner.gradient(loss, w)
    return outer.jacobian(gradient, w)


@case
def gradient_penalty(make: Any, x: Any, ids: Any) -> Any:
    w = variable()
    with make() as outer:
        with make() as inner:
            inner.watch(x)
            score = tf.reduce_sum(tf.nn.softplus(x @ w))
        slope = inner.gradient(score, x)
        loss = score + tf.reduce_mean((tf.norm(slope, axis=1) - 1.0) ** 2)
    return outer.gradient(loss, w)


@case
def two_at_once(make: Any, x: Any, ids: Any) -> Any:
    w = variable()
    with make() as one, make(persistent=True) as two:
        two.watch(x)
        y = tf.tanh(x @ w)
        z = tf.reduce_sum(y)
    return one.gradient(y, w), two.gradient(z, [x, w]), two.gradient(y, x)


@case
def overlapping(make: Any, x: Any, ids: Any) -> Any:
    one, two = make(), make()
    one.__enter__()
    one.watch(x)
    y = x * x
    two.__enter__()
    two.watch([x, y])
    z = y * x
    one.__exit__(None, None, None)
    u = z * z
    two.__exit__(None, None, None)
    return one.gradient(z, x), two.gradient(u, [x, y])


# -- what is recorded --------------------------------------------------------------------------------------------


@tf.custom_gradient
def clipped(x: Any) -> Any:
    def gradient(upstream: Any) -> Any:
        return tf.clip_by_norm(upstream, 0.5)

    return tf.identity(x), gradient


@tf.custom_gradient
def scaled(x: Any) -> Any:
    w = variable()

    def gradient(upstream: Any, variables: Any = None) -> Any:
        return upstream @ tf.transpose(w) * 2, [tf.transpose(x) @ upstream for _ in variables]

    return x @ w, gradient


@case
def custom_gradient(make: Any, x: Any, ids: Any) -> Any:
    with make(persistent=True) as tape:
        tape.watch(x)
        y, z = tf.exp(clipped(x)), tf.tanh(scaled(x))
    return tape.gradient(y, x), tape.gradient(z, [x, variable()]), tape.gradient(clipped(x), x)


@tf.recompute_grad
def recomputed(x: Any) -> Any:
    return tf.exp(tf.sin(x) @ variable())


@case
def recompute_grad(make: Any, x: Any, ids: Any) -> Any:
    with make() as tape:
        tape.watch(x)
        y = recomputed(x)
    return tape.gradient(y, [x, variable()])


@case
def sparse(make: Any, x: Any, ids: Any) -> Any:
    with make(persistent=True) as tape:
        y = tf.reduce_sum(tf.gather(variable(), ids % 4))
        z = y + tf.reduce_sum(tf.nn.embedding_lookup(variable(), ids % 4) ** 2)
    once, added = tape.gradient(y, variable()), tape.gradient(z, [variable()])
    assert isinstance(once, tf.IndexedSlices) and isinstance(added[0], tf.IndexedSlices)
    return once, added, tape.jacobian(tf.stack([y, z]), variable())


@case
def ragged(make: Any, x: Any, ids: Any) -> Any:
    rows = tf.RaggedTensor.from_row_lengths(tf.reshape(x, [-1])[:6], [3, 1, 2])
    with make() as tape:
        tape.watch(rows)
        y = rows * rows
    found = tape.gradient(y, rows)
    assert isinstance(found, tf.RaggedTensor)
    return found


@case
def complex_numbers(make: Any, x: Any, ids: Any) -> Any:
    z = tf.complex(x, x + 1)
    with make() as tape:
        tape.watch(z)
        y = tf.abs(z * z) + tf.math.real(z)
    return tape.gradient(y, z)


@case
def dtypes(make: Any, x: Any, ids: Any) -> Any:
    found = []
    for dtype in (tf.float16, tf.bfloat16, tf.float64):
        value = tf.cast(x, dtype)
        with make() as tape:
            tape.watch([x, value])
            y = tf.cast(value * value, tf.float32) * x
        found += tape.gradient(y, [x, value])
    return found


@case
def control_flow(make: Any, x: Any, ids: Any) -> Any:
    with make() as tape:
        tape.watch(x)
        y = tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: tf.exp(x))
        _, z = tf.while_loop(lambda i, _: i < 3, lambda i, value: (i + 1, value * x), (0, y), maximum_iterations=3)
    return tape.gradient(z, x)


@case
def random_operations(make: Any, x: Any, ids: Any) -> Any:
    # Their seeds come from the number of operations before them.
    with make() as tape:
        tape.watch(x)
        y = tf.nn.dropout(x, 0.5) * tf.random.normal(x.shape)
    return tape.gradient(y, x), tf.random.uniform((2,))


@case
def a_function_within(make: Any, x: Any, ids: Any) -> Any:
    w = variable()

    @tf.function
    def forward(x: Any) -> Any:
        return tf.tanh(x @ w)

    with make() as tape:
        tape.watch(x)
        y = forward(x) * tf.reduce_sum(forward(-x))
    return tape.gradient(y, [x, w])


# -- models ------------------------------------------------------------------------------------------------------


def _shared() -> keras.Model:
    given = keras.Input((4,))
    encoder = keras.layers.Dense(4, "tanh", name="encoder")
    return keras.Model(given, keras.layers.Dense(2)(encoder(encoder(given) + encoder(given * 2))))


def _recurrent() -> keras.Model:
    layers = keras.layers
    given = keras.Input((4,))
    x = layers.Reshape((2, 2))(given)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(3, "tanh"))(x)
    return keras.Model(given, layers.Dense(2)(layers.Flatten()(x)))


def _convolutional() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Reshape((2, 2, 1)),
            layers.Conv2D(3, 2, padding="same"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def _mixed() -> keras.Model:
    policy = keras.DTypePolicy("mixed_bfloat16")
    layers = [keras.layers.Dense(8, "relu", dtype=policy), keras.layers.Dense(2, dtype=policy)]
    return keras.Sequential([keras.Input((4,)), *layers])


def _rematerialized() -> keras.Model:
    with keras.RematScope(mode="full"):
        layers = [keras.layers.Dense(6, "tanh"), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((4,)), *layers])


@functools.cache
def model(build: Callable[[], keras.Model]) -> keras.Model:
    with tf.init_scope():
        keras.utils.set_random_seed(1)
        return build()


def _of_model(build: Callable[[], keras.Model], make: Any, x: Any) -> Any:
    watched = model(build)
    with make() as tape:
        tape.watch(x)
        loss = tf.reduce_mean(tf.cast(watched(x), tf.float32) ** 2)
    return loss, tape.gradient(loss, [x, *watched.trainable_weights])


@case
def shared_layers(make: Any, x: Any, ids: Any) -> Any:
    return _of_model(_shared, make, x)


@case
def recurrent_layers(make: Any, x: Any, ids: Any) -> Any:
    return _of_model(_recurrent, make, x)


@case
def convolutions(make: Any, x: Any, ids: Any) -> Any:
    return _of_model(_convolutional, make, x)


@case
def mixed_precision(make: Any, x: Any, ids: Any) -> Any:
    return _of_model(_mixed, make, x)


@case
def rematerialized(make: Any, x: Any, ids: Any) -> Any:
    return _of_model(_rematerialized, make, x)


def _embedding() -> keras.Model:
    layers = [keras.layers.Embedding(6, 3, name="table"), keras.layers.GRU(3), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((2,), dtype="int32"), *layers])


@case
def embedding(make: Any, x: Any, ids: Any) -> Any:
    watched = model(_embedding)
    with make() as tape:
        loss = tf.reduce_mean(watched(ids) ** 2)
    found = tape.gradient(loss, watched.trainable_variables)
    assert isinstance(found[0], tf.IndexedSlices)
    return found


@case
def model_jacobian(make: Any, x: Any, ids: Any) -> Any:
    watched = model(_shared)
    with make(persistent=True) as tape:
        tape.watch(x)
        y = watched(x)
    return tape.batch_jacobian(y, x), tape.jacobian(y, watched.trainable_weights)


@case
def loss_scaling(make: Any, x: Any, ids: Any) -> Any:
    watched = model(_mixed)
    with make() as tape:
        loss = tf.reduce_mean(tf.cast(watched(x), tf.float32) ** 2) * 1024.0
    return [gradient / 1024.0 for gradient in tape.gradient(loss, watched.trainable_weights)]


# -- errors ------------------------------------------------------------------------------------------------------


@case
def errors(make: Any, x: Any, ids: Any) -> Any:
    used, y = recorded(make, x)
    used.gradient(y, x)
    fresh, z = recorded(make, x)
    open_tape, unclosed = make(), make()
    open_tape.__enter__()
    found = [
        raised(lambda: used.gradient(y, x)),
        raised(lambda: used.jacobian(y, x)),
        raised(lambda: used.batch_jacobian(y, x)),
        raised(lambda: fresh.gradient(None, x)),
        raised(lambda: fresh.gradient(z, x, unconnected_gradients="nonsense")),
        raised(lambda: fresh.gradient()),
        raised(lambda: fresh.gradient(z, x, None, "none", 1)),
        raised(lambda: fresh.gradient(z, x, nonsense=1)),
        raised(lambda: fresh.jacobian(z)),
        raised(lambda: fresh.batch_jacobian(z, tf.ones((2, 2)))),
        raised(lambda: fresh.batch_jacobian(tf.ones((3,)), x)),
        raised(lambda: fresh.reset()),
        raised(lambda: fresh.watch("a string")),
        raised(lambda: make().watch(3)),
        raised(lambda: make().gradient(y, x)),
        raised(lambda: make().stop_recording().__enter__()),
        raised(lambda: open_tape.__enter__()),
        raised(lambda: unclosed.__enter__().__exit__()),
    ]
    # Whatever is computed later would be recorded.
    unclosed.__exit__(None, None, None)
    open_tape.__exit__(None, None, None)
    assert all(found)
    return found


@case
def errors_of_jacobians(make: Any, x: Any, ids: Any) -> Any:
    tape, y = recorded(make, x)
    one, other = recorded(make, x)
    return (
        raised(lambda: tape.jacobian(y, x, experimental_use_pfor=False)),
        raised(lambda: one.batch_jacobian(other, x, experimental_use_pfor=False)),
        raised(lambda: recorded(make, x)[0].batch_jacobian(other, x, parallel_iterations=1)),
    )


# -- comparing ---------------------------------------------------------------------------------------------------


def parts(value: Any) -> Any:
    """A result as bytes that can be compared, with its structure, types and shapes."""
    if isinstance(value, dict):
        return {key: parts(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [parts(each) for each in value]
    if isinstance(value, tf.IndexedSlices):
        return "IndexedSlices", parts(value.values), parts(value.indices), parts(value.dense_shape)
    if isinstance(value, tf.RaggedTensor):
        return "RaggedTensor", parts(value.flat_values), parts(value.nested_row_splits)
    if isinstance(value, tf.Tensor):
        array = value.numpy()
        return value.dtype.name, tuple(value.shape), array.tobytes() if isinstance(array, np.ndarray) else array
    return value


def outcome(function: Callable[[], Any]) -> Any:
    """What a call gives or raises."""
    tf.random.set_seed(5)
    try:
        return parts(function())
    except Exception as error:
        return type(error), str(error)


def nodes(graph: Any) -> list[tuple[str, str]]:
    """Name and type of each operation of a graph, and the types of those in functions that it calls."""
    definition = graph.as_graph_def()
    assert not [node for node in _all(definition) if "PyFunc" in node.op]
    inner = sorted(_numberless(node.name) + " " + node.op for node in _all(definition, own=False))
    # What a function within captures is called after a number of TensorFlow's, too.
    own = [("" if node.name.isdecimal() else node.name, node.op) for node in definition.node]
    return own + [("", each) for each in inner]


def _all(definition: Any, own: bool = True) -> Iterator[Any]:
    if own:
        yield from definition.node
    for function in definition.library.function:
        yield from function.node_def


def _numberless(name: str) -> str:
    # TensorFlow numbers its functions through the whole process, and calls operations after them.
    return re.sub(r"\d+", "", name)


@contextmanager
def alone() -> Iterator[None]:
    """No session is left from before, and none is left behind."""
    _forget()
    try:
        yield
    finally:
        _forget()


def _forget() -> None:
    own, implicit_session._own = implicit_session._own, None
    if own is not None:
        own._give_way()
        own.__exit__(None, None, None)
