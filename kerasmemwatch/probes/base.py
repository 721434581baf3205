"""What a probe is: something that is read at batch and epoch boundaries and gives bytes.

A probe knows nothing of recorders or Keras. It gives plain floats (every byte count below 9 PB is exact in a
float64) and NaN for what it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kerasmemwatch.records.samples import Column

__all__ = ["UNKNOWN", "Probe", "begin_nothing"]

UNKNOWN = float("nan")


def begin_nothing() -> None:
    """``batch_begin`` of a probe without a window; a probe whose ``batch_begin`` is this very function is not asked."""


class Probe(Protocol):
    """One source of measurements. The recorder opens it, reads it, and closes it.

    Attributes:
        name: Short name, used in messages: ``"host"``, ``"tensorflow"``, ``"nvml"``.
        columns: What ``batch_end`` returns, one ``float`` a column (``width`` floats where the column has
            a width). Known once ``open`` has returned.
        slow_columns: What ``epoch_end`` returns, likewise. Read rarely, because it is slow.
        facts: What to remember about the source once, JSON-able: device names, limits, how exact it counts.
    """

    name: str
    columns: tuple[Column, ...]
    slow_columns: tuple[Column, ...]
    facts: dict[str, object]

    def open(self) -> None:
        """Get ready; may be called again for each stage and must then be cheap.

        Raises:
            ProbeUnavailableError: If nothing can be measured here, with the reason and the remedy.
        """

    def batch_begin(self) -> None:
        """Called as a sampled batch begins: ends the window between batches, begins the batch's."""

    def batch_end(self) -> Sequence[float]:
        """Read ``columns`` as a sampled batch ends. No I/O to disk, no allocation that grows."""

    def epoch_end(self) -> Sequence[float]:
        """Read ``slow_columns``."""

    def close(self) -> None:
        """Give back what ``open`` took. Called once at the end; must not raise.

        A watch that is garbage closes its probes in the middle of anything. A probe that must not be closed there,
        because that takes a lock which all probes share, defines ``abandon()``: it is called in place of ``close``.
        """
