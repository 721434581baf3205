"""Records of a step that a tracer keeps for the analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kerasmemwatch.attribution.hooks.graph_registry import Reference
from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer, Sighting
from kerasmemwatch.records.owners import Frame
from kerasmemwatch.records.timeline import TracedStep

__all__ = ["CapturedStep", "Receiver"]


class Receiver(Protocol):
    """An object that waits for the traced step."""

    def expect(self) -> None:
        """Announce that a step is being analysed."""

    def add(self, step: TracedStep | None) -> None:
        """Take the traced step; ``None`` if there is none after all."""


@dataclass
class CapturedStep:
    """A captured step, before the analysis."""

    stage: str  # `"train"`, `"test"` or `"predict"`
    mode: str  # `"graph"`, `"eager"` or `"xla"`; `""` if the capture shows it, as in the user's own loop
    reason: str  # reason for the capture
    batch: list[BatchPart]  # the tensors of its batch
    layers: Mapping[str, str] = field(default_factory=dict)  # by path of each layer in the model's order, its class
    optimizers: tuple[str, ...] = ()  # names of the models' optimizers
    space: bytes = b""  # a serialized `XSpace`
    begun_ns: int = 0  # UNIX time of its beginning
    log: list[tuple[int, Frame]] = field(default_factory=list)  # times, and the top of the stack from then on
    gradients: list[tuple[Reference, int, int]] = field(default_factory=list)  # as in `OwnerStack.eager_gradients`
    # Buffers alive after it, and those that input pipelines held when it began.
    known: list[KnownBuffer] = field(default_factory=list)
    # Eager tensors alive when it began, which may have died in it.
    earlier: list[KnownBuffer] = field(default_factory=list)
    step: int = 0  # the sample's `step`
    epoch: int | None = None  # 0-based epoch
    # UNIX times in nanoseconds of the beginning and end of functions.
    calls: list[tuple[int, int]] = field(default_factory=list)
    arguments: set[int] = field(default_factory=set)  # addresses of the tensors that the step was called with
    # By owner, the bytes that it is known to have held when the step began, at unknown addresses.
    held: dict[str, int] = field(default_factory=dict)
    beside: bool = False  # whether another fit ran in the process
    missed: bool = False  # whether another fit was being traced when this one traced its functions
    before: dict[int, int] = field(default_factory=dict)  # by key of a variable, its address before the step
    sightings: list[Sighting] = field(default_factory=list)  # addresses of variables seen within the step
    spared: bool = False  # whether this fit's functions were traced without hooks, as similar fits had been traced
    fit: Receiver | None = None  # holder of the traced step for similar fits
    after: int | None = None  # for a gap between two steps, the `step` before it; `None` for a step
    is_first: bool = False  # whether it may have traced its functions
    rows: int | None = None  # rows of its batch, if known beforehand
