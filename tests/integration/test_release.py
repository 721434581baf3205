"""``release`` frees dead models, and leaves live ones and every gradient as they were."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasmemwatch as kmw
from kerasmemwatch.compat import names
from kerasmemwatch.compat.tensorflow import REGISTERED_GRADIENTS, RELEASE
from kerasmemwatch.errors import InvalidTypeError
from kerasmemwatch.leaks.gradient_entries import bind
from kerasmemwatch.leaks.release import Released

X, Y = np.ones((8, 16), "float32"), np.ones((8, 1), "float32")


def entries() -> set[str]:
    return {name for name in REGISTERED_GRADIENTS.get() if name.startswith("CustomGradient-")}


def fitted(callbacks: Sequence[Any] = (), **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(32, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((16,)), *layers])
    model.compile(**{"optimizer": "adam", "loss": "mse", "jit_compile": False, **options})
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=list(callbacks))
    return model


@pytest.fixture(autouse=True)
def _nothing_to_release() -> None:
    """Bind what other tests' models left, so that counts are this test's own."""
    bind()
    gc.collect()


def weights(model: Any) -> list[bytes]:
    return [np.asarray(variable).tobytes() for variable in model.variables]


def test_a_dead_model_is_freed() -> None:
    others = kmw.release().entries_in_use  # of models that other tests left
    before = entries()
    model = fitted()
    size = sum(variable.numpy().nbytes for variable in [*model.variables, *model.optimizer.variables])
    del model
    gc.collect()
    made = entries() - before
    assert made, "TensorFlow keeps nothing, so there is nothing to release"
    released = kmw.release()
    assert released.entries == len(made) and not entries() & made
    assert released.graphs >= released.entries and released.kernel_cache_cleared
    assert released.entries_in_use <= others
    assert released.in_use_before is not None and released.in_use_after is not None
    assert released.in_use_before - released.in_use_after >= size
    assert "Released" in str(released) and "KiB freed" in repr(released)


def test_a_given_model_is_freed_when_it_dies() -> None:
    before = entries()
    model = fitted()
    own, other = entries() - before, fitted()
    released = kmw.release(model)
    assert released.entries_in_use == len(own) and not released.entries and not released.kernel_cache_cleared
    del model
    gc.collect()
    assert own and not own & entries()
    assert kmw.release(other).entries_in_use == len(entries() - before)


@pytest.mark.long
def test_a_live_model_trains_on_with_the_same_numbers() -> None:
    found = []
    for release in (lambda model: None, kmw.release, lambda model: kmw.release()):
        model = fitted()
        release(model)
        model.fit(X, Y, batch_size=4, verbose=0)
        model.fit(X[:6], Y[:6], batch_size=3, verbose=0)  # traced again
        found.append(weights(model))
    assert found[0] == found[1] == found[2]


@tf.custom_gradient
def doubled_gradient(x: Any) -> Any:
    return tf.identity(x), lambda upstream: 2.0 * upstream


def plain(weight: Any) -> Any:
    return tf.function(lambda x: doubled_gradient(x * weight))


def nested(weight: Any) -> Any:
    """The inner function is dropped as soon as the outer one is traced."""
    return tf.function(lambda x: tf.function(lambda inner: doubled_gradient(inner * weight))(x))


def looped(weight: Any) -> Any:
    def function(x: Any) -> Any:
        return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, doubled_gradient(y * weight)), [0, x])[1]

    return tf.function(function)


def branched(weight: Any) -> Any:
    return tf.function(lambda x: tf.cond(x > 0, lambda: doubled_gradient(x * weight), lambda: x))


FUNCTIONS = [plain, nested, looped, branched]


@pytest.mark.parametrize("make", FUNCTIONS)
def test_a_gradient_taken_later_is_the_same(make: Callable[[Any], Any]) -> None:
    weight, x = tf.Variable(3.0), tf.constant(2.0)

    def gradient(between: Callable[[], object]) -> float:
        function = make(weight)
        with tf.GradientTape(persistent=True) as tape:
            y = function(x)
        del function
        between()
        return float(tape.gradient(y, weight))

    assert gradient(gc.collect) == gradient(kmw.release) != 0


@pytest.mark.parametrize("make", FUNCTIONS)
def test_a_graph_that_lives_on_can_be_differentiated(make: Callable[[Any], Any]) -> None:
    """The forward pass is traced without a tape, and differentiated within another function later."""
    weight, x = tf.Variable(3.0), tf.constant(2.0)

    def gradient(between: Callable[[], object]) -> float:
        forward = make(weight).get_concrete_function(tf.TensorSpec((), tf.float32))
        between()

        @tf.function
        def later(x: Any) -> Any:
            with tf.GradientTape() as tape:
                y = forward(x)
            return tape.gradient(y, weight)

        return float(later(x))

    assert gradient(gc.collect) == gradient(kmw.release) != 0


@pytest.mark.long
def test_a_watch_releases_models_as_they_die() -> None:
    found, left = [], []
    for release in (False, True):
        watch = kmw.MemoryWatch(log_dir=None, trace=False, release_dead_models=release, strict=True)
        before = entries()
        for _ in range(3):
            keras.utils.set_random_seed(0)
            model = fitted(callbacks=[watch])
            found.append(weights(model))
            del model
        gc.collect()
        left.append(len(entries() - before))
    assert left[0] and not left[1]
    assert all(each == found[0] for each in found)


def update_once() -> None:
    """A function of the user's own that trains a variable."""
    optimizer, weight = keras.optimizers.SGD(), keras.Variable(1.0)
    tf.function(lambda: optimizer.apply([tf.constant(1.0)], [weight]))()
    assert float(weight) < 1


