"""A request's choice of device and traced step; a choice that the recording lacks is ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kerasmemwatch.analysis.peak_place import step_shown
from kerasmemwatch.analysis.steps.live_set import highest_step, requested_at
from kerasmemwatch.analysis.steps.step_devices import device_names, headed
from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.recording import Recording
from kerasmemwatch.records.peaks import TracedPeak
from kerasmemwatch.records.timeline import Timeline, TracedStep
from kerasmemwatch.reports.report import Report
from kerasmemwatch.units import format_bytes

__all__ = ["chosen_report", "chosen_step", "device_choice", "number"]


def chosen_report(recording: Recording, asked: Mapping[str, str]) -> Report:
    """Return the report, on the requested device.

    Args:
        recording: The recording, which may lack the device if another run has it.
    """
    report, device = recording.report, asked.get("device", "")
    return report.on_device(device) if device in report.devices else report


def chosen_step(recording: Recording, asked: Mapping[str, str]) -> TracedStep | None:
    """Return the requested traced step or gap, on the requested device; by default, the report's."""
    wanted, device = number(asked, "step", 0.0), asked.get("device", "")
    steps = [one for one in recording.report.steps if wanted == one.number]
    if not steps:
        return step_shown(chosen_report(recording, asked))
    # Several workers may have traced the same step.
    return highest_step(headed(steps, device), device)


def device_choice(steps: Sequence[TracedStep], shown: Timeline | TracedPeak | None) -> Iterator[dict[str, Any]]:
    """Yield a choice of device, if several had allocations in some steps: each with its highest live bytes."""
    names = device_names(steps)
    if len(names) < 2 or shown is None:
        return
    most = dict.fromkeys(names, 0)
    for step in steps:
        for name, timeline in step.timelines.items():
            most[name] = max(most[name], int(requested_at(timeline).max()))
    options = [[name, f"{name}: {format_bytes(size)} at most"] for name, size in sorted(most.items(), key=_largest)]
    yield {"kind": "choice", "name": "device", "title": "Device", "value": shown.device, "options": options}


def number(asked: Mapping[str, str], name: str, default: float) -> float:
    """Parse a parameter as a number. Raises ``InvalidArgumentError`` if it is not a number."""
    text = asked.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = float("nan")
    if value != value or abs(value) == float("inf"):
        raise InvalidArgumentError(f"Expected {name} to be a number. Received: {name}={text!r}.")
    return value


def _largest(device: tuple[str, int]) -> tuple[int, str]:
    return -device[1], device[0]
