"""Where the run's peak was and what explains it, as worded in a report's first lines."""

from __future__ import annotations

import numpy as np

from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.peak_place import during, is_between, is_shown, is_untraced, is_very_peak, traced_words
from kerasmemwatch.analysis.steps.shown_step import HIGHER, ROUNDED_BYTES
from kerasmemwatch.records.owners import AUTOTUNING
from kerasmemwatch.units import format_bytes

__all__ = ["peak_place", "peak_story", "steady_bytes"]

_CALLBACK = "callback "  # the prefix of callbacks' owners
# A smaller share of the peak does not explain it.
_LEAST_SHARE = 0.05


def peak_place(report: Findings, *, brief: bool = False) -> str:
    """Where the run's peak was: ``"GPU:0, step 1 (train, epoch 1)"``, or ``"GPU:0 at step 1, epoch 1"`` if brief."""
    peak, traced = report.peak, report.traced
    device = peak.device or "device"
    if traced is not None and traced.after is not None and is_very_peak(report):
        after = traced.after
        place = f"between step {after:,} and {after + 1:,}" if after else "before step 1"
        device += "" if brief else ","
    else:
        place = f"{'at ' if brief else ''}step {peak.step:,}" if peak.step is not None else ""
        device += "" if brief or not place else ","
    epoch = "" if peak.epoch is None else f"epoch {peak.epoch + 1}"
    if brief:
        found = f"{device} {place}".rstrip() + (f", {epoch}" if epoch else "")
        return found + during(report)
    found = f"{device} {place} ({peak.stage}{', ' if epoch else ''}{epoch})"
    if is_between(report):
        return found if is_very_peak(report) else f"{found}, between two batches"
    return found if peak.ended else f"{found}, which did not end"


def peak_story(report: Findings) -> str:
    """Suffix for the place of the run's peak: what explains it; ``""`` if it is an ordinary step's.

    ``": 62.8 MiB of it autotuning workspace; a steady step peaks at 21.9 MiB"``
    """
    told = ", not traced" if is_untraced(report) else ""
    if is_very_peak(report):
        told = f": {words}" if (words := _mostly(report)) else ""
    elif report.traced is not None and report.traced.after is not None and not told and is_shown(report):
        told = f", as high as {traced_words(report)}" + (f": {words}" if (words := _mostly(report)) else "")
    steady, highest = steady_bytes(report), report.peak.bytes
    if steady is None or highest is None or highest <= steady * (1 + HIGHER) + ROUNDED_BYTES:
        return told
    return f"{told}; a steady step peaks at {format_bytes(steady)}"


def steady_bytes(report: Findings) -> float | None:
    """A usual step's peak on the peak's device: the median without each stage's first step; ``None`` if unknown."""
    configuration, samples = report.run.configuration, report.samples
    within = samples.get("device_peak_bytes")
    names = [device.name for device in report.run.devices]
    has_windows = configuration.get("reset_peak", True) and configuration.get("sample_every", 1) == 1
    if within is None or report.peak.device not in names or not has_windows:
        return None
    stage = "train" if "train" in samples["stage"] else report.peak.stage
    ended = samples["ended"] != 0 if "ended" in samples else np.ones(samples.num_samples, bool)
    rows = np.flatnonzero((samples["stage"] == stage) & ended)[1:]
    values = within[rows, names.index(report.peak.device)].astype(float)
    values = values[~np.isnan(values) & (samples["step"][rows] != report.peak.step)]
    return float(np.median(values)) if len(values) else None


def _mostly(report: Findings) -> str:
    """The part of the run's peak that belongs to no layer, if it is large."""
    for row in report.peak.by_layer:
        size = row.total_bytes or 0
        is_named = not row.class_name and (row.path == AUTOTUNING or row.path.startswith(_CALLBACK))
        if is_named and size >= _LEAST_SHARE * (report.peak.requested_bytes or 0):
            workspace = " workspace" if row.path == AUTOTUNING else ""
            return f"{format_bytes(size)} of it {row.path}{workspace}"
    return ""
