"""Filter that keeps our functions out of the stacks in TensorFlow's errors."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kerasmemwatch.compat.tensorflow import FILTER_STACK

__all__ = ["left_out_of_stacks"]


@contextmanager
def left_out_of_stacks(_: object) -> Iterator[None]:
    """Filter our functions: TensorFlow writes into its errors the stack under which an operation was made."""
    import tensorflow as tf

    stack_filter: Any = FILTER_STACK.get()
    if tf.inside_function():
        # This begins in the middle of a tracing, whose own filters would end before this one.
        yield
        return
    with _filter_of(stack_filter)():
        yield


@functools.cache
def _filter_of(base: Any) -> Any:
    """Make the filter's class, once: a class refers to itself, so only the garbage collector frees one."""
    files = _our_files()

    class Filter(base):
        def get_filtered_filenames(self) -> Any:
            return files | self.parent.get_filtered_filenames()

    return Filter


@functools.cache
def _our_files() -> frozenset[str]:
    package = Path(__file__).parents[2]
    return frozenset(map(str, package.rglob("*.py")))
