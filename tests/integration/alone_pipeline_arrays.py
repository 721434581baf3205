"""Arrays that running input pipelines keep: as many bytes as the allocator says, and inputs in a traced step."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.analysis.steps.live_set import coverage, peak_event
from kerasmemwatch.attribution.live.iterator_buffers import waiting_bytes
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.live.pipeline_arrays import kept_arrays
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import Timeline
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

ROWS, BATCH_SIZE = 40_010, 400
INDICES = 8 * ROWS
STEPS = -(-ROWS // BATCH_SIZE)
# Small constants, and what chunks are larger than what was asked for.
SMALL = 8192


@pytest.fixture(autouse=True)
def _earlier_models_are_found() -> None:
    """Take back what the fixtures of all tests do for their speed: Python lists no frozen object."""
    gc.unfreeze()


def in_use() -> int:
    return int(tf.config.experimental.get_memory_info("CPU:0")["current"])


def settled(iterator: Any) -> list[KnownBuffer]:
    """The arrays that an iterator keeps, once its pipeline has filled its buffers."""
    found, since = kept_arrays([iterator]), time.monotonic()
    while time.monotonic() - since < 0.3:
        if (now := kept_arrays([iterator])) != found:
            found, since = now, time.monotonic()
    return found


def sizes(iterator: Any) -> list[int]:
    return [buffer.bytes for buffer in settled(iterator)]


def numbers(count: int, change: Callable[[Any], Any] = lambda numbers: numbers) -> tf.data.Dataset:
    """One array of numbers, of which a ``flat_map`` goes through slices."""
    arrays = tf.data.Dataset.range(1).map(lambda _: change(tf.range(count, dtype=tf.int64))).prefetch(1)
    return arrays.flat_map(lambda array: tf.data.Dataset.from_tensor_slices(tf.reshape(array, [count // 10, 10])))


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (lambda: numbers(40_000), [320_000]),  # the result is the constant
        (lambda: numbers(40_000, tf.random.shuffle), [320_000, 320_000]),
        (lambda: numbers(2_000_000), [16_000_000]),  # too large to be kept as a constant
        (lambda: numbers(2_000_000, tf.random.shuffle), [16_000_000]),
        (lambda: tf.data.Dataset.range(9).map(lambda i: tf.ones((9, 9000)) * tf.cast(i, tf.float32)), [9 * 9000 * 4]),
        (lambda: tf.data.Dataset.range(99).batch(3), []),
    ],
    ids=["in order", "shuffled", "many in order", "many shuffled", "map", "none"],
)
def test_what_is_kept_is_what_is_in_use_for_it(data: Callable[[], Any], kept: list[int]) -> None:
    dataset = data()
    before = in_use()
    iterator = iter(dataset)
    next(iterator)
    found = settled(iterator)
    assert [buffer.bytes for buffer in found] == kept
    chunks = sum(buffer.reserved or buffer.bytes for buffer in found)
    # What is iterated is in a chunk of known size, which may be larger. The constant that it was shuffled from is not.
    slack = SMALL + (sum(kept) // 15 if len(kept) > 1 else 0)
    assert 0 <= in_use() - before - waiting_bytes([iterator]) - chunks < slack
    del iterator
    gc.collect()
    assert in_use() - before < SMALL


def fitted(step: int, **options: Any) -> Timeline:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    watch = MemoryWatch(None, trace=[step], strict=True, verbose=0)
    x, y = np.ones((ROWS, 4), "float32"), np.ones((ROWS, 1), "float32")
    model.fit(x, y, batch_size=BATCH_SIZE, verbose=0, callbacks=[watch], **options)
    [traced] = watch.report.steps
    return traced.timeline


def indices(timeline: Timeline) -> list[str]:
    """Categories of what was alive before the step and is as large as the numbers of all samples."""
    mine = (timeline.birth < 0) & (timeline.requested_bytes == INDICES)
    return [CATEGORIES[code] for code in timeline.category[mine].tolist()]


@pytest.mark.parametrize(
    ("shuffle", "step", "arrays"),
    [
        (True, 1, 1),  # the order is made within an epoch's first step
        (True, 20, 2),
        (True, STEPS, 1),  # and gone before its last
        (False, 1, 1),
        (False, 20, 1),
        ("batch", 20, 1),
    ],
)
def test_the_numbers_of_all_samples_are_inputs(shuffle: Any, step: int, arrays: int) -> None:
    timeline = fitted(step, shuffle=shuffle)
    assert coverage(timeline, peak_event(timeline)) >= 0.99
    assert indices(timeline) == ["inputs"] * arrays
    unknown = (timeline.birth < 0) & (timeline.category == CATEGORIES.index("unattributed"))
    assert timeline.requested_bytes[unknown].sum() < SMALL


def test_an_array_that_was_gone_through_is_kept_no_longer() -> None:
    iterator = iter(numbers(40_000, tf.random.shuffle))
    next(iterator)
    assert sizes(iterator) == [320_000, 320_000]
    for _ in iterator:
        pass
    assert sizes(iterator) == [320_000]


def test_what_may_lie_elsewhere_or_is_another_s_is_not_told() -> None:
    array = tf.random.uniform((40_000, 8))

    def slices(each: Any) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(each)

    views = tf.data.Dataset.range(4).map(lambda i: tf.reshape(tf.slice(array, [0, 0], [40_000, 8]), [8, 40_000]))
    numpys = tf.data.Dataset.range(4).map(
        lambda i: tf.ensure_shape(tf.numpy_function(lambda i: np.ones((1000, 80)), [i], tf.float64), (1000, 80))
    )
    for data in (views, numpys):
        iterator = iter(data.flat_map(slices))
        next(iterator)
        assert sizes(iterator) == []


def test_what_has_no_pipeline_keeps_nothing() -> None:
    assert kept_arrays([object(), None]) == []
