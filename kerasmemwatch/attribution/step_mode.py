"""Mode of a step that is not compiled: eager, or in functions that eager code called."""

from __future__ import annotations

from bisect import bisect_right

from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.owners.allocation_owners import within_calls

__all__ = ["mode_of_calls"]


def mode_of_calls(events: AllocationEvents, captured: CapturedStep) -> str:
    """Return ``"graph"`` if most bytes were allocated within functions that eager code called, else ``"eager"``."""
    times = [time_ns for time_ns, _ in captured.log]
    # A function that eager code calls within a layer is one of the layer's operations.
    tops = (captured.log[max(0, bisect_right(times, begun) - 1)][1] for begun, _ in captured.calls)
    calls = [call for call, top in zip(captured.calls, tops, strict=True) if not top.class_name]
    sizes = events.requested_bytes[events.births]
    called = within_calls(calls, events.time_ns[events.births])
    return "graph" if int(sizes[called].sum()) * 2 > int(sizes.sum()) else "eager"