def test_a_session_releases_models_as_they_die() -> None:
    left = []
    for release in (False, True):
        session = kmw.MemorySession(log_dir=None, trace=False, release_dead_models=release, strict=True)
        before = entries()
        with session:
            for _ in range(2):
                with session.step():
                    update_once()
            gc.collect()
            left.append(len(entries() - before))
    assert left == [2, 0]


def test_a_copied_watch_releases_its_own_models() -> None:
    watch = kmw.MemoryWatch(log_dir=None, trace=False, release_dead_models=True)
    model = fitted(callbacks=[watch])
    assert pickle.loads(pickle.dumps(watch)).report is not None
    assert model.built


def test_a_saved_gradient_is_the_same(tmp_path: Path) -> None:
    module = tf.Module()
    module.weight = tf.Variable(3.0)
    signature = [tf.TensorSpec((), tf.float32)]
    module.call = tf.function(lambda x: doubled_gradient(x * module.weight), input_signature=signature)
    module.call.get_concrete_function()
    kmw.release()
    tf.saved_model.save(module, tmp_path, options=tf.saved_model.SaveOptions(experimental_custom_gradients=True))
    loaded, x = tf.saved_model.load(tmp_path), tf.constant(2.0)
    with tf.GradientTape() as tape:
        y = loaded.call(x)
    assert float(tape.gradient(y, loaded.weight)) == 4.0


def test_a_disabled_package_releases_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERASMEMWATCH_DISABLE", "1")
    assert kmw.release() == Released()


def test_nothing_but_a_model_can_be_given() -> None:
    with pytest.raises(InvalidTypeError, match=r"Expected model to be .* Received: model='model'"):
        kmw.release("model")


@pytest.mark.parametrize("name", RELEASE, ids=repr)
def test_without_a_private_name_it_says_what_stays(name: names.Name, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name, "_owner", None)
    monkeypatch.setattr(name, "_reason", "not in TensorFlow 99")
    model = fitted()
    del model
    [note] = kmw.release().notes
    assert note == f"{name!r} is not in TensorFlow 99. {name.lost}"
