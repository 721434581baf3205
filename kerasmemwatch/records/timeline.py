"""Timeline of a traced step: its allocations in order, on top of those alive before it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["PHASES", "Timeline", "TracedStep"]

PHASES = ("between", "input", "forward", "backward", "update")


@dataclass(frozen=True, eq=False)
class Timeline:
    """The allocations of one step on one device; an event is the birth or death of one or more of them.

    After event ``e``, allocation ``i`` is alive if ``birth[i] <= e < death[i]``. The allocator's bytes in use are the
    live requested bytes plus slack (rounding, unused space, holes in a block). ``in_use_bytes[e]`` is exact, so slack
    at ``e`` is ``in_use_bytes[e]`` minus the live requested bytes.

    Attributes:
        device: Name of the allocator's device, as in the samples: ``"CPU:0"``, ``"GPU:0"``; ``"GPU host (pinned)"`` for
            host memory that GPUs copy from and to.
        requested_bytes: ``int64[num_allocations]``, the size that the operation asked for.
        reserved_bytes: ``int64[num_allocations]``, the size of the chunk it got; 0 for a buffer within another's block
            (XLA), and for the baseline, whose chunks are unknown.
        birth: ``int64[num_allocations]``, index of the event; -1 if alive before the step (the baseline).
        death: ``int64[num_allocations]``, index of the event; ``num_events`` if it outlives the step.
        address: ``uint64[num_allocations]``, 0 if unknown.
        owner: ``int32[num_allocations]``, index into ``owners``.
        category: ``int8[num_allocations]``, index into ``categories.CATEGORIES``.
        phase: ``int8[num_allocations]``, index into ``PHASES``: the phase of its birth; ``"between"`` for the baseline.
        op: ``int32[num_allocations]``, index into ``ops``.
        time_ns: ``int64[num_events]``, since the step began.
        in_use_bytes: ``int64[num_events]``, the allocator's own running total after each event.
        in_use_before_bytes: The same before the first event.
        owners: Layer paths, those of ``NAMED_OWNERS``, and ``"unattributed"``.
        classes: Class of each owner that is a layer, ``""`` for the others.
        ops: Names of operations, ``""`` where unknown.
        gradient_bytes: As in ``TracedStep``, for this device; empty in the step's main timeline.
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
        """Number of allocations, including the baseline's."""
        return len(self.birth)

    @property
    def num_events(self) -> int:
        """Number of births and deaths."""
        return len(self.time_ns)

    def is_of(self, name: str) -> NDArray[np.bool_]:
        """``bool[num_allocations]``, which ones a named owner has that is no layer: a layer may be called alike."""
        pairs = zip(self.owners, self.classes, strict=True)
        found: NDArray[np.bool_] = np.array([pair == (name, "") for pair in pairs], np.bool_)[self.owner]
        return found


@dataclass(frozen=True, eq=False)
class TracedStep:
    """One step with every allocation recorded, or the gap between two steps.

    Attributes:
        step: The sample's ``step``; for a gap, the sample whose ``device_between_peak_bytes`` includes it: that of the
            next step, or of the previous one if none follows.
        stage: ``"train"``, ``"test"`` or ``"predict"``; for a gap, the previous step's.
        epoch: 0-based epoch, ``None`` outside training.
        time_s: UNIX time of its start, in seconds.
        mode: ``"graph"``, ``"eager"`` or ``"xla"``; ``""`` of a gap.
        reason: Why this step was traced, in words.
        timeline: Its allocations on its main device.
        output_bytes: By layer path, the size of the outputs of one call, where known.
        gradient_bytes: By layer path, the gradients of its variables on that device, each variable counted once; they
            need not all have been alive at the same moment.
        notes: What is uncertain about it, in plain words.
        measured_in: Name of the run that the step belongs to (``""`` if unnamed), where an equivalent fit was traced
            instead of this one; ``None`` if it is a step of this run.
        after: For a gap: the ``step`` that ended before it, 0 if none had. ``None`` for a step.
        others: Its allocations on other devices, if any.
        batch_rows: Rows of its batch; ``None`` if unknown.
        batch_bytes: Bytes of the largest tensor of its batch; ``None`` if unknown.
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
    batch_rows: int | None = None
    batch_bytes: int | None = None

    @property
    def number(self) -> float:
        """Number that selects it: its ``step``; for a gap, the previous step plus a half: ``20.5`` after step 20."""
        return self.step if self.after is None else self.after + 0.5

    @property
    def timelines(self) -> dict[str, Timeline]:
        """Its timelines by device, ``timeline`` first."""
        return {each.device: each for each in (self.timeline, *self.others)}

    def __repr__(self) -> str:
        kind = self.mode if self.after is None else "gap"
        return f"<TracedStep {self.number:g}: {self.stage}, {kind}, {self.timeline.num_allocations:,} allocations>"
