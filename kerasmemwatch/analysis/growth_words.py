"""Which verdict on growth comes first, and its few words for tiles and labels."""

from __future__ import annotations

from collections.abc import Iterable

from kerasmemwatch.records.growth import Growth, Verdict
from kerasmemwatch.units import a_unit, format_bytes

__all__ = ["brief", "by_weight", "pace", "with_calls"]


# What is not known yet comes before what is known not to grow.
_ORDER: tuple[Verdict, ...] = (
    "growing",
    "waits for the collector",
    "filling",
    "settling",
    "too short to tell",
    "steady",
)
# What RSS holds beside a device's bytes: pages that are not full, and the Python objects of its tensors.
_HOST_OVERHEAD = 1.25


def by_weight(found: Iterable[Growth]) -> tuple[Growth, ...]:
    """The verdicts in the order in which they matter: what grows first, then by the share of the limit it takes.

    All series have the same steps left, so the share that each step takes decides. Where no limit is known, the
    largest of the others stands for it. RSS that may grow by hardly more than a CPU device only shows the device's
    growth less exactly, and comes right after it.
    """
    found = tuple(found)
    largest = max((growth.limit for growth in found if growth.limit), default=1)

    def weight(growth: Growth) -> tuple[int, float, bool]:
        device = next((each for each in found if _is_shown_by(each, growth)), growth)
        share = (device.bytes_per_step or 0.0) / (device.limit or largest)
        return _ORDER.index(growth.verdict), -share, device is not growth

    return tuple(sorted(found, key=weight))


def _is_shown_by(device: Growth, host: Growth) -> bool:
    """Whether a CPU device's growth explains that of the host, whose memory it is."""
    is_pair = device.series.startswith("device_") and "CPU:" in device.series and host.series.startswith("host_")
    if not is_pair or not device.is_growing or not host.is_growing or device.high is None or host.low is None:
        return False
    return host.low <= _HOST_OVERHEAD * device.high


def with_calls(own: Iterable[Growth], of_calls: Iterable[Growth]) -> tuple[Growth, ...]:
    """The verdicts on a run's rows, or what grows from call to call of its process if the rows show no growth."""
    more = {growth.series: growth for growth in of_calls}
    return tuple(each if each.verdict in _ORDER[:2] else more.get(each.series, each) for each in own)


def pace(growth: Growth) -> str:
    """The rate if it grows, else the verdict."""
    if not growth.is_growing or growth.rate is None:
        return growth.verdict
    return f"{format_bytes(growth.rate, signed=True)} {a_unit(growth.unit)}"


def brief(growth: Growth) -> str:
    """What a tile says beneath ``pace``: since when it grows, and when it meets its limit; else the explanation."""
    if growth.is_growing:
        if growth.since_step is None:
            return f"from one call of this process to the next, {growth.num_samples:,} of them"
        return f"since step {growth.since_step:,}{_limit(growth)}"
    verdict, colon, rest = growth.explanation.partition(": ")
    return rest if colon and verdict.lower() == growth.verdict else growth.explanation


def _limit(growth: Growth) -> str:
    if growth.limit is None or growth.met_at is None:
        return ""
    return f"; at this pace it meets its limit of {format_bytes(growth.limit)} at step {growth.met_at:,}"
