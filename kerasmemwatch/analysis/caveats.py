"""Notes shown next to the figures: what was not measured, or was measured in an unusual way."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.leak_words import leak_title
from kerasmemwatch.analysis.traced_peaks_apart import apart
from kerasmemwatch.records.run import PLANNED, SILENT_ALLOCATOR, DeviceInfo, RunInfo
from kerasmemwatch.units import format_bytes

__all__ = [
    "OLDEST",
    "alerts",
    "all_notes",
    "at_least",
    "counting",
    "died",
    "in_part",
    "is_planned",
    "measured",
    "untraced",
]

# As in setup.cfg. What TensorFlow reports about its allocations changes between versions.
OLDEST = {"tensorflow": "2.20", "keras": "3.12"}
# Start of the TensorFlow probe's note when it can read no allocator.
_UNREAD = "Not measured (tensorflow)"


def alerts(report: Findings) -> tuple[str, ...]:
    """Warnings shown above all figures: why they show less than they seem to, and the remedy."""
    if not report.samples.num_samples:
        return ()
    devices: dict[str, list[str]] = {}
    for device in report.run.devices:
        if device.counting == "partial":
            devices.setdefault(device.remedy, []).append(device.name)
    unread = tuple(note for note in report.run.notes if note.startswith(_UNREAD))
    partial = (
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} counted in part"
        + (f": {remedy[0].lower()}{remedy[1:]}" if remedy else ".")
        for remedy, names in devices.items()
    )
    return (*unread, *partial)


def in_part(run: RunInfo, device: str | None) -> str:
    """Suffix for the label of a device's figure: ``" (partial)"`` if the count omits allocations, else ``""``."""
    return " (partial)" if any(one.name == device and one.counting == "partial" for one in run.devices) else ""


def at_least(run: RunInfo, device: str | None, size: float | None) -> str:
    """A device's bytes in words: ``"at least 1.0 MiB"`` if the count is partial; a partial count of 0 says nothing."""
    if not in_part(run, device):
        return format_bytes(size)
    return f"at least {format_bytes(size)}" if size else format_bytes(None)


def all_notes(report: Findings) -> tuple[str, ...]:
    """All notes of a report: causes of growth, omissions, what could not be measured, what went wrong."""
    return (*(leak_title(leak) for leak in report.leaks), *measured(report), *report.notes)


def measured(report: Findings) -> Iterator[str]:
    """Notes on what a run's configuration omits or changes."""
    if not report.samples.num_samples:
        return
    yield from died(report)
    for device in report.run.devices:
        if device.counting == "partial":
            yield f"{device.name}: {counting(device)}."
    if report.run.configuration.get("reset_peak") is False:
        yield "Peaks are run maxima: reset_peak=False leaves the allocator's own peak alone."
    if report.run.configuration.get("sample_every", 1) != 1:
        yield f"A row covers {report.run.configuration['sample_every']} steps; peaks are of all of them (sample_every)."
    if differs := apart(report):
        yield differs
    if report.traced is None and not _silent(report):
        yield untraced(report)
    for name, oldest in OLDEST.items():
        version = report.run.versions.get(name, "")
        if version and _numbers(version) < _numbers(oldest):
            yield (
                f"{name} {version} is older than {oldest}, the oldest that was tested: layers and categories may be "
                f"wrong or missing. Update it: pip install --upgrade {name}"
            )


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor version; a part that is not a number counts as newest."""
    return tuple(int(part) if part.isdecimal() else sys.maxsize for part in version.split(".")[:2])


def died(report: Findings) -> Iterator[str]:
    """Notes on steps that did not end."""
    samples = report.samples
    rows = np.flatnonzero(samples["ended"] == 0) if "ended" in samples else np.empty(0, int)
    # Those that ran out of memory are told of above all figures.
    rows = rows[~np.isin(samples["step"][rows], [death.step for death in report.run.deaths if not death.run])]
    if not len(rows):
        return
    last = rows[-1]
    is_last = ", the run's last," if last == samples.num_samples - 1 else ""
    others = f" Neither did {len(rows) - 1} before it." if len(rows) > 1 else ""
    yield (
        f"Step {int(samples['step'][last])} ({samples['stage'][last]}){is_last} did not end: an exception left it. "
        f"Its peak was read then; what held it was not traced.{others}"
    )


def counting(device: DeviceInfo) -> str:
    """What is counted on a device, in words."""
    if device.counting == "exact":
        return "exact count of every allocation"
    counted = f"partial: only allocations of {format_bytes(device.counted_from_bytes)} or more are counted"
    if device.covered_share is None:
        return counted
    return f"{counted}, {device.covered_share:.1%} of the model's variable bytes"


def untraced(report: Findings) -> str:
    """Why there are no figures by layer and category."""
    if silent := _silent(report):
        return silent
    trace = report.run.configuration.get("trace", "auto")
    what = "What layers hold at the peak is not known: "
    devices = report.run.devices
    if trace and any(note.startswith(_UNREAD) for note in report.run.notes):
        return what + "no allocator could be read; the notes say why."
    if trace and devices and all(device.counting == "partial" for device in devices):
        least = format_bytes(max(device.counted_from_bytes for device in devices))
        return what + f"allocations below {least} are not counted, and no traced step had a larger one."
    if trace == "auto" and not np.any(report.samples["ended"]):
        return what + "no step has completed, and only completed steps are traced."
    if trace == "auto":
        return what + "no step has been traced yet. Train a few steps more; if that does not help, see the notes."
    if not trace:
        return what + "tracing is off. Turn it on with MemoryWatch(trace='auto')."
    return what + f"none of the steps asked for has been traced yet (trace={trace!r}); the notes may say why."


def is_planned(report: Findings) -> bool:
    """Whether the step shown is XLA's plan rather than a measurement."""
    device = report.traced.device if report.traced else ""
    return any(PLANNED in note and note.startswith(f"{device}:") for note in report.notes)


def _silent(report: Findings) -> str:
    """The run's note about an allocator that does not report single allocations; ``""`` without one."""
    return next((note for note in report.run.notes if SILENT_ALLOCATOR in note), "")
