"""Caches of datasets are known before they fill, and shuffle buffers while their elements replace each other."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.attribution.live.dataset_caches import cache_sizes, cached_bytes
from kerasmemwatch.attribution.live.shuffle_buffers import shuffle_buffer
from kerasmemwatch.leaks.verdicts.filling import Shuffle
from kerasmemwatch.watch.memory_budget import MemoryBudget
from kerasmemwatch.watch.memory_session import MemorySession
from kerasmemwatch.watch.memory_watch import MemoryWatch

X, Y = np.ones((64, 100), "float32"), np.ones((64, 1), "float32")
# The allocator gives a free chunk whole unless it is twice as large as what is asked for.
MOST = 2 * 64 * 768


def rows() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y))


def test_what_a_cache_holds_once_it_is_full(tmp_path: Any) -> None:
    row = 512 + 256  # 400 bytes and 4, in chunks
    assert cache_sizes(rows().cache().batch(8).prefetch(2)) == (64 * row,)
    assert cache_sizes(tf.data.Dataset.zip(rows().cache(), rows().take(8).cache())) == (8 * row, 64 * row)
    assert cache_sizes(rows().repeat().cache()) == cache_sizes(rows().filter(lambda *_: True).cache()) == (None,)
    assert cache_sizes(rows().batch(8).cache()) == (None,)  # the last batch may be smaller
    assert cache_sizes(rows().map(lambda x, y: {"x": x, "y": y}).cache()) == (64 * row,)
    assert cache_sizes(rows().cache(str(tmp_path / "file"))) == cache_sizes(rows()) == cache_sizes(X) == ()


@pytest.mark.parametrize("how", ["fit", "session"])
def test_the_recording_knows_of_them(how: str) -> None:
    data = rows().cache().batch(32)
    if how == "fit":
        model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        watch: Any = MemoryWatch(None, trace=False, strict=True)
        model.fit(data, shuffle=False, verbose=0, callbacks=[watch])
    else:
        watch = MemorySession(log_dir=None, trace=False, strict=True)
        with watch:
            list(watch.steps(data))
    assert watch.recording.run.configuration["dataset_caches_bytes"] == [64 * 768]


def test_what_a_cache_holds_while_it_fills() -> None:
    iterator = iter(rows().cache().batch(8).repeat())
    held = []
    for _ in range(8):
        next(iterator)
        held.append(cached_bytes(iterator))
    assert held == sorted(held) and held[0] >= 8 * 404 and 64 * 404 <= held[-1] <= MOST
    assert cached_bytes(iter(rows().batch(8))) == cached_bytes(iter([1])) is None


@pytest.mark.parametrize("how", ["fit", "session"])
def test_it_is_read_as_it_fills(how: str) -> None:
    data = rows().cache().batch(1).repeat()
    if how == "fit":
        model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        watch: Any = MemoryWatch(None, trace=False, strict=True)
        model.fit(data, steps_per_epoch=20, epochs=4, shuffle=False, verbose=0, callbacks=[watch])
    else:
        watch = MemorySession(log_dir=None, trace=False, strict=True)
        with watch:
            list(watch.steps(data.take(80)))
    facts = watch.recording.run.configuration
    steps, held = facts["dataset_caches_read_steps"], facts["dataset_caches_held_bytes"]
    # A loop's iterator may have ended by its last step.
    assert list(steps) == [0, 20, 40, 60, 80][: len(steps)] and len(steps) >= (5 if how == "fit" else 4)
    assert list(held) == sorted(held) and held[0] == 0 and 20 * 404 <= held[1] <= held[-1] <= MOST


@pytest.mark.parametrize("executed", [1, 2])
def test_what_a_predict_keeps_of_each_step(executed: int) -> None:
    inputs = keras.Input((100,))
    outputs = {"a": keras.layers.Dense(64)(inputs), "b": keras.layers.Dense(1)(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile(steps_per_execution=executed)
    watch = MemoryWatch(None, trace=False, strict=True)
    model.predict(X, batch_size=16, verbose=0, callbacks=[watch])
    facts = watch.recording.run.configuration
    assert facts["predict_results_bytes"] == 16 * 64 * 4 + 256 // executed  # 64 bytes of a batch take a chunk


def test_the_shuffle_buffer_of_a_pass_over_several_epochs_is_read() -> None:
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    watch, budget = MemoryWatch(None, trace=False, strict=True), MemoryBudget(device="1 TiB")
    callbacks = [watch, budget]
    lasting = rows().repeat().shuffle(32).batch(4)
    model.fit(lasting, steps_per_epoch=25, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    facts = watch.recording.run.configuration
    # An element has 404 bytes; what is allocated is less than twice as large as 768. The next one may be missing.
    assert 31 * 404 <= facts["dataset_shuffle_bytes"] <= 2 * 32 * 768
    # 32 elements are 8 steps. Up to four more batches were taken, which wait.
    assert 6.5 <= facts["dataset_shuffle_steps"] <= 8 and facts["dataset_shuffle_since_step"] == 0
    for forecast in budget._forecasts.values():
        assert forecast._shuffle == Shuffle(facts["dataset_shuffle_bytes"], forecast._shuffle.num_steps, 0)
    # A pass that ends with its epoch leaves the buffer empty.
    model.fit(rows().shuffle(32).batch(4), epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    assert watch.recording.run.configuration["dataset_shuffle_bytes"] is None
    assert all(forecast._shuffle is None for forecast in budget._forecasts.values())


@pytest.mark.parametrize("make", [lambda: rows().repeat().batch(4), lambda: [1]])
def test_what_does_not_shuffle_has_no_such_buffer(make: Any) -> None:
    iterator = iter(make())
    next(iterator)
    assert shuffle_buffer(iterator) is None and shuffle_buffer(iter(rows().shuffle(4))) is None
