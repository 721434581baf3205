"""Probe of the C library's heap: what ``malloc`` has handed out and not got back, whatever pages hold it.

RSS moves by what is free within the heap, often some 10 MiB, and so hides what a program keeps. This does not. It
counts what NumPy, Python's large objects and TensorFlow on a CPU hold, but no memory that a library maps by itself.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from kerasmemwatch.probes.base import UNKNOWN, begin_nothing
from kerasmemwatch.records.samples import Column

__all__ = ["HeapProbe", "c_function", "heap_bytes_reader", "malloc_info_reader"]

# The C library visits its lists of free blocks, which takes some 150 us of CPU time: this share of the time at most,
# but more while a process has spent little on it, so that short runs have enough readings.
_SHARE, _FIRST_SHARE, _FIRST_S = 0.001, 0.01, 0.03


class HeapProbe:
    """Reads how many bytes ``malloc`` has handed out, after some of the batches.

    Attributes:
        batch_end: Reads ``columns``: NaN if it is not due, or the C library does not tell. ``open`` replaces it.
    """

    name = "heap"
    columns: tuple[Column, ...] = (Column("host_malloc_bytes"),)
    slow_columns: tuple[Column, ...] = ()

    batch_begin = staticmethod(begin_nothing)

    def __init__(self) -> None:
        self.facts: dict[str, object] = {}
        self.batch_end: Callable[[], Sequence[float]] = _read_nothing

    def open(self) -> None:
        """Look up the function of the C library."""
        read = heap_bytes_reader()
        self.batch_end = _read_nothing if read is None else _now_and_then(read)

    def epoch_end(self) -> Sequence[float]:
        """Read nothing: there are no ``slow_columns``."""
        return ()

    def close(self) -> None:
        """Read nothing any more."""
        self.batch_end = _read_nothing


class _MallInfo2(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33 and later (man 3 mallinfo)."""

    _fields_ = (
        ("others", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),
        ("more", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def c_function(name: str) -> Any:
    """Look up a function of Linux' C library; ``None`` where there is no such function."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None


def malloc_info_reader() -> Callable[[], Any] | None:
    """Look up what tells ``struct mallinfo2``; ``None`` without glibc."""
    tell = c_function("mallinfo2")
    if tell is None:
        return None
    tell.restype, tell.argtypes = _MallInfo2, ()
    return cast("Callable[[], Any]", tell)


def heap_bytes_reader() -> Callable[[], float] | None:
    """Make a reader of the bytes in use in the heap and in blocks that ``malloc`` mapped; ``None`` without glibc.

    Example:
        >>> read = heap_bytes_reader()
        >>> read is None or read() > 0
        True
    """
    tell = malloc_info_reader()
    if tell is None:
        return None

    def read() -> float:
        told = tell()
        return float(told.uordblks + told.hblkhd)

    return read


class _Readings:
    """Those of all probes of this process: a search makes thousands of short fits, each with a watch of its own.

    Attributes:
        due: When the next one is, as ``time.monotonic`` has it.
        spent_s: CPU time of all so far.
    """

    def __init__(self) -> None:
        self.due = self.spent_s = 0.0


READINGS = _Readings()


def _now_and_then(read: Callable[[], float]) -> Callable[[], Sequence[float]]:
    clock, cpu_clock, all_of_them = time.monotonic, time.thread_time, READINGS

    def read_if_due() -> tuple[float]:
        if clock() < all_of_them.due:
            return (UNKNOWN,)
        begun = cpu_clock()
        value = read()
        cost_s = cpu_clock() - begun
        all_of_them.spent_s += cost_s
        all_of_them.due = clock() + cost_s / (_FIRST_SHARE if all_of_them.spent_s <= _FIRST_S else _SHARE)
        return (value,)

    return read_if_due


def _read_nothing() -> Sequence[float]:
    return (UNKNOWN,)
