"""Growth of memory over a run, and its causes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Growth", "LeakFinding"]


@dataclass(frozen=True)
class Growth:
    """A trend at step end, with its 95 % interval.

    Attributes:
        series: Name of the column, with the device where there are several.
        bytes_per_step: Median slope.
        low: Lower end of the interval.
        high: Upper end.
        num_samples: Number of samples behind the estimate.
    """

    series: str
    bytes_per_step: float
    low: float
    high: float
    num_samples: int


@dataclass(frozen=True)
class LeakFinding:
    """One cause of growth: what grows, the evidence, its rate, first step, location and fix."""

    cause: str
    evidence: str
    bytes_per_step: float | None
    since_step: int | None
    confidence: float | None
    where: str
    fix: str
