"""TensorFlow's allocators: bytes in use, the peak of each batch, and the peak between batches.

``tf.config.experimental.get_memory_info`` reads them. Whether the CPU's allocator counts every allocation depends
on how TensorFlow was started, so it is tried out, not assumed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.probes.peak_window import PeakWindow
from kerasmemwatch.records import Column, DeviceInfo
from kerasmemwatch.units import KIB, MIB

__all__ = ["EXACT_CPU_REMEDY", "TensorFlowProbe", "allocators"]

EXACT_CPU_REMEDY = (
    "Start it with `kerasmemwatch run SCRIPT.py`, or set TF_CPU_ALLOCATOR_USE_BFC=1 before TensorFlow is imported."
)
# The default allocator under oneDNN keeps statistics of allocations of at least this size
# (tensorflow/core/common_runtime/mkl_cpu_allocator.h: kSmallAllocationsThreshold).
_ONEDNN_THRESHOLD_BYTES = 256 * KIB

Reader = tuple[Callable[[str], Mapping[str, int]], Callable[[str], None]]


class TensorFlowProbe:
    """Reads every allocator of this process, each once: GPUs first, then the CPU's if it keeps statistics.

    Args:
        reset_peak: Whether to reset the allocators' peaks at batch boundaries. If not, the peak columns are
            run maxima and a user's own peaks stay.
        whole_window: Whether a row's peak covers everything since the last row, not the batch alone
            (for ``sample_every > 1``).
        backend: What trains. With another backend, TensorFlow's allocators say nothing about the model.
    """

    name = "tensorflow"

    def __init__(self, *, reset_peak: bool = True, whole_window: bool = False, backend: str = "tensorflow") -> None:
        self._backend = backend
        self.columns: tuple[Column, ...] = ()
        self.slow_columns: tuple[Column, ...] = ()
        self.facts: dict[str, object] = {}
        self._reset_peak, self._whole_window = reset_peak, whole_window
        self._windows: tuple[PeakWindow, ...] = ()
        self._only: PeakWindow | None = None  # most machines have one: without a loop, which costs time
        self._between: list[float] = []

    def open(self) -> None:
        """Find the allocators; the first call also begins the first window.

        Raises:
            ProbeUnavailableError: If TensorFlow is not loaded or no allocator keeps statistics.
        """
        if self._windows:
            return
        if self._backend != "tensorflow":
            raise ProbeUnavailableError(
                f"Device memory is unknown: the {self._backend} backend's is not measured by this version.",
                "Host memory is. Train on the TensorFlow backend for device memory.",
            )
        found = allocators()
        self._windows = tuple(
            PeakWindow(device.name, read, reset, resets=self._reset_peak) for device, (read, reset) in found
        )
        self._only = self._windows[0] if len(found) == 1 else None
        width = len(found)
        self.columns = (
            Column("device_in_use_bytes", width),
            Column("device_peak_bytes", width),
            Column("device_between_peak_bytes", width),
        )
        self.facts = {"devices": [asdict(device) for device, _ in found]}
        self._between = [float("nan")] * width
        for window in self._windows:
            window.take()

    def batch_begin(self) -> None:
        """End the window between two batches, begin the batch's."""
        if self._whole_window:
            self._between = [window.peek()[1] for window in self._windows]
        elif self._only is not None:
            self._between[0] = self._only.take()[1]
        else:
            self._between = [window.take()[1] for window in self._windows]

    def batch_end(self) -> Sequence[float]:
        """In-use bytes, the batch's peak and the peak before it, each for every allocator."""
        if self._only is not None:
            current, peak = self._only.take()
            return (current, peak, self._between[0])
        read = [window.take() for window in self._windows]
        return [*[current for current, _ in read], *[peak for _, peak in read], *self._between]

    def epoch_end(self) -> Sequence[float]:
        """Nothing slow to read."""
        return ()

    def close(self) -> None:
        """Stop sharing the peak counters."""
        for window in self._windows:
            window.close()
        self._windows, self._only = (), None


def allocators() -> list[tuple[DeviceInfo, Reader]]:
    """Every allocator that keeps statistics, with the two calls that read and reset it.

    Returns:
        GPUs first, then the CPU. Logical CPU devices share one allocator, which is listed once.

    Raises:
        ProbeUnavailableError: If there is none.
    """
    tf = sys.modules.get("tensorflow")
    if tf is None:
        raise ProbeUnavailableError(
            "Device memory is unknown: TensorFlow is not loaded.", "Train on the TensorFlow backend."
        )
    found = []
    for logical in tf.config.list_logical_devices("GPU"):
        name = logical.name.rpartition("device:")[2]
        reader = _reader(tf, name)
        if reader is not None:
            found.append((DeviceInfo(name, limit_bytes=_gpu_limit_bytes(tf, name)), reader))
    reader = _reader(tf, "CPU:0")
    if reader is not None:
        found.append((_cpu_info(tf, reader), reader))
    if not found:
        raise ProbeUnavailableError(
            "Device memory is unknown: no allocator of TensorFlow keeps statistics here.", EXACT_CPU_REMEDY
        )
    return found


def _reader(tf: Any, name: str) -> Reader | None:
    try:
        tf.config.experimental.get_memory_info(name)
    except (ValueError, tf.errors.OpError):  # "Allocator stats not available for device"
        return None
    try:
        # The same calls without two layers of checks: half the time, twice a batch. Looked up on each call, the
        # handle of a context that is reset is None, which is an error and not a crash.
        from tensorflow.python import pywrap_tfe
        from tensorflow.python.eager import context

        raw, get, reset = context.context(), pywrap_tfe.TFE_GetMemoryInfo, pywrap_tfe.TFE_ResetMemoryStats
        get(raw._context_handle, name)
    except (ImportError, AttributeError, TypeError):
        return tf.config.experimental.get_memory_info, tf.config.experimental.reset_memory_stats
    return lambda name: get(raw._context_handle, name), lambda name: reset(raw._context_handle, name)


def _cpu_info(tf: Any, reader: Reader) -> DeviceInfo:
    if _counts_small(tf, reader[0]):
        limit = os.environ.get("TF_CPU_BFC_MEM_LIMIT_IN_MB", "")
        return DeviceInfo("CPU:0", limit_bytes=int(limit) * MIB if limit.isdecimal() else None)
    return DeviceInfo("CPU:0", "partial", _ONEDNN_THRESHOLD_BYTES, remedy=EXACT_CPU_REMEDY)


def _counts_small(tf: Any, read: Callable[[str], Mapping[str, int]], tries: int = 3) -> bool:
    """Whether a tensor of 256 bytes shows; several tries, as another thread may allocate in between."""
    for _ in range(tries):
        before = read("CPU:0")["current"]
        with tf.device("CPU:0"):
            # From a list: a numpy array may be taken over without a copy, and so without an allocation.
            tensor = tf.convert_to_tensor([0.0] * 64)
        seen = read("CPU:0")["current"] != before
        del tensor
        if not seen:
            return False
    return True


def _gpu_limit_bytes(tf: Any, name: str) -> int | None:
    """What the user set as the memory limit of a logical GPU, in bytes; ``None`` if nothing was set."""
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
