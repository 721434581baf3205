"""Models under one watch that share layers, as the parts of a GAN: each variable is listed once."""

from __future__ import annotations

import gc
from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.attribution.variables.watched_models import Inventories
from kerasmemwatch.watch.memory_watch import MemoryWatch

ROWS = 32


def dense(units: int, name: str) -> Any:
    return keras.layers.Dense(units, name=name)


def fit(model: Any, watch: MemoryWatch) -> None:
    x, y = np.ones((ROWS, *model.input_shape[1:]), "float32"), np.ones((ROWS, *model.output_shape[1:]), "float32")
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[watch])


def num_bytes(variables: Any) -> int:
    return sum(4 * int(np.prod(variable.shape)) for variable in variables)


@pytest.fixture
def gan() -> dict[str, Any]:
    keras.backend.clear_session()
    generator = keras.Sequential([keras.Input((4,)), dense(16, "hidden"), dense(8, "made")], name="generator")
    judge = keras.Sequential([keras.Input((8,)), dense(32, "seen"), dense(1, "said")], name="discriminator")
    judge.compile(keras.optimizers.Adam(), "mse", jit_compile=False)
    noise = keras.Input((4,))
    both = keras.Model(noise, judge(generator(noise)), name="gan")
    both.compile(keras.optimizers.SGD(momentum=0.9), "mse", jit_compile=False)
    return {"generator": generator, "discriminator": judge, "gan": both}


def rows(watch: MemoryWatch) -> dict[str, tuple[int | None, int | None]]:
    return {row.path: (row.weights_bytes, row.optimizer_bytes) for row in watch.report.layers if row.class_name}


def test_each_variable_is_listed_once(gan: dict[str, Any]) -> None:
    watch = MemoryWatch(verbose=0)
    for name in ("discriminator", "gan", "discriminator", "gan"):
        fit(gan[name], watch)
    seen, made = num_bytes(gan["discriminator"].layers[0].weights), num_bytes(gan["generator"].layers[1].weights)
    found = rows(watch)
    # Two slots of Adam's and one of the other optimizer's.
    assert found["discriminator/seen"] == (seen, 3 * seen) and found["gan/generator/made"] == (made, made)
    assert not any("discriminator" in path for path in found if path.startswith("gan/"))
    report = watch.report
    assert report.weights_bytes == num_bytes(gan["gan"].weights)
    state = [*gan["gan"].optimizer.variables, *gan["discriminator"].optimizer.variables]
    # Learning rates and counts of steps, of 4 and 8 bytes, are the optimizers' own.
    slots = num_bytes(variable for variable in state if variable.shape)
    assert report.optimizer_bytes is not None and 0 < report.optimizer_bytes - slots < 64


def test_a_part_that_is_used_by_itself_has_no_rows_of_its_own(gan: dict[str, Any]) -> None:
    watch = MemoryWatch(verbose=0)
    for name in ("discriminator", "gan"):
        fit(gan[name], watch)
    gan["generator"].predict(np.ones((ROWS, 4)), verbose=0, callbacks=[watch])
    assert watch.report.weights_bytes == num_bytes(gan["gan"].weights)
    assert not any(path.startswith("generator") for path in rows(watch))


def test_what_died_stays_listed(gan: dict[str, Any]) -> None:
    watch = MemoryWatch(verbose=0)
    fit(gan["discriminator"], watch)
    fit(gan["gan"], watch)
    before = rows(watch)
    del gan["gan"]
    gc.collect()
    fit(gan["discriminator"], watch)
    later = keras.Sequential([gan["discriminator"].layers[0], dense(2, "other")], name="later")
    later.build((None, 8))
    later.compile("sgd", "mse", jit_compile=False)
    fit(later, watch)
    found = rows(watch)
    assert set(before) < set(found) and "later/other" in found
    assert [path for path in found if path.endswith("seen")] == ["discriminator/seen"]


def test_what_is_left_of_a_group_is_listed_anew(gan: dict[str, Any]) -> None:
    inventories, judge = Inventories(), gan["discriminator"]
    for name in ("discriminator", "gan"):
        gan[name].optimizer.build(gan[name].trainable_variables)
        inventories.take(gan[name])
    seen = num_bytes(judge.layers[0].weights)
    assert optimizer_bytes(inventories, "discriminator/seen") == 3 * seen
    del gan["gan"]
    gc.collect()
    judge.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    judge.optimizer.build(judge.trainable_variables)
    inventories.take(judge)
    assert optimizer_bytes(inventories, "discriminator/seen") == seen
    assert len({row.path for row in inventories.layers()}) == len(inventories.layers())


def optimizer_bytes(inventories: Inventories, path: str) -> int | None:
    [found] = [row.optimizer_bytes for row in inventories.layers() if row.path == path]
    return found


def test_models_that_share_nothing_are_listed_apart() -> None:
    watch = MemoryWatch(verbose=0)
    models = [keras.Sequential([keras.Input((4,)), dense(3, "dense")], name=name) for name in ("one", "other")]
    for model in models:
        model.compile("sgd", "mse", jit_compile=False)
        fit(model, watch)
    assert set(rows(watch)) == {"one/dense", "other/dense"}
    assert watch.report.weights_bytes == sum(num_bytes(model.weights) for model in models)
