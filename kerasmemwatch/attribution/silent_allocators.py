"""Allocators of a GPU that report their totals but no single allocations, such as ``cuda_malloc_async``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable

from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.errors import MemWatchError
from kerasmemwatch.exact_cpu import remedy
from kerasmemwatch.faults import Faults
from kerasmemwatch.probes.allocators import counts_exactly
from kerasmemwatch.records.run import PLANNED, SILENT_ALLOCATOR

__all__ = ["NoAllocationsError", "fix", "planned_note", "remark", "silent_device"]

_VARIABLE = "TF_GPU_ALLOCATOR"


class NoAllocationsError(MemWatchError):
    """A capture without an allocation: the allocator keeps no statistics, or does not report small allocations."""


def silent_device(known: Iterable[KnownBuffer], told: Collection[str]) -> str:
    """Return the GPU that holds most of a step's variables, if its allocator reported nothing; ``""`` otherwise.

    Example:
        >>> variable = KnownBuffer("a", "Dense", "weights", 1024, key=1, device="GPU:0")
        >>> silent_device([variable], ["CPU:0"]), silent_device([variable], ["CPU:0", "GPU:0"])
        ('GPU:0', '')
    """
    sizes: Counter[str] = Counter()
    for buffer in known:
        if buffer.key:
            sizes[buffer.device] += buffer.bytes
    device = max(sizes, key=sizes.__getitem__, default="")
    return device if device.startswith("GPU") and device not in told else ""


def fix() -> str:
    """Instruction on how to measure layers; ``""`` if none is known."""
    chosen = os.environ.get(_VARIABLE, "")
    return f"To measure layers, unset {_VARIABLE}, which is {chosen!r}." if chosen else ""


def planned_note(device: str) -> str:
    """Note on the origin of a timeline that comes from XLA's plan."""
    return (
        f"{device}: {SILENT_ALLOCATOR}. {PLANNED}, on top of the variables, and was not measured; it excludes "
        f"allocations made while a program is compiled. The bytes of the run's peaks are exact. {fix()}"
    ).rstrip()


def remark(faults: Faults, known: Iterable[KnownBuffer]) -> None:
    """Warn once that a captured step has no allocations to attribute, with the reason."""
    device = silent_device(known, ())
    if device:
        exact = "The bytes of its peaks are exact; the layers that hold them are unknown."
        faults.remark(device, NoAllocationsError(SILENT_ALLOCATOR), f"{exact} {fix()}".rstrip())
    else:
        error = NoAllocationsError("TensorFlow's allocator reported no allocation in the traced step")
        faults.remark("trace", error, "" if counts_exactly() else remedy())
