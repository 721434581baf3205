"""Saves and restores the random number generators of Python, NumPy, Keras and TensorFlow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kerasmemwatch.compat.keras import GLOBAL_STATE
from kerasmemwatch.compat.tensorflow import CONTEXT, CONTEXT_SEEDS, GLOBAL_GENERATOR
from kerasmemwatch.watch.model_summary.model_state import as_it_was

__all__ = ["same_random_numbers"]


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Make random numbers drawn after the block the same as if the block had not run.

    Keras keeps its generator with the counters of the names it makes (``dense_1``), which stay the same too.
    """
    python, numpy = random.getstate(), np.random.get_state()
    # This generator makes the seeds of eager operations once a seed has been set. The block uses other seeds, because
    # TensorFlow continues where an operation with the same seed left off.
    eager = CONTEXT.get()() if CONTEXT.exists else None
    seeds = CONTEXT_SEEDS.of(eager)
    if seeds is not None:
        setattr(eager, CONTEXT_SEEDS.attribute, random.Random(__name__))
    generator = GLOBAL_GENERATOR.get() if GLOBAL_GENERATOR.exists else None
    keras: Any = vars(GLOBAL_STATE.get()) if GLOBAL_STATE.exists else None
    try:
        with as_it_was(keras, generator):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if seeds is not None:
            setattr(eager, CONTEXT_SEEDS.attribute, seeds)
        if GLOBAL_GENERATOR.exists:
            GLOBAL_GENERATOR.set(generator)
