"""Interface of sinks, the destinations of a recording's chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import Layout, Rows
from kerasmemwatch.records.run import RunInfo

__all__ = ["Sink", "Update"]


@dataclass(frozen=True)
class Update:
    """Data recorded since the last update.

    Attributes:
        index: 0-based number of the chunk within the run; ``None`` if there are no new rows.
        layout: The columns of ``rows``.
        rows: ``float64[num_rows, values]``, decimated as stored.
        chunk: The same rows, encoded by ``row_codec.encode_rows``.
        step: The newest step.
        time_s: UNIX time of the newest row.
        run: The run's description, if it changed.
        layers: The model's variables by layer, with ``run``.
        traced: Traced steps: number within the run, and bytes from ``step_codec.encode_step``.
    """

    index: int | None
    layout: Layout
    rows: Rows
    chunk: bytes
    step: int
    time_s: float
    run: RunInfo | None = None
    layers: tuple[LayerMemory, ...] = ()
    traced: tuple[tuple[int, bytes], ...] = ()


class Sink(Protocol):
    """One destination. Called from one thread at a time, never from the per-batch path."""

    def write(self, update: Update) -> None:
        """Write all of an update, or raise ``OSError`` without having written any; it is then retried later."""

    def close(self) -> None:
        """Close; a later ``write`` opens it again."""
