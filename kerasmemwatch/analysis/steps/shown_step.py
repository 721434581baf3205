"""Which traced step or gap explains the run's peak; tables and figures show it unless another is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from kerasmemwatch.analysis.steps.live_set import highest_step
from kerasmemwatch.records.peaks import Peak
from kerasmemwatch.records.timeline import TracedStep

__all__ = ["HIGHER", "ROUNDED_BYTES", "held_at_most", "is_explained", "is_very_moment", "is_well_above", "shown_step"]

# A peak this much above another is not explained by it.
HIGHER = 0.10
# Bytes that the allocator adds by rounding vary between steps, by up to this much in a small model.
ROUNDED_BYTES = 2**16


def shown_step(peak: Peak, steps: Sequence[TracedStep]) -> TracedStep | None:
    """The traced step or gap in which the run's peak was; else one like it; else the one with the highest peak."""
    # Several workers may have traced the same step.
    very, alike = ([step for step in steps if told(peak, step)] for told in (is_very_moment, is_explained))
    return highest_step(very or alike or steps)


def is_very_moment(peak: Peak, step: TracedStep) -> bool:
    """Whether the run's peak was within a traced step or gap."""
    if step.measured_in is not None or step.step != peak.step or peak.device not in (None, step.timeline.device):
        return False
    if step.after is None:
        return peak.phase != "between"
    # No sample after the last step covers that gap.
    return peak.phase == "between" and step.after < step.step


def is_explained(peak: Peak, step: TracedStep) -> bool:
    """Whether a traced step or gap is as high as the run's peak and of the same kind."""
    is_gap = step.after is not None
    if not peak.ended or is_gap != (peak.phase == "between") or (not is_gap and step.stage != peak.stage):
        return False
    return peak.bytes is not None and not is_well_above(peak, step)


def is_well_above(peak: Peak, step: TracedStep) -> bool:
    """Whether a peak is too far above a traced step to be explained by it."""
    return (peak.bytes or 0) > held_at_most(step) * (1 + HIGHER) + ROUNDED_BYTES


def held_at_most(step: TracedStep) -> int:
    """The most bytes that the allocator had handed out at once in a traced step."""
    return max(step.timeline.in_use_before_bytes, int(step.timeline.in_use_bytes.max(initial=0)))
