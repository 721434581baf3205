"""Moments of a step to draw, with live bytes by group and the phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.records.timeline import PHASES, Timeline
from kerasmemwatch.reports.figures.thinning import drawn_points

__all__ = ["AXES", "moments_drawn", "phase_spans", "positions"]

AXES = ("event", "time")
_SHOWN_PHASES = ("forward", "backward", "update")
_PHASE_BUCKETS = 240
# Share of all weight that a change of phase must gain; a smaller one is an operation running in parallel.
_CHANGE = 0.02


@dataclass(frozen=True)
class PhaseSpan:
    """A stretch of a step in which most buffers were born in one phase."""

    phase: str  # `"forward"`, `"backward"` or `"update"`
    begin: int  # number of its first moment
    end: int  # number of the first moment after it


def positions(timeline: Timeline, x: str) -> NDArray[np.float64]:
    """Position of every moment on the x axis: its number, or milliseconds since the step began.

    Raises:
        InvalidArgumentError: If ``x`` is neither.
    """
    if x not in AXES:
        raise InvalidArgumentError(f"Expected x to be 'event' or 'time'. Received: x={x!r}.")
    if x == "event":
        return np.arange(timeline.num_events + 1, dtype=np.float64)
    return np.append(0.0, timeline.time_ns / 1e6)


def moments_drawn(
    total: NDArray[np.int64], at: NDArray[np.float64], window: tuple[float, float] | None, most: int
) -> NDArray[np.intp]:
    """Choose about ``most`` moments in the window, including the highest, and one beyond either end.

    Returns:
        Their indices, increasing.
    """
    if window is None:
        return drawn_points(total.astype(float), most)
    begin = max(int(np.searchsorted(at, min(window), "left")) - 1, 0)
    end = min(int(np.searchsorted(at, max(window), "right")) + 1, len(total))
    begin = min(begin, end - 1)
    inside: NDArray[np.intp] = begin + drawn_points(total[begin:end].astype(float), most)
    return inside


def phase_spans(timeline: Timeline) -> list[PhaseSpan]:
    """When a step's forward pass, backward pass and update run, by the phase of new buffers.

    Operations of several phases run at once, such as the update of one layer and the backward pass of another. A
    stretch has the phase of most buffers born in it, and short stretches are left out.
    """
    codes = [PHASES.index(phase) for phase in _SHOWN_PHASES]
    is_born = (timeline.birth >= 0) & (timeline.requested_bytes > 0)
    born = np.flatnonzero(is_born & np.isin(timeline.phase, codes))
    if not len(born):
        return []
    width = -(-timeline.num_events // _PHASE_BUCKETS)
    weights = np.zeros((-(-timeline.num_events // width), len(codes)))
    # Square roots, so that neither one large buffer nor many tiny ones decide alone.
    roots = np.sqrt(timeline.requested_bytes[born].astype(float))
    np.add.at(weights, (timeline.birth[born] // width, np.searchsorted(codes, timeline.phase[born])), roots)
    phase = _smoothed(weights, _CHANGE * float(weights.sum()))
    changes = [0, *(np.flatnonzero(np.diff(phase)) + 1).tolist(), len(phase)]
    # A phase begins with its first buffer and lasts until the next phase begins.
    begins = [begin + int(np.flatnonzero(weights[begin:, phase[begin]])[0]) for begin in changes[:-1]]
    ends = [*begins[1:], len(phase)]
    spans = [
        PhaseSpan(_SHOWN_PHASES[phase[change]], begin * width + 1, min(end * width, timeline.num_events) + 1)
        for change, begin, end in zip(changes[:-1], begins, ends, strict=True)
    ]
    return spans


def _smoothed(weights: NDArray[np.float64], change: float) -> NDArray[np.intp]:
    """The phase of each bucket: the sequence with most weight minus a cost per change (Viterbi's algorithm)."""
    best, came_from = weights[0].copy(), np.zeros(weights.shape, np.intp)
    for bucket in range(1, len(weights)):
        other = int(best.argmax())
        changed = best[other] - change > best
        came_from[bucket] = np.where(changed, other, np.arange(len(best)))
        best = np.where(changed, best[other] - change, best) + weights[bucket]
    phase = np.zeros(len(weights), np.intp)
    phase[-1] = best.argmax()
    for bucket in range(len(weights) - 1, 0, -1):
        phase[bucket - 1] = came_from[bucket, phase[bucket]]
    return phase
