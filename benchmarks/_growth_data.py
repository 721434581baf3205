"""The ways in which the clean programs are given their data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _growth_models import Family

__all__ = ["PIPELINES", "Batches", "dataset"]

_LENGTH = 20
_BUCKETS = (8, 14, 20, 26)

Drawn = Callable[[], tuple[Any, Any]]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches drawn one by one, by threads where there are workers."""

    def __init__(self, family: Family, seed: int, batches: int, **options: Any) -> None:
        super().__init__(**options)
        self._family, self._seed, self._batches = family, seed, batches

    def __len__(self) -> int:
        return self._batches

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        rng = np.random.default_rng([self._seed, index])
        return drawn(self._family, rng, self._family.batch)


def drawn(family: Family, rng: np.random.Generator, rows: int, length: int = _LENGTH) -> tuple[Any, Any]:
    """Random inputs and targets."""
    x = family.inputs(rng, rows, length)
    return x, family.targets(rng, x)


def dataset(kind: str, family: Family, rng: np.random.Generator, batches: int) -> Any:
    """What ``fit`` takes as ``x`` for so many batches an epoch: arrays as a pair, or an iterable of batches.

    Args:
        kind: A name of ``PIPELINES``, ``"arrays"``, ``"pydataset"``, ``"workers"`` or ``"generator"``.
        family: Whose data.
        rng: What draws it.
        batches: Batches of an epoch.
    """
    if kind in ("pydataset", "workers"):
        options = {"workers": 2, "max_queue_size": 6} if kind == "workers" else {}
        return Batches(family, int(rng.integers(2**31)), batches, **options)
    if kind == "generator":
        return _endless(family, rng)
    if kind in ("lengths", "buckets"):
        return PIPELINES[kind](family, rng, batches)
    # The last batch of an epoch is a smaller one.
    arrays = drawn(family, rng, batches * family.batch - int(rng.integers(1, family.batch)))
    return arrays if kind == "arrays" else PIPELINES[kind](family, arrays, batches)


def _endless(family: Family, rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
    while True:
        yield drawn(family, rng, family.batch)


def _slices(arrays: Any) -> Any:
    return tf.data.Dataset.from_tensor_slices(arrays)


def _scaled(x: Any, y: Any) -> tuple[Any, Any]:
    return (x * 1 if x.dtype.is_integer else x * 0.99), y


def _thrice(arrays: Any) -> Any:
    return tuple(np.concatenate([array] * 3) for array in arrays)


def _from_generator(family: Family, arrays: Any, batches: int) -> Any:
    specs = tuple(tf.TensorSpec(array.shape[1:], array.dtype) for array in arrays)
    rows = tf.data.Dataset.from_generator(lambda: zip(*arrays, strict=True), output_signature=specs)
    return rows.batch(family.batch).prefetch(2)


def _numpy_function(family: Family, arrays: Any, batches: int) -> Any:
    def looked_up(index: Any) -> Any:
        types = [array.dtype for array in arrays]
        x, y = tf.numpy_function(lambda i: tuple(array[i] for array in arrays), [index], types)
        return tf.ensure_shape(x, arrays[0].shape[1:]), tf.ensure_shape(y, arrays[1].shape[1:])

    rows = tf.data.Dataset.range(len(arrays[0])).map(looked_up, num_parallel_calls=2)
    return rows.batch(family.batch).prefetch(1)


def _interleaved(family: Family, arrays: Any, batches: int) -> Any:
    shards = tf.data.Dataset.range(4).interleave(
        lambda shard: _slices(arrays).shard(4, shard), cycle_length=4, num_parallel_calls=2
    )
    return shards.batch(family.batch).prefetch(4)


def _lengths(family: Family, rng: np.random.Generator, batches: int) -> Any:
    """Sequences of ever other lengths, each batch padded to its own longest."""
    seed = int(rng.integers(2**31))

    def sequences() -> Iterator[tuple[Any, Any]]:
        own = np.random.default_rng(seed)
        for _ in range(batches * family.batch):
            x, y = drawn(family, own, 1, int(own.integers(5, 40)))
            yield x[0], y[0]

    x, y = drawn(family, rng, 1)
    specs = (tf.TensorSpec((None, *x.shape[2:]), x.dtype), tf.TensorSpec((), y.dtype))
    rows = tf.data.Dataset.from_generator(sequences, output_signature=specs)
    shapes = ((None, *x.shape[2:]), ())
    return rows.padded_batch(family.batch, padded_shapes=shapes).prefetch(2)


def _buckets(family: Family, rng: np.random.Generator, batches: int) -> Any:
    """Batches of one of four lengths each."""
    ready = [drawn(family, rng, family.batch, length) for length in _BUCKETS]

    class Buckets(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return batches

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return ready[(index * 7 + index // 3) % len(ready)]

    return Buckets()


PIPELINES: dict[str, Callable[..., Any]] = {
    "prefetch": lambda family, arrays, batches: _slices(arrays).batch(family.batch).prefetch(tf.data.AUTOTUNE),
    "deep prefetch": lambda family, arrays, batches: _slices(arrays).batch(family.batch).prefetch(16),
    "shuffle": lambda family, arrays, batches: _slices(arrays).shuffle(500).batch(family.batch).prefetch(2),
    "full shuffle": lambda family, arrays, batches: _slices(arrays).shuffle(len(arrays[0])).batch(family.batch),
    "cache": lambda family, arrays, batches: _slices(arrays).map(_scaled).batch(family.batch).cache().prefetch(2),
    "cache shuffle": lambda family, arrays, batches: (
        _slices(arrays).map(_scaled).cache().shuffle(300).batch(family.batch)
    ),
    "parallel map": lambda family, arrays, batches: (
        _slices(arrays).map(_scaled, num_parallel_calls=4).batch(family.batch).prefetch(4)
    ),
    "repeat": lambda family, arrays, batches: _slices(arrays).shuffle(200).repeat().batch(family.batch).prefetch(2),
    # Three epochs of data, so that a cache fills for longer than one.
    "cached repeat": lambda family, arrays, batches: (
        _slices(_thrice(arrays)).map(_scaled).cache().repeat().batch(family.batch).prefetch(2)
    ),
    "batches cached repeat": lambda family, arrays, batches: (
        _slices(_thrice(arrays)).map(_scaled).batch(family.batch).cache().repeat()
    ),
    "unbatch": lambda family, arrays, batches: (
        _slices(arrays).batch(8).unbatch().batch(family.batch, drop_remainder=True).prefetch(1)
    ),
    "interleave": _interleaved,
    "from generator": _from_generator,
    "numpy function": _numpy_function,
    "one batch": lambda family, arrays, batches: _slices(arrays).batch(family.batch).take(1).cache().repeat(batches),
    "lengths": _lengths,
    "buckets": _buckets,
}
