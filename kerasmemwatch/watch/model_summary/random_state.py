"""The random number generators of Python, NumPy, Keras and TensorFlow, as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kerasmemwatch.watch.model_summary.model_state import as_it_was

__all__ = ["same_random_numbers"]


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Have whoever draws a random number afterwards get what would have been drawn now.

    Keras keeps its generator beside the numbers behind the names it makes (``dense_1``), which stay the same too.
    """
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context
    from tensorflow.python.ops import stateful_random_ops

    python, numpy = random.getstate(), np.random.get_state()
    eager = context.context()
    # Makes the seeds of eager operations, once a seed has been set. Others meanwhile: TensorFlow goes on where an
    # operation of the same seed has left off.
    seeds = getattr(eager, "_rng", None)
    if seeds is not None:
        eager._rng = random.Random(__name__)
    generator = stateful_random_ops.global_generator
    keras: Any = vars(global_state.GLOBAL_STATE_TRACKER)
    try:
        with as_it_was(keras, generator):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if seeds is not None:
            eager._rng = seeds
        stateful_random_ops.global_generator = generator
