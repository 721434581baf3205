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
    """A captured step, before the analysis.

    Attributes:
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        mode: ``"graph"``, ``"eager"`` or ``"xla"``; ``""`` if the capture shows it, as in the user's own loop.
        reason: Reason for the capture.
        batch: The tensors of its batch.
        layers: By path of each layer in the model's order, its class.
        optimizers: Names of the models' optimizers.
        space: A serialized ``XSpace``.
        begun_ns: UNIX time of its beginning.
        log: Times, and the top of the stack from then on.
        gradients: As in ``OwnerStack.eager_gradients``.
        known: Buffers alive after it, and those that input pipelines held when it began.
        step: The sample's ``step``.
        epoch: 0-based epoch.
        calls: UNIX times in nanoseconds of the beginning and end of functions.
        arguments: Addresses of the tensors that the step was called with.
        held: By owner, the bytes that it is known to have held when the step began, at unknown addresses.
        beside: Whether another fit ran in the process.
        missed: Whether another fit was being traced when this one traced its functions.
        before: By key of a variable, its address before the step.
        sightings: Addresses of variables seen within the step.
        spared: Whether this fit's functions were traced without hooks, as similar fits had been traced.
        fit: Holder of the traced step for similar fits.
        after: For a gap between two steps, the ``step`` before it; ``None`` for a step.
        is_first: Whether it may have traced its functions.
    """

    stage: str
    mode: str
    reason: str
    batch: list[BatchPart]
    layers: Mapping[str, str] = field(default_factory=dict)
    optimizers: tuple[str, ...] = ()
    space: bytes = b""
    begun_ns: int = 0
    log: list[tuple[int, Frame]] = field(default_factory=list)
    gradients: list[tuple[Reference, int, int]] = field(default_factory=list)
    known: list[KnownBuffer] = field(default_factory=list)
    step: int = 0
    epoch: int | None = None
    calls: list[tuple[int, int]] = field(default_factory=list)
    arguments: set[int] = field(default_factory=set)
    held: dict[str, int] = field(default_factory=dict)
    beside: bool = False
    missed: bool = False
    before: dict[int, int] = field(default_factory=dict)
    sightings: list[Sighting] = field(default_factory=list)
    spared: bool = False
    fit: Receiver | None = None
    after: int | None = None
    is_first: bool = False
