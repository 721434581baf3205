"""Input pipelines, lookup tables, plain Python objects, and memory that Python does not see."""

from __future__ import annotations

import collections
import ctypes
import multiprocessing
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from leaks.kit import innocent, leak, mlp, rows

WORDS = [f"word{i}" for i in range(20_000)]


@leak("resource_tables", units=60, fix="one layer for all", report="keras #18386, TF #61866")
def string_lookup_in_a_loop(fixed: bool) -> Any:
    def make() -> Any:
        return keras.layers.StringLookup(vocabulary=WORDS)  # leak

    return _looking_up(make, tf.constant([["word5"], ["word77"]]), fixed)


@leak("resource_tables", units=60, fix="one layer for all", report="keras #18386")
def integer_lookup_in_a_loop(fixed: bool) -> Any:
    def make() -> Any:
        return keras.layers.IntegerLookup(vocabulary=list(range(20_000)))  # leak

    return _looking_up(make, tf.constant([[5], [77]]), fixed)


def _looking_up(make: Callable[[], Any], values: Any, fixed: bool) -> Any:
    one = make()

    def unit(callbacks: list[Any]) -> None:
        look_up = one if fixed else make()
        look_up(values)
        keras.backend.clear_session()

    return unit


@leak("iterators_accumulate", units=200, fix="for x in data: ...; no iterator is kept", holder="iterators")
def iterators_kept(fixed: bool) -> Any:
    x, _ = rows(4096, 64)
    iterators: list[Any] = []

    def unit(callbacks: list[Any]) -> None:
        data = tf.data.Dataset.from_tensor_slices(x).repeat().shuffle(64).batch(256).prefetch(4)
        iterators.append(iter(data))  # leak
        next(iterators[-1])
        if fixed:
            iterators.clear()

    return unit


@leak("iterators_accumulate", units=200, fix="iter(data) anew", holder="loaders")
def threads_of_kept_loaders(fixed: bool) -> Any:
    class Loader:
        def __init__(self) -> None:
            data = tf.data.Dataset.range(1 << 30).batch(64)
            self.batches = iter(data.map(lambda i: tf.ones((64, 64)), num_parallel_calls=2).prefetch(2))

    loaders = [Loader()]

    def unit(callbacks: list[Any]) -> None:
        if not fixed:
            loaders.append(Loader())  # leak
        next(loaders[-1].batches)

    return unit


@leak("iterators_accumulate", "native", fix="cache() before repeat()", report="TF #27128, #55355")
def cache_of_an_endless_dataset(fixed: bool) -> Any:
    data = tf.data.Dataset.range(64).map(lambda i: tf.ones((64, 256)) * tf.cast(i, tf.float32))
    endless = iter(data.cache().repeat() if fixed else data.repeat().cache())  # leak
    return lambda callbacks: next(endless)


@leak("retained_arrays", "python_objects", units=100, fix="one dataset", report="TF #37653, #57690")
def generator_dataset_by_epoch(fixed: bool) -> Any:
    def dataset() -> Any:
        captured = np.ones((256, 1024), "float32")  # leak
        signature = tf.TensorSpec((1024,), tf.float32)
        return tf.data.Dataset.from_generator(lambda: iter(captured[:4]), output_signature=signature)

    one = dataset()

    def unit(callbacks: list[Any]) -> None:
        for _ in one if fixed else dataset():  # leak
            pass

    return unit


@leak("retained_arrays", "python_objects", units=100, fix="one function", report="TF #35084")
def numpy_function_made_each_time(fixed: bool) -> Any:
    def pipeline() -> Any:
        table = np.ones((256, 1024), "float32")  # leak
        data = tf.data.Dataset.range(4)
        return data.map(lambda i: tf.numpy_function(lambda k: table[k], [i], tf.float32))

    one = pipeline()

    def unit(callbacks: list[Any]) -> None:
        for _ in one if fixed else pipeline():  # leak
            pass

    return unit


LOG: list[Any] = []


@leak("python_objects", fix="write the log to a file", holder="LOG")
def log_of_every_step(fixed: bool) -> Any:
    model, (x, y) = mlp(), rows(64)
    step = [0]

    def unit(callbacks: list[Any]) -> None:
        step[0] += 1
        loss = float(tf.reduce_mean((model(x) - y) ** 2))
        LOG.extend({"step": step[0], "loss": loss + i, "text": f"step {step[0]}, {i}"} for i in range(400))  # leak
        if fixed:
            LOG.clear()

    return unit


@leak("python_objects", fix="a bounded history", holder="children")
def tree_that_grows(fixed: bool) -> Any:
    class Node:
        def __init__(self, parent: Any) -> None:
            self.parent, self.children, self.visits = parent, [], 0.0

    class Search:
        def __init__(self) -> None:
            self.root = Node(None)

        def expand(self) -> None:
            if fixed:
                self.root = Node(None)
            for _ in range(600):
                self.root.children.append(Node(self.root))  # leak

    search, model, (x, _) = Search(), mlp(), rows(16)

    def unit(callbacks: list[Any]) -> None:
        model(x)
        search.expand()

    return unit


@leak("native", fix="free what malloc gave")
def malloc_without_free(fixed: bool) -> Any:
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    model, (x, _) = mlp(), rows(16)

    def unit(callbacks: list[Any]) -> None:
        model(x)
        place = library.malloc(100_000)
        ctypes.memset(place, 1, 100_000)
        if fixed:
            library.free(place)

    return unit


@leak("fragmentation", fix="work in pieces of one size")
def work_space_that_grows(fixed: bool) -> Any:
    model, (x, _) = mlp(), rows(16)
    results: collections.deque[Any] = collections.deque(maxlen=400)
    step = [0]

    def unit(callbacks: list[Any]) -> None:
        step[0] += 1
        model(x)
        pieces = [np.ones(2_000) for _ in range(20 if fixed else 40 * step[0])]
        results.append(np.ones(200))  # keeps the heap's end from being given back
        del pieces

    return unit


_KEPT: list[Any] = []


def _batch(fixed: bool) -> Any:
    np.sort(np.random.default_rng(0).random(100_000))  # USS is read each few seconds only, as that takes long
    _KEPT.append(rows(512))
    if fixed:
        _KEPT.clear()
    return rows(32)


@leak("worker_processes", loop="run", fix="nothing is kept in the worker", report="TF #37026")
def pool_that_keeps_batches(fixed: bool) -> Any:
    pool, model = multiprocessing.get_context("fork").Pool(1), mlp()

    def batches() -> Any:
        while True:
            yield pool.apply(_batch, (fixed,))

    signature = tf.TensorSpec((32, 16)), tf.TensorSpec((32, 1))
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return lambda callbacks: model.fit(data, steps_per_epoch=40, epochs=240, verbose=0, callbacks=callbacks)


@innocent("run")
def workers_that_keep_batches_for_an_epoch(fixed: bool) -> Any:
    class Keeping(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=True)
            self.batches: list[Any] = []

        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Any:
            self.batches.append(rows(4096))  # in a process that Keras ends with the epoch
            return rows(32)

    model, data = mlp(), Keeping()
    return lambda callbacks: model.fit(data, epochs=8, verbose=0, callbacks=callbacks)
