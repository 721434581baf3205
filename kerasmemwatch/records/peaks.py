"""Peaks: of the run, of its traced steps, and of each worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kerasmemwatch.records.layer_memory import LayerMemory

__all__ = ["Peak", "TracedPeak", "WorkerMemory"]


@dataclass(frozen=True)
class Peak:
    """The run's peak: the moment of highest memory use.

    Attributes:
        bytes: In-use bytes as the allocator counts them; ``None`` if no allocator could be read.
        step: The sample whose window contains it.
        device: Name of the allocator.
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        phase: ``"between"`` if the samples place it between two batches. Otherwise the phase of the highest traced
            step's peak; ``None`` without a trace, or if the step did not end.
        epoch: 0-based epoch, ``None`` outside training.
        requested_bytes: Requested bytes at the highest traced step's peak, the moment that ``Report.traced`` describes;
            ``None`` without a trace.
        by_category: Requested bytes by category at that moment.
        by_layer: The live set at that moment, by owner, largest first.
        op: The operation that allocated at that moment; ``None`` if unknown.
        ended: Whether that step ended; ``False`` if an exception aborted it.
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
    """The moment of highest requested bytes over all traced steps.

    Attributes:
        step: The traced step.
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        epoch: 0-based epoch, ``None`` outside training.
        mode: ``"graph"``, ``"eager"`` or ``"xla"``; ``""`` for a gap.
        device: Name of the allocator.
        phase: What the step was doing; ``"between"`` if the step's start was its highest moment.
        op: The operation that allocated; ``None`` if unknown.
        owner: The layer or other owner that it allocated for.
        allocated_bytes: Size of that allocation.
        requested_bytes: Live requested bytes.
        in_use_bytes: Bytes that the allocator had handed out; the excess over requested bytes is slack.
        prefetched_bytes: Size of the last allocation, if the input pipeline made it in parallel with the step. ``op``,
            ``owner`` and ``allocated_bytes`` then describe the step's own last allocation.
        measured_in: As in ``TracedStep``: the run that the step belongs to, if not this one.
        after: As in ``TracedStep``: the preceding step, if this is a gap.
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
    """Peak figures of one of several workers.

    Attributes:
        name: ``"worker:0"``.
        run: Name of its own run.
        peak_bytes: In-use bytes at its peak; ``None`` if no allocator could be read.
        peak_step: The step whose window contains that peak.
        device: The worker's own name for the allocator.
        host_rss_bytes: Its highest resident set size.
        last_step: Its last sampled step; ``None`` if it has none.
        ends_early: Whether other workers continued after that step.
    """

    name: str
    run: str
    peak_bytes: int | None
    peak_step: int | None
    device: str | None
    host_rss_bytes: int | None
    last_step: int | None
    ends_early: bool
