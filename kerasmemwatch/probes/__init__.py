"""Probes: one source of measurements a module, an explicit tuple, no registry.

A probe never sees the recorder, and never gives 0 for what it can't read.
"""

from __future__ import annotations

from kerasmemwatch.probes.base import Probe

__all__ = ["default_probes"]


def default_probes(backend: str, *, reset_peak: bool = True, whole_window: bool = False) -> tuple[Probe, ...]:
    """What is read by default.

    Args:
        backend: Keras' backend. On others than TensorFlow, what TensorFlow's allocators hold says nothing about
            the model.
        reset_peak: See ``TensorFlowProbe``.
        whole_window: See ``TensorFlowProbe``.
    """
    from kerasmemwatch.probes.host import HostProbe
    from kerasmemwatch.probes.nvml import NvmlProbe
    from kerasmemwatch.probes.tensorflow import TensorFlowProbe

    device = TensorFlowProbe(reset_peak=reset_peak, whole_window=whole_window, backend=backend)
    return (device, HostProbe(), NvmlProbe())
