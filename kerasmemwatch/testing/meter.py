"""The figures that an assertion looks at: device bytes where they are exact, and RSS."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.probes.allocators import allocators
from kerasmemwatch.units import MIB

__all__ = ["Meter", "find_meters"]


# What Python, the C library and other threads take by the way stays below it.
_LEAST_RSS_BYTES = 2 * MIB


@dataclass(frozen=True)
class Meter:
    """Reads bytes in use."""

    read: Callable[[], int]
    words: str  # what they are, for a message
    least: int = 0  # a rise below this many bytes says nothing
    series: str = "host_rss_bytes"  # what they are, as ``Growth.series`` has it


def find_meters() -> list[Meter]:
    """Return a meter of all devices if each counts exactly, and one of the process."""
    import psutil

    process = psutil.Process()
    rss = Meter(lambda: int(process.memory_info().rss), "RSS of the process", _LEAST_RSS_BYTES)
    if "tensorflow" in sys.modules:
        try:
            found = allocators()
        except ProbeUnavailableError:
            found = []
        if found and all(one.info.counting == "exact" for one in found):
            reads = [one.read for one in found]
            names = " and ".join(one.info.name for one in found)
            words, series = f"in use on {names}, exact count", f"device_in_use_bytes {names}"
            return [Meter(lambda: sum(read()[0] for read in reads), words, series=series), rss]
    return [rss]
