"""Arithmetic on a traced step that uses none of the package's: what its own functions say is compared with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.owners import NAMED_OWNERS
from kerasmemwatch.records.timeline import PHASES, TracedStep

__all__ = ["StepCheck", "check_step"]

_MOST_NAMED = 12
# Of the peak's bytes: below it, one scalar of a loss would be a large share of the activations.
_TRACE = 0.01


@dataclass(frozen=True)
class StepCheck:
    """What a traced step comes to.

    Attributes:
        step: Its number.
        events: Births and deaths.
        peak_bytes: Most requested bytes alive at once.
        covered: Share of the peak's bytes with a layer or a named owner.
        activations_in_layers: Share of activation bytes that have a layer: when there are most of them, or at the
            peak if it is less there, where they are more than a trace. ``None`` if there are none at all.
        activations_or_loss: The same share with those that the loss itself keeps for its gradient.
        weights_bytes: Weights alive before the first event, after the last, at the peak, and at most.
        optimizer_bytes: Optimizer variables likewise.
        wrong_totals: Events after which the sum of reserved bytes is not what the allocator says.
        by_category: The peak's requested bytes.
        slack_bytes: In-use bytes less requested bytes, at their least.
        unattributed: The largest at the peak without an owner or category: operation, owner, phase and category, bytes.
    """

    step: int
    events: int
    peak_bytes: int
    covered: float
    activations_in_layers: float | None
    activations_or_loss: float | None
    weights_bytes: tuple[int, ...]
    optimizer_bytes: tuple[int, ...]
    wrong_totals: int
    by_category: dict[str, int]
    slack_bytes: int
    unattributed: list[tuple[str, str, str, int]]


def check_step(step: TracedStep) -> StepCheck:
    """Count a step's bytes, by sorting and searching."""
    timeline = step.timeline
    births, deaths = timeline.birth, timeline.death
    live = _sum_until(births, timeline.requested_bytes, timeline.num_events)
    live -= _sum_until(deaths, timeline.requested_bytes, timeline.num_events)
    peak = int(live.argmax()) - 1
    alive = np.flatnonzero((births <= peak) & (deaths > peak))
    sizes, category = timeline.requested_bytes[alive], timeline.category[alive]
    total = int(sizes.sum())
    owners = zip(timeline.owners, timeline.classes, strict=True)
    named = np.array([bool(class_name) or name in NAMED_OWNERS for name, class_name in owners], bool)[
        timeline.owner[alive]
    ]
    named &= category != CATEGORIES.index("unattributed")
    in_use = np.append(timeline.in_use_before_bytes, timeline.in_use_bytes)
    reserved = _sum_until(births, timeline.reserved_bytes, timeline.num_events)
    reserved -= _sum_until(deaths, timeline.reserved_bytes, timeline.num_events)
    in_layers = np.array([bool(name) for name in timeline.classes], bool)[timeline.owner]
    in_loss = np.array([name == "loss" for name in timeline.owners], bool)[timeline.owner]
    return StepCheck(
        step=step.step,
        events=timeline.num_events,
        peak_bytes=int(live.max()),
        covered=int(sizes[named].sum()) / total if total else 0.0,
        activations_in_layers=_share_of_activations(step, peak, total, in_layers),
        activations_or_loss=_share_of_activations(step, peak, total, in_layers | in_loss),
        weights_bytes=_over_time(step, "weights", peak),
        optimizer_bytes=_over_time(step, "optimizer", peak),
        wrong_totals=int(np.count_nonzero(np.diff(in_use) != np.diff(reserved))),
        by_category={name: int(sizes[category == index].sum()) for index, name in enumerate(CATEGORIES)},
        slack_bytes=int((in_use - live).min()),
        unattributed=_largest(step, alive[~named]),
    )


def _share_of_activations(step: TracedStep, peak: int, peak_bytes: int, chosen: NDArray[np.bool_]) -> float | None:
    timeline = step.timeline
    kept = timeline.category == CATEGORIES.index("activations")
    series = []
    for rows in (kept, kept & chosen):
        sizes = np.where(rows, timeline.requested_bytes, 0)
        live = _sum_until(timeline.birth, sizes, timeline.num_events)
        series.append(live - _sum_until(timeline.death, sizes, timeline.num_events))
    all_bytes, inside_bytes = series
    moments = [int(all_bytes.argmax())]
    if all_bytes[peak + 1] > _TRACE * peak_bytes:
        moments.append(peak + 1)
    return min(int(inside_bytes[moment]) / int(all_bytes[moment]) for moment in moments) if all_bytes.any() else None


def _sum_until(events: NDArray[np.int64], sizes: NDArray[np.int64], num_events: int) -> NDArray[np.int64]:
    """For each moment, from before the first event to after the last, the sizes of what happened until then."""
    order = np.argsort(events, kind="stable")
    sums = np.append(0, np.cumsum(sizes[order]))
    return sums[np.searchsorted(events[order], np.arange(-1, num_events), side="right")]


def _over_time(step: TracedStep, category: str, peak: int) -> tuple[int, ...]:
    timeline = step.timeline
    sizes = np.where(timeline.category == CATEGORIES.index(category), timeline.requested_bytes, 0)
    live = _sum_until(timeline.birth, sizes, timeline.num_events)
    live -= _sum_until(timeline.death, sizes, timeline.num_events)
    return int(live[0]), int(live[-1]), int(live[peak + 1]), int(live.max())


def _largest(step: TracedStep, found: NDArray[np.intp]) -> list[tuple[str, str, str, int]]:
    timeline = step.timeline
    ranked = found[np.argsort(-timeline.requested_bytes[found], kind="stable")][:_MOST_NAMED].tolist()
    return [
        (
            timeline.ops[timeline.op[index]],
            timeline.owners[timeline.owner[index]],
            f"{PHASES[timeline.phase[index]]}, {CATEGORIES[timeline.category[index]]}"
            + (", baseline" if timeline.birth[index] < 0 else ""),
            int(timeline.requested_bytes[index]),
        )
        for index in ranked
    ]
