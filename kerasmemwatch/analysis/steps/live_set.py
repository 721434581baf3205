"""What is alive at a moment of a step: bytes by category and owner. Pure functions, numpy only.

The moments of a step are numbered by the event before them: ``-1`` is before the first event, ``e`` is after event
``e``. An array over all moments has one entry more than there are events; its entry ``e + 1`` is moment ``e``.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import AUTOTUNING
from kerasmemwatch.records.peaks import TracedPeak
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep

__all__ = [
    "UNATTRIBUTED",
    "born_at",
    "by_category",
    "by_layer",
    "category_series",
    "coverage",
    "grouped_series",
    "highest_step",
    "peak_event",
    "requested_at",
    "traced_peak",
]

UNATTRIBUTED = "unattributed"
_INPUT = PHASES.index("input")
_PASSES = [PHASES.index(name) for name in ("forward", "backward", "update")]


def requested_at(timeline: Timeline) -> NDArray[np.int64]:
    """Live requested bytes at every moment.

    Returns:
        ``int64[num_events + 1]``: before the first event, and after each.
    """
    change = np.zeros(timeline.num_events + 2, np.int64)
    np.add.at(change, timeline.birth + 1, timeline.requested_bytes)
    np.subtract.at(change, timeline.death + 1, timeline.requested_bytes)
    return np.cumsum(change[:-1])


def category_series(timeline: Timeline) -> NDArray[np.int64]:
    """Live requested bytes of every category at every moment.

    Returns:
        ``int64[num_categories, num_events + 1]``, in the order of ``CATEGORIES``; the columns sum to ``requested_at``.
    """
    return grouped_series(timeline, timeline.category, len(CATEGORIES))


def grouped_series(timeline: Timeline, group: NDArray[np.integer], num_groups: int) -> NDArray[np.int64]:
    """Live requested bytes of groups of allocations at every moment; those of group -1 are left out.

    Returns:
        ``int64[num_groups, num_events + 1]``: before the first event, and after each.
    """
    width = timeline.num_events + 2
    chosen = np.flatnonzero(group >= 0)
    change = np.zeros(num_groups * width, np.int64)
    row, sizes = group[chosen].astype(np.int64) * width, timeline.requested_bytes[chosen]
    np.add.at(change, row + timeline.birth[chosen] + 1, sizes)
    np.subtract.at(change, row + timeline.death[chosen] + 1, sizes)
    return np.cumsum(change.reshape(num_groups, width)[:, :-1], axis=1)


def peak_event(timeline: Timeline) -> int:
    """The first moment at which the live requested bytes are highest; ``-1`` is before the first event."""
    return int(np.argmax(requested_at(timeline))) - 1


def born_at(timeline: Timeline, event: int, among: NDArray[np.intp] | None = None) -> int | None:
    """Index of the allocation made at an event, the largest if there are several; ``None`` if there is none."""
    if event < 0:
        return None
    asked = np.arange(timeline.num_allocations) if among is None else among
    born = asked[timeline.birth[asked] == event]
    return int(born[np.argmax(timeline.requested_bytes[born])]) if len(born) else None


def highest_step(steps: Iterable[TracedStep], device: str | None = None) -> TracedStep | None:
    """The step with the highest peak of requested bytes, the first of equals; ``None`` if there is none.

    Args:
        device: If any step is headed by this device, only those are considered.
    """
    steps = list(steps)
    mine = [step for step in steps if step.timeline.device == device]
    return max(mine or steps, key=lambda step: int(requested_at(step.timeline).max()), default=None)


def traced_peak(step: TracedStep) -> TracedPeak:
    """The moment of a step's peak: when it occurred, and what was allocated then."""
    timeline = step.timeline
    event = peak_event(timeline)
    born, doing = born_at(timeline, event), _doing_at(timeline, event)
    # The input pipeline fetches a later batch during the step; its allocations do not show what the step was doing.
    is_beside = born is not None and doing is not None and timeline.phase[born] == _INPUT
    index = doing if is_beside else born
    if born is not None and timeline.is_of(AUTOTUNING)[born]:
        doing = born  # a trial of algorithms: an earlier pass's allocation does not show what was going on
    return TracedPeak(
        step=step.step,
        stage=step.stage,
        epoch=step.epoch,
        mode=step.mode,
        device=timeline.device,
        phase="between" if born is None else PHASES[timeline.phase[born if doing is None else doing]],
        op=None if index is None else timeline.ops[timeline.op[index]] or None,
        owner=None if index is None else timeline.owners[timeline.owner[index]],
        allocated_bytes=None if index is None else int(timeline.requested_bytes[index]),
        requested_bytes=int(requested_at(timeline)[event + 1]),
        in_use_bytes=timeline.in_use_before_bytes if event < 0 else int(timeline.in_use_bytes[event]),
        prefetched_bytes=int(timeline.requested_bytes[born]) if is_beside else 0,
        measured_in=step.measured_in,
        after=step.after,
    )


def by_category(timeline: Timeline, event: int) -> dict[str, int]:
    """Live requested bytes of every category at a moment; they sum to ``requested_at``."""
    alive = _alive(timeline, event)
    sizes = np.zeros(len(CATEGORIES), np.int64)
    np.add.at(sizes, timeline.category[alive], timeline.requested_bytes[alive])
    return dict(zip(CATEGORIES, sizes.tolist(), strict=True))


def by_layer(timeline: Timeline, event: int) -> tuple[LayerMemory, ...]:
    """The live set of a moment by owner.

    Returns:
        A row for each owner that holds anything, exclusive of sub-layers, the largest first. Every live byte is in
        exactly one column of one row; ``total_bytes`` is the row's sum.
    """
    alive = _alive(timeline, event)
    sizes = np.zeros((len(timeline.owners), len(CATEGORIES)), np.int64)
    np.add.at(sizes, (timeline.owner[alive], timeline.category[alive]), timeline.requested_bytes[alive])
    totals = sizes.sum(axis=1)
    ranked = np.argsort(-totals, kind="stable")
    return tuple(
        LayerMemory(
            timeline.owners[index],
            timeline.classes[index],
            total_bytes=int(totals[index]),
            **{f"{name}_bytes": size for name, size in zip(CATEGORIES, sizes[index].tolist(), strict=True)},
        )
        for index in ranked.tolist()
        if totals[index]
    )


def coverage(timeline: Timeline, event: int) -> float | None:
    """Share of the live requested bytes with a known owner and category; ``None`` if nothing is alive."""
    alive = _alive(timeline, event)
    known = ~timeline.is_of(UNATTRIBUTED)[alive] & (timeline.category[alive] != CATEGORIES.index(UNATTRIBUTED))
    sizes = timeline.requested_bytes[alive]
    total = int(sizes.sum())
    return int(sizes[known].sum()) / total if total else None


def _doing_at(timeline: Timeline, event: int) -> int | None:
    """Index of the last allocation by the step's own passes up to an event; ``None`` if there is none yet."""
    own = np.flatnonzero((timeline.birth >= 0) & (timeline.birth <= event) & np.isin(timeline.phase, _PASSES))
    return born_at(timeline, int(timeline.birth[own].max()), own) if len(own) else None


def _alive(timeline: Timeline, event: int) -> NDArray[np.intp]:
    """Indices of the allocations alive at a moment."""
    return np.flatnonzero((timeline.birth <= event) & (timeline.death > event))
