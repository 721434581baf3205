"""Values recorded so far, and an epoch's figures from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kerasmemwatch.probes.base import UNKNOWN
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.records.timeline import TracedStep

__all__ = ["Snapshot", "epoch_bytes"]


@dataclass(frozen=True)
class Snapshot:
    """Everything recorded so far, as values."""

    run: RunInfo
    samples: Samples
    layers: tuple[LayerMemory, ...]
    steps: tuple[TracedStep, ...] = ()


def epoch_bytes(highest: Mapping[str, float], newest: Mapping[str, float]) -> dict[str, float]:
    """Figures of an epoch; unknown ones are left out.

    Returns:
        The device's peak (within batches or between them) and the newest in-use bytes and RSS.
    """
    peak = np.fmax(highest.get("device_peak_bytes", UNKNOWN), highest.get("device_between_peak_bytes", UNKNOWN))
    found = {
        "device_peak_bytes": peak,
        "device_in_use_bytes": newest.get("device_in_use_bytes", UNKNOWN),
        "host_rss_bytes": newest.get("host_rss_bytes", UNKNOWN),
    }
    return {name: float(value) for name, value in found.items() if not np.isnan(value)}
