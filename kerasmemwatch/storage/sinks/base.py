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
    """Data recorded since the last update."""

    index: int | None  # 0-based number of the chunk within the run; `None` if there are no new rows
    layout: Layout  # the columns of `rows`
    rows: Rows  # `float64[num_rows, values]`, decimated as stored
    chunk: bytes  # the same rows, encoded by `row_codec.encode_rows`
    step: int  # the newest step
    time_s: float  # UNIX time of the newest row
    run: RunInfo | None = None  # the run's description, if it changed
    layers: tuple[LayerMemory, ...] = ()  # the model's variables by layer, with `run`
    # Traced steps: number within the run, and bytes from `step_codec.encode_step`.
    traced: tuple[tuple[int, bytes], ...] = ()


class Sink(Protocol):
    """One destination. Called from one thread at a time, never from the per-batch path."""

    def write(self, update: Update) -> None:
        """Write all of an update, or raise ``OSError`` without having written any; it is then retried later."""

    def close(self) -> None:
        """Close; a later ``write`` opens it again."""
