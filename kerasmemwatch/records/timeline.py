"""A timeline: the allocations of one step in order, on top of what lived before it. Values only; numpy only."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["AUTOTUNING", "CATEGORIES", "PHASES", "Timeline", "TracedStep"]

# The owner of what is taken to try algorithms, as when XLA compiles a program for a GPU.
AUTOTUNING = "autotuning"

CATEGORIES = (
    "weights",
    "optimizer",
    "gradients",
    "activations",
    "temporaries",
    "inputs",
    "other",
    "unattributed",
)
PHASES = ("between", "input", "forward", "backward", "update")


@dataclass(frozen=True, eq=False)
class Timeline:
    """The allocations of one step on one device; an event is a birth or a death of one or more of them.

    After event ``e``, allocation ``i`` is alive if ``birth[i] <= e < death[i]``. What an allocator has handed out is
    its live requested bytes and slack (rounding, unused space, holes in a block): ``in_use_bytes[e]`` is exact, so
    slack at ``e`` is ``in_use_bytes[e]`` less the live requested bytes.

    Attributes:
        device: Name of the device whose allocator it is, as of the samples: ``"CPU:0"``, ``"GPU:0"``; of memory of the
            host that GPUs copy from and to, ``"GPU host (pinned)"``.
        requested_bytes: ``int64[num_allocations]``, what the operation asked for.
        reserved_bytes: ``int64[num_allocations]``, the chunk it got; 0 for a buffer within another's block (XLA), and
            for the baseline, whose chunks are not known.
        birth: ``int64[num_allocations]``, index of the event; -1 if alive before the step (the baseline).
        death: ``int64[num_allocations]``, index of the event; ``num_events`` if it outlives the step.
        address: ``uint64[num_allocations]``, 0 if unknown.
        owner: ``int32[num_allocations]``, index into ``owners``.
        category: ``int8[num_allocations]``, index into ``CATEGORIES``.
        phase: ``int8[num_allocations]``, index into ``PHASES``: when it was born; ``"between"`` for the baseline.
        op: ``int32[num_allocations]``, index into ``ops``.
        time_ns: ``int64[num_events]``, since the step began.
        in_use_bytes: ``int64[num_events]``, the allocator's own running total after each event.
        in_use_before_bytes: The same before the first event.
        owners: Layer paths and named owners: ``"input pipeline"``, ``"loss"``, ``"metrics"``, ``"optimizer"``,
            ``"autotuning"``, ``"unattributed"``.
        classes: Class of each owner that is a layer, ``""`` for others.
        ops: Names of operations, ``""`` where unknown.
        gradient_bytes: As of ``TracedStep``, the gradients on this device, if it is not the one that heads its step.
    """

    device: str
    requested_bytes: NDArray[np.int64]
    reserved_bytes: NDArray[np.int64]
    birth: NDArray[np.int64]
    death: NDArray[np.int64]
    address: NDArray[np.uint64]
    owner: NDArray[np.int32]
    category: NDArray[np.int8]
    phase: NDArray[np.int8]
    op: NDArray[np.int32]
    time_ns: NDArray[np.int64]
    in_use_bytes: NDArray[np.int64]
    in_use_before_bytes: int
    owners: tuple[str, ...]
    classes: tuple[str, ...]
    ops: tuple[str, ...]
    gradient_bytes: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Timeline of {self.device}: {self.num_allocations:,} allocations, {self.num_events:,} events>"

    @property
    def num_allocations(self) -> int:
        """Number of allocations, the baseline's too."""
        return len(self.birth)

    @property
    def num_events(self) -> int:
        """Number of births and deaths."""
        return len(self.time_ns)


@dataclass(frozen=True, eq=False)
class TracedStep:
    """One step whose every allocation was recorded, or one gap between two steps.

    Attributes:
        step: The sample's ``step``; of a gap, the sample in whose ``device_between_peak_bytes`` it is: that of the step
            after it, or, where none follows, of the step before it.
        stage: ``"train"``, ``"test"`` or ``"predict"``; of a gap, that of the step before it.
        epoch: 0-based epoch, ``None`` outside training.
        time_s: UNIX time of its begin, in seconds.
        mode: ``"graph"``, ``"eager"`` or ``"xla"``; ``""`` of a gap.
        reason: Why this step was traced, in words.
        timeline: Its allocations on the device that heads it.
        output_bytes: By layer path, the size of the outputs of one call, where known.
        gradient_bytes: By layer path, the gradients of its variables on that device, each variable's once; they need
            not all have been alive at one moment.
        notes: What is uncertain about it, in plain words.
        measured_in: Name of the run that it is a step of, ``""`` if that has none, where a fit that is alike was traced
            in place of this run's; ``None`` if it is a step of this run.
        after: Of a gap: the ``step`` that ended before it, 0 if none had. ``None`` if this is a step.
        others: Its allocations on other devices, where there were any.
    """

    step: int
    stage: str
    epoch: int | None
    time_s: float
    mode: str
    reason: str
    timeline: Timeline
    output_bytes: dict[str, int] = field(default_factory=dict)
    gradient_bytes: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measured_in: str | None = None
    after: int | None = None
    others: tuple[Timeline, ...] = ()

    @property
    def number(self) -> float:
        """What it is chosen by: its ``step``; of a gap half a step more than that before it, ``20.5`` after step 20."""
        return self.step if self.after is None else self.after + 0.5

    @property
    def timelines(self) -> dict[str, Timeline]:
        """Its allocations by device, ``timeline`` first."""
        return {each.device: each for each in (self.timeline, *self.others)}

    def __repr__(self) -> str:
        kind = self.mode if self.after is None else "gap"
        return f"<TracedStep {self.number:g}: {self.stage}, {kind}, {self.timeline.num_allocations:,} allocations>"
