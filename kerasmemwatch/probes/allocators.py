"""TensorFlow's allocators in this process: how to read them, and which allocations they count.

Whether the CPU's allocator counts every allocation depends on how TensorFlow was started, so it is tested, not assumed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kerasmemwatch import exact_cpu
from kerasmemwatch.compat.allocator_reads import direct_reads
from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.probes.peak_window import Reading
from kerasmemwatch.records.run import DeviceInfo
from kerasmemwatch.units import KIB, MIB

__all__ = ["ONEDNN_THRESHOLD_BYTES", "Allocator", "allocators", "counts_exactly", "has_gpu"]

# The default allocator under oneDNN keeps statistics only of allocations of at least this size
# (tensorflow/core/common_runtime/mkl_cpu_allocator.h: kSmallAllocationsThreshold).
ONEDNN_THRESHOLD_BYTES = 256 * KIB
# A process's first constant determines which allocator serves all of them. If it belongs to a graph made before
# TensorFlow has a device, that allocator has no statistics.
_UNCOUNTED_CONSTANTS = (
    "CPU:0: constants are not counted, because one was made before TensorFlow had a device; all other allocations are. "
    "To count constants, run an operation such as tf.ones(1) before the first model."
)


@dataclass(frozen=True)
class Allocator:
    """One allocator that keeps statistics."""

    info: DeviceInfo  # its name and what it counts
    read: Reading  # returns bytes in use and the peak
    read_and_reset: Reading  # the same, and resets the peak to the bytes in use
    shared_by: tuple[str, ...] = ()  # names of all devices that allocate from it, if several
    note: str = ""  # caveat about its figures; empty if there is none


def allocators() -> list[Allocator]:
    """Find every allocator that keeps statistics.

    Returns:
        The GPUs', then the CPU's. Logical CPU devices share one allocator, which is listed once.

    Raises:
        ProbeUnavailableError: If there is none.
    """
    tf = sys.modules.get("tensorflow")
    if tf is None:
        raise ProbeUnavailableError(
            "Device memory is unknown: TensorFlow is not loaded.", "Train on the TensorFlow backend."
        )
    found = []
    for name in _names(tf, "GPU"):
        found.append(Allocator(DeviceInfo(name, limit_bytes=_gpu_limit_bytes(tf, name)), *_readings(tf, name)))
    cpus = _names(tf, "CPU")
    if "CPU:0" in cpus:
        read, read_and_reset = _readings(tf, "CPU:0")
        info, note = _cpu_info(tf, read)
        found.append(Allocator(info, read, read_and_reset, cpus if len(cpus) > 1 else (), note))
    if not found:
        raise ProbeUnavailableError(
            "Device memory is unknown: no TensorFlow allocator keeps statistics here.", exact_cpu.remedy()
        )
    return found


def counts_exactly() -> bool:
    """Whether every allocator that keeps statistics counts every allocation."""
    try:
        return all(one.info.counting == "exact" for one in allocators())
    except ProbeUnavailableError:
        return False


def has_gpu() -> bool:
    """Whether TensorFlow has a GPU."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and bool(tf.config.list_logical_devices("GPU"))


def _names(tf: Any, kind: str) -> tuple[str, ...]:
    """Short names of this process's logical devices that keep statistics."""
    # In a cluster, other workers' devices are listed too; a short name always means this process's own.
    names = dict.fromkeys(logical.name.rpartition("device:")[2] for logical in tf.config.list_logical_devices(kind))
    return tuple(name for name in names if _keeps_statistics(tf, name))


def _keeps_statistics(tf: Any, name: str) -> bool:
    try:
        tf.config.experimental.get_memory_info(name)
    except (ValueError, tf.errors.OpError):  # "Allocator stats not available for device"
        return False
    return True


def _readings(tf: Any, name: str) -> tuple[Reading, Reading]:
    """Make ``read`` and ``read_and_reset`` of one allocator, with few nested calls: they run twice per batch."""
    try:
        found = direct_reads(name)
        found[0]()
    except (ImportError, AttributeError, TypeError):
        public = tf.config.experimental
    else:
        return found

    def read() -> tuple[int, int]:
        info = public.get_memory_info(name)
        return info["current"], info["peak"]

    def read_and_reset() -> tuple[int, int]:
        now = read()
        public.reset_memory_stats(name)
        return now

    return read, read_and_reset


def _cpu_info(tf: Any, read: Reading) -> tuple[DeviceInfo, str]:
    """Describe what the CPU's allocator counts, with a note."""
    # From a list: a numpy array may be used without a copy, and so without an allocation.
    counts_constants = _counts(tf, read, lambda: tf.convert_to_tensor([0.0] * 64))
    if counts_constants or _counts(tf, read, lambda: _empty(tf)):
        limit = "" if exact_cpu.is_ours(exact_cpu.LIMIT_VARIABLE) else os.environ.get(exact_cpu.LIMIT_VARIABLE, "")
        info = DeviceInfo("CPU:0", limit_bytes=int(limit) * MIB if limit.isdecimal() else None)
        return info, "" if counts_constants else _UNCOUNTED_CONSTANTS
    return DeviceInfo("CPU:0", "partial", ONEDNN_THRESHOLD_BYTES, remedy=exact_cpu.remedy()), ""


def _empty(tf: Any) -> Any:
    """Make a tensor of 256 bytes that an operation allocates."""
    operations = getattr(tf, "raw_ops", None)
    return None if operations is None else operations.Empty(shape=[64], dtype=tf.float32)


def _counts(tf: Any, read: Reading, make: Callable[[], Any]) -> bool:
    """Whether a tensor of 256 bytes is counted; tried several times, because another thread may allocate meanwhile."""
    for _ in range(3):
        before, _ = read()
        with tf.device("CPU:0"):
            tensor = make()
        after, _ = read()
        del tensor
        if after == before:
            return False
    return True


def _gpu_limit_bytes(tf: Any, name: str) -> int | None:
    """Memory limit that the user set for a logical GPU, in bytes; ``None`` if not set."""
    try:
        limits = [
            configuration.memory_limit
            for gpu in tf.config.list_physical_devices("GPU")
            for configuration in tf.config.get_logical_device_configuration(gpu) or [None]
            if configuration is not None
        ]
        limit = limits[int(name.rpartition(":")[2])]
    except (AttributeError, IndexError, ValueError, RuntimeError):
        return None
    return None if limit is None else int(limit) * MIB
