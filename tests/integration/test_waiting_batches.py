"""TensorFlow's own account of what input pipelines hold ready."""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

from kerasmemwatch.attribution.live import iterator_buffers
from kerasmemwatch.attribution.live.live_buffers import tensor_kind
from kerasmemwatch.attribution.variables.live_objects import live_objects


def waiting_bytes() -> int:
    """Of all iterators that are alive."""
    return iterator_buffers.waiting_bytes(live_objects(tensor_kind)["iterator"])


def in_use() -> int:
    return int(tf.config.experimental.get_memory_info("CPU:0")["current"])


def settled() -> int:
    """What waits once the pipeline has filled its buffers."""
    found, since = -1, time.monotonic()
    while time.monotonic() - since < 0.5:
        if (now := waiting_bytes()) != found:
            found, since = now, time.monotonic()
    return found


def test_what_waits_is_what_is_in_use_for_it() -> None:
    data = tf.data.Dataset.range(100).map(lambda i: tf.fill((1000,), i)).prefetch(3)
    before, in_use_before = settled(), in_use()
    iterator = iter(data)
    next(iterator)
    waiting = settled() - before
    assert waiting >= 3 * 8000
    assert waiting % 256 == 0  # as allocated: a chunk that was free before may be up to twice as large
    assert 0 <= in_use() - in_use_before - waiting < 8192
    del iterator
    assert waiting_bytes() == before


def test_an_iterator_without_a_model_counts_as_empty() -> None:
    before = waiting_bytes()
    options = tf.data.Options()
    options.autotune.enabled = False
    iterator = iter(tf.data.Dataset.from_tensor_slices(np.ones((50, 1000))).prefetch(3).with_options(options))
    next(iterator)
    assert waiting_bytes() == before


def test_within_a_function_that_is_traced() -> None:
    @tf.function(autograph=False)
    def traced() -> tf.Tensor:
        assert waiting_bytes() >= 0
        return tf.constant(1)

    iterator = iter(tf.data.Dataset.range(3))
    assert int(traced()) == 1
    assert int(next(iterator)) == 0


def test_an_iterator_of_a_function_that_was_traced_counts_as_empty() -> None:
    kept = []

    @tf.function
    def traced(data: tf.data.Iterator) -> tf.Tensor:
        kept.append(data)
        return next(data)

    before = waiting_bytes()
    assert int(traced(iter(tf.data.Dataset.range(3)))) == 0
    assert kept and waiting_bytes() == before
