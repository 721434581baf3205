"""Where growth leads: for each trend of a report, the limit ahead and the step that will reach it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kerasmemwatch.analysis.caveats import in_part
from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.records.growth import Growth
from kerasmemwatch.units import format_bytes

__all__ = ["Outlook", "outlooks"]

_DEVICE, _HOST = "device_in_use_bytes", "host_rss_bytes"


@dataclass(frozen=True)
class Outlook:
    """A trend, and where it leads."""

    growth: Growth  # the trend
    name: str  # what grows, in words: `"CPU:0 in use"`, `"host RSS"`
    newest_bytes: int | None  # the newest value; `None` if unknown
    newest_step: int | None  # its step
    limit_bytes: int | None  # the limit; `None` if unknown
    limit_step: int | None  # the step that reaches the limit at this pace; `None` without known growth or a limit
    earliest_step: int | None  # the same at the upper end of the interval
    latest_step: int | None  # the same at the lower end

    @property
    def is_growing(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.growth.low > 0

    @property
    def words(self) -> str:
        """The outlook as a sentence."""
        low, high = (format_bytes(end, signed=True) for end in (self.growth.low, self.growth.high))
        samples = f"{self.growth.num_samples:,} samples"
        if not self.is_growing:
            return f"no steady growth of {self.name} (95 % interval {low} to {high} a step, {samples})"
        pace = format_bytes(self.growth.bytes_per_step, signed=True)
        grows = f"{self.name} grows by {pace} a step (95 % interval {low} to {high}, {samples})"
        if self.limit_step is None:
            return f"{grows}; its limit is not known" if self.limit_bytes is None else grows
        if self.newest_step is not None and self.limit_step <= self.newest_step:
            return f"{grows}; it is at its limit of {format_bytes(self.limit_bytes)}"
        when = f"step {self.limit_step:,} ({self.earliest_step:,} to {self.latest_step:,})"
        return f"{grows}; at this pace it meets its limit of {format_bytes(self.limit_bytes)} at {when}"


def outlooks(report: Findings) -> tuple[Outlook, ...]:
    """An outlook for each of ``report.growth``, in order."""
    return tuple(_outlook(report, growth) for growth in report.growth)


def _outlook(report: Findings, growth: Growth) -> Outlook:
    column, _, whose = growth.series.partition(" ")
    newest: tuple[float, int] | None = None
    limit: object = None
    if column == _DEVICE:
        names = [device.name for device in report.run.devices]
        if whose in names:
            limit = report.run.devices[names.index(whose)].limit_bytes
            newest = report.samples.newest(column, names.index(whose))
        name = f"{whose} in use{in_part(report.run, whose)}"
    elif column == _HOST:
        name = f"host RSS of {whose}" if whose else "host RSS"
        if not whose:  # samples of several workers have only the maximum, and each worker has its own limit
            limit, newest = report.run.host.get("limit_bytes"), report.samples.newest(column)
    else:
        name = growth.series
    known = int(limit) if isinstance(limit, (int, float)) and limit > 0 else None
    steps = [_meets(newest, known, pace) for pace in (growth.bytes_per_step, growth.high, growth.low)]
    if growth.low <= 0:
        steps = [None, None, None]
    size, step = newest or (None, None)
    return Outlook(growth, name, None if size is None else int(size), step, known, *steps)


def _meets(newest: tuple[float, int] | None, limit: int | None, pace: float) -> int | None:
    if newest is None or limit is None or not pace > 0:
        return None
    size, step = newest
    return step + max(0, math.ceil((limit - size) / pace))
