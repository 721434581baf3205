"""What is uncertain about a traced step, in words: allocations that are not known, and functions without hooks."""

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
_PARTIAL = f"Of the traced step only allocations of {_LEAST} or more are known."
_NO_OWNERS = (
    "The step's function was made before the watch came, so its operations are told apart by their names only: "
    "layers of the same name may be mixed up, and gradients are known by their sizes. Give the watch to the first fit."
)
_HOOKS_ELSEWHERE = (
    "One fit of a process is traced at a time, and another was when this step's function was made. So its operations "
    "are told apart by their names only: layers of the same name may be mixed up, and gradients are known by sizes."
)
_HOOKS_SPARED = (
    "This step's function was made without hooks, as fits that seemed alike had been traced. So its operations are "
    "told apart by their names only: layers of the same name may be mixed up, and gradients are known by their sizes. "
    "To have a fit's own steps traced, name them: trace=[2, 10]."
)


def coverage_notes(events: Iterable[AllocationEvents]) -> Iterator[str]:
    """Name the devices of which only large allocations are known.

    Args:
        events: The step's allocations; those of its main device first.
    """
    main, *others = events
    if is_partial(main):
        yield f"{_PARTIAL} {remedy()}"
    for each in others:
        if is_partial(each):
            yield f"On {each.device} only allocations of {_LEAST} or more are known of the traced step."


def hookless_note(captured: CapturedStep) -> str:
    """Say why the step's functions were made without hooks."""
    return _HOOKS_ELSEWHERE if captured.missed else _HOOKS_SPARED if captured.spared else _NO_OWNERS
