"""A note on traced steps whose peak differs from the untraced steps around them. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.units import format_bytes

__all__ = ["apart"]

# Number of untraced steps compared on each side; with fewer than _LEAST in all, there is no note.
_AROUND, _LEAST = 4, 3
# How far a peak may lie outside their range; the schedule traces another step at the same share.
_APART = 0.10


def apart(report: Findings) -> str:
    """Report, with both figures, a traced step whose peak differs from its neighbours'; ``""`` if none does.

    A profiler session may change a step: XLA runs no command buffers during one. A batch of another shape may too.
    The first step of its kind is left out, because it makes functions, variables and programs.
    """
    configuration = report.run.configuration
    # With wider windows a row's peak may be another step's.
    if configuration.get("reset_peak", True) is False or configuration.get("sample_every", 1) != 1:
        return ""
    return next((words for step in report.steps if (words := _apart(report, step))), "")


def _apart(report: Findings, step: TracedStep) -> str:
    samples = report.samples
    alike = np.flatnonzero((samples["stage"] == step.stage) & (samples["ended"] != 0))[1:]
    peaks = _peaks(report, step.timeline.device)[alike]
    here = np.flatnonzero(samples["step"][alike] == step.step)
    if step.measured_in is not None or step.after is not None or not len(here) or np.isnan(peaks[here[0]]):
        return ""
    is_traced = np.isin(samples["step"][alike], report.traced_steps)
    untraced = np.flatnonzero(~is_traced & ~np.isnan(peaks))
    around = np.concatenate([untraced[untraced < here[0]][-_AROUND:], untraced[untraced > here[0]][:_AROUND]])
    if len(around) < _LEAST:
        return ""
    peak, low, high = float(peaks[here[0]]), float(peaks[around].min()), float(peaks[around].max())
    if low * (1 - _APART) <= peak <= high * (1 + _APART):
        return ""
    usual = " to ".join(dict.fromkeys((format_bytes(low), format_bytes(high))))
    return (
        f"Traced step {step.step:,} peaked at {format_bytes(peak)}, the untraced steps around it at {usual}: tracing "
        "may have changed it, or its batch differed."
    )


def _peaks(report: Findings, name: str) -> NDArray[np.float64]:
    """A device's peak within each step; NaN if it is unknown or only partially counted."""
    samples = report.samples
    peaks = samples.get("device_peak_bytes")
    for number, device in enumerate(report.run.devices):
        if peaks is not None and device.name == name and device.counting == "exact" and number < peaks.shape[1]:
            found: NDArray[np.float64] = peaks[:, number].astype(float)
            return found
    return np.full(samples.num_samples, np.nan)
