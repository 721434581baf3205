"""Notes on uncertainties of a traced step: unknown allocations, and functions without hooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.allocators_by_device import is_partial
from kerasmemwatch.exact_cpu import remedy
from kerasmemwatch.probes.allocators import ONEDNN_THRESHOLD_BYTES
from kerasmemwatch.units import format_bytes

__all__ = ["coverage_notes", "hookless_note"]

_LEAST = format_bytes(ONEDNN_THRESHOLD_BYTES)
_PARTIAL = f"In the traced step, only allocations of {_LEAST} or more are known."
_NO_OWNERS = (
    "The step's function was made before the watch was added, so its operations are identified by name only: layers "
    "of the same name may be confused, and gradients are identified by size. Pass the watch to the first fit."
)
_HOOKS_ELSEWHERE = (
    "One fit per process is traced at a time, and another was when this step's function was made. So its operations "
    "are identified by name only: layers of the same name may be confused, and gradients are identified by size."
)
_HOOKS_SPARED = (
    "This step's function was made without hooks, because similar fits had been traced. So its operations are "
    "identified by name only: layers of the same name may be confused, and gradients are identified by size. "
    "To trace this fit's own steps, name them: trace=[2, 10]."
)


def coverage_notes(events: Iterable[AllocationEvents]) -> Iterator[str]:
    """Yield a note for each device on which only large allocations are known.

    Args:
        events: The step's allocations, the main device's first.
    """
    main, *others = events
    if is_partial(main):
        yield f"{_PARTIAL} {remedy()}"
    for each in others:
        if is_partial(each):
            yield f"On {each.device}, only allocations of {_LEAST} or more are known in the traced step."


def hookless_note(captured: CapturedStep) -> str:
    """Return why the step's functions were made without hooks."""
    return _HOOKS_ELSEWHERE if captured.missed else _HOOKS_SPARED if captured.spared else _NO_OWNERS
