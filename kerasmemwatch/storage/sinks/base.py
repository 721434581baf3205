"""What a sink is: somewhere that chunks of a recording are written to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import Layout, Rows
from kerasmemwatch.records.run import RunInfo

__all__ = ["Sink", "Update"]


@dataclass(frozen=True)
class Update:
    """What was recorded since the last update.

    Attributes:
        index: 0-based number of the chunk within the run; ``None`` if there are no new rows.
        layout: The columns of ``rows``.
        rows: ``float64[num_rows, values]``, decimated as they are stored.
        chunk: The same rows, encoded by ``schema.encode_rows``.
        step: The newest step.
        time_s: UNIX time of the newest row.
        run: What describes the run, if it changed.
        layers: The model's variables by layer, with ``run``.
        traced: Traced steps: number within the run, and bytes by ``step_codec.encode_step``.
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
        """Write all of an update, or raise ``OSError`` having written none of it; it is then tried again later."""

    def close(self) -> None:
        """Close; more may be written afterwards, which opens it again."""
