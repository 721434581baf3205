"""The parts of a recording."""

from __future__ import annotations

from dataclasses import dataclass

from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.records.timeline import TracedStep

__all__ = ["Recorded"]


@dataclass(frozen=True, eq=False)
class Recorded:
    """What was recorded of one run, as values."""

    run: RunInfo
    samples: Samples
    layers: tuple[LayerMemory, ...] = ()
    steps: tuple[TracedStep, ...] = ()
