"""Interface of probes: sources that are read at batch and epoch boundaries.

A probe knows nothing about recorders or Keras. It returns plain floats, mostly bytes (every byte count below 9 PB is
exact in a float64), and NaN for unknown values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kerasmemwatch.records.samples import Column

__all__ = ["UNKNOWN", "Probe", "begin_nothing"]

UNKNOWN = float("nan")


def begin_nothing() -> None:
    """``batch_begin`` of a probe without a window. It is never called for a probe whose ``batch_begin`` it is."""


class Probe(Protocol):
    """One source of measurements. The recorder opens it, reads it, and closes it."""

    name: str  # short name, used in messages: `"host"`, `"heap"`, `"tensorflow"`, `"nvml"`, `"counters"`
    # Columns that `batch_end` returns, one `float` each (`width` floats for a column with a width). Known once
    # `open` has returned.
    columns: tuple[Column, ...]
    # Columns that `epoch_end` returns, likewise. Read rarely, because reading is slow.
    slow_columns: tuple[Column, ...]
    # Constant facts about the source, JSON-able: device names, limits, how exactly it counts. A run keeps those that
    # `sampling/run_recorder.py` asks for, and any `"note"`.
    facts: dict[str, object]

    def open(self) -> None:
        """Prepare for reading. May be called again for each stage, and must then be cheap.

        Raises:
            ProbeUnavailableError: If nothing can be measured here; holds the reason and the remedy.
        """

    def batch_begin(self) -> None:
        """End the window between batches and begin the batch's; called as a sampled batch begins."""

    def batch_end(self) -> Sequence[float]:
        """Read ``columns`` as a sampled batch ends. No disk I/O, no growing allocations."""

    def epoch_end(self) -> Sequence[float]:
        """Read ``slow_columns``."""

    def close(self) -> None:
        """Release the resources that ``open`` took. Called once at the end; must not raise.

        A garbage-collected watch closes its probes in the middle of other code. A probe whose ``close`` takes a lock
        that all probes share is not safe to close there: it defines ``abandon()``, which is called instead.
        """
