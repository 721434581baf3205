"""Highest moments: the run's, that of the traced steps, and each worker's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kerasmemwatch.records.layer_memory import LayerMemory

__all__ = ["Peak", "TracedPeak", "WorkerMemory"]


@dataclass(frozen=True)
class Peak:
    """The run's highest moment.

    Attributes:
        bytes: In-use bytes as the allocator counts them; ``None`` if no allocator could be read.
        step: The sample in whose window it lay.
        device: Name of the allocator.
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        phase: ``"between"`` if it lay between two batches, as the samples tell. Else the phase of the highest traced
            step's peak; ``None`` without a trace, or if the step did not end.
        epoch: 0-based epoch, ``None`` outside training.
        requested_bytes: Requested bytes at the highest traced step's peak, the moment that ``Report.traced`` describes;
            ``None`` without a trace.
        by_category: Requested bytes by category at that moment.
        by_layer: The live set of that moment, by owner, the largest first.
        op: The operation that allocated at that moment; ``None`` if unknown.
        ended: Whether the step in whose window it lay ended; ``False`` if an exception left it.
    """

    bytes: int | None = None
    step: int | None = None
    device: str | None = None
    stage: str | None = None
    phase: str | None = None
    epoch: int | None = None
    requested_bytes: int | None = None
    by_category: Mapping[str, int] = field(default_factory=dict)
    by_layer: tuple[LayerMemory, ...] = field(default=(), repr=False)
    op: str | None = None
    ended: bool = True


@dataclass(frozen=True)
class TracedPeak:
    """The moment of all traced steps at which most bytes were requested.

    Attributes:
        step: The traced step.
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        epoch: 0-based epoch, ``None`` outside training.
        mode: ``"graph"``, ``"eager"`` or ``"xla"``; ``""`` of a gap.
        device: Name of the allocator.
        phase: What the step was doing; ``"between"`` if nothing later was as high as the step's begin.
        op: The operation that allocated; ``None`` if unknown.
        owner: For which layer or other owner.
        allocated_bytes: How many bytes it asked for.
        requested_bytes: Live requested bytes.
        in_use_bytes: What the allocator had handed out; what is more than requested is slack.
        prefetched_bytes: If the input pipeline allocated last, beside the step: how much. ``op``, ``owner`` and
            ``allocated_bytes`` are then those of the step's own last allocation.
        measured_in: As of ``TracedStep``: the run that it is a step of, if that is not this one.
        after: As of ``TracedStep``: the step before it, if it is a gap between two.
    """

    step: int
    stage: str
    epoch: int | None
    mode: str
    device: str
    phase: str
    op: str | None
    owner: str | None
    allocated_bytes: int | None
    requested_bytes: int
    in_use_bytes: int
    prefetched_bytes: int = 0
    measured_in: str | None = None
    after: int | None = None


@dataclass(frozen=True)
class WorkerMemory:
    """The highest figures of one of several workers.

    Attributes:
        name: ``"worker:0"``.
        run: Name of its own run.
        peak_bytes: In-use bytes at its highest moment; ``None`` if no allocator could be read.
        peak_step: The step in whose window that lay.
        device: Name of the allocator, as the worker itself calls it.
        host_rss_bytes: Its highest resident set size.
        last_step: Its last sampled step; ``None`` if it has none.
        ends_early: Whether other workers went on after that.
    """

    name: str
    run: str
    peak_bytes: int | None
    peak_step: int | None
    device: str | None
    host_rss_bytes: int | None
    last_step: int | None
    ends_early: bool
