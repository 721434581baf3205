"""Probe of counters that tell why memory grows: Python's full collections, and what TensorFlow keeps by name.

Reading them takes about 2 us a step. They are numbers of objects, not bytes.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence, Sized

from kerasmemwatch.compat.tensorflow import FUNCTION_REFS, PY_FUNCTIONS, REGISTERED_GRADIENTS
from kerasmemwatch.probes.base import UNKNOWN, begin_nothing
from kerasmemwatch.records.rows import COUNTERS
from kerasmemwatch.records.samples import Column

__all__ = ["CounterProbe"]

_TASKS = "/proc/self/task"


class CounterProbe:
    """Counts objects that hold memory.

    Attributes:
        batch_end: Reads ``columns``. ``open`` replaces it: look it up again afterwards.
    """

    name = "counters"
    columns: tuple[Column, ...] = tuple(map(Column, COUNTERS))
    # Threads of this process, and blocks of memory that Python's own allocator has handed out.
    slow_columns: tuple[Column, ...] = (Column("threads"), Column("python_blocks"))

    batch_begin = staticmethod(begin_nothing)

    def __init__(self) -> None:
        self.facts: dict[str, object] = {}
        self.batch_end: Callable[[], Sequence[float]] = _reader()

    def open(self) -> None:
        """Look up TensorFlow's registries, unless it is not loaded yet or lacks them."""
        self.batch_end = _reader()

    def epoch_end(self) -> Sequence[float]:
        """Read ``slow_columns``."""
        try:
            threads = float(len(os.listdir(_TASKS)))
        except OSError:  # not Linux
            threads = UNKNOWN
        return threads, float(sys.getallocatedblocks())

    def close(self) -> None:
        """Let go of the registries."""
        self.batch_end = _read_nothing


def _read_nothing() -> Sequence[float]:
    return (UNKNOWN,) * len(COUNTERS)


def _reader() -> Callable[[], Sequence[float]]:
    """Make a reader with all that it needs bound as locals: it runs after each batch."""
    get_stats = gc.get_stats
    functions, gradients = _size_of(FUNCTION_REFS.if_loaded()), _size_of(REGISTERED_GRADIENTS.if_loaded())
    py_functions = getattr(PY_FUNCTIONS.if_loaded(), "size", _unknown)

    def read() -> tuple[float, float, float, float]:
        return float(get_stats()[2]["collections"]), float(functions()), float(gradients()), float(py_functions())

    return read


def _size_of(registry: Sized | None) -> Callable[[], float]:
    return _unknown if registry is None else registry.__len__


def _unknown() -> float:
    return UNKNOWN
