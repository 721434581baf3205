"""Probes, which measure memory and what holds it.

``counters``, ``heap``, ``host``, ``nvml`` and ``tensorflow`` have one each; the other modules support them.

A probe never sees the recorder, and never returns 0 for a value that it cannot read.
"""

from __future__ import annotations

from kerasmemwatch.probes.base import Probe

__all__ = ["default_probes"]


def default_probes(backend: str, *, reset_peak: bool = True, whole_window: bool = False) -> tuple[Probe, ...]:
    """Make the default probes."""
    from kerasmemwatch.probes.counters import CounterProbe
    from kerasmemwatch.probes.heap import HeapProbe
    from kerasmemwatch.probes.host import HostProbe
    from kerasmemwatch.probes.nvml import NvmlProbe
    from kerasmemwatch.probes.tensorflow import TensorFlowProbe

    device = TensorFlowProbe(reset_peak=reset_peak, whole_window=whole_window, backend=backend)
    return (device, HostProbe(), HeapProbe(), NvmlProbe(), CounterProbe())
