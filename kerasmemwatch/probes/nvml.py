"""Probe of GPU memory as the NVIDIA driver counts it, for all processes and for this one, at epoch ends."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.probes.base import UNKNOWN
from kerasmemwatch.probes.cuda_devices import kind_of, visible_devices
from kerasmemwatch.records.samples import Column

__all__ = ["NvmlProbe"]

# WSL 2 has no /proc/driver: it uses the Windows driver through /dev/dxg.
_DRIVER_SIGNS = (Path("/proc/driver/nvidia"), Path("/dev/dxg"))


class NvmlProbe:
    """Queries the driver about the GPUs that CUDA shows this process, in CUDA's order as far as it can be known.

    ``nvml_used_bytes`` includes all processes and the driver's own memory, so used and free add up to the total.
    ``nvml_process_bytes`` is unknown where the driver does not list this process: in a container it may list only host
    process ids, so "not listed" does not mean 0.

    Args:
        nvml: A module with pynvml's functions; ``None`` imports pynvml in ``open``.
    """

    name = "nvml"
    columns: tuple[Column, ...] = ()

    def __init__(self, nvml: Any = None) -> None:
        self.slow_columns: tuple[Column, ...] = ()
        self.facts: dict[str, object] = {}
        self._nvml = nvml
        self._handles: list[Any] = []
        self._pid: int | None = None

    def open(self) -> None:
        """Start the driver's library and find the GPUs, unless this process has done so already.

        Raises:
            ProbeUnavailableError: If pynvml is not installed, no driver answers, or no GPU is visible.
        """
        if self._pid == os.getpid():
            return
        if self._nvml is None:
            self._nvml = _import_pynvml()
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise ProbeUnavailableError(f"No NVIDIA driver answers ({error}).", _driver_remedy()) from error
        self._pid = os.getpid()
        try:
            self._find_devices(os.environ.get("CUDA_VISIBLE_DEVICES"))
        except ProbeUnavailableError:
            self.close()
            raise

    def batch_begin(self) -> None:
        """Do nothing: the driver keeps no peak."""

    def batch_end(self) -> Sequence[float]:
        """Read nothing: a driver query is too slow for each batch."""
        return ()

    def epoch_end(self) -> Sequence[float]:
        """Read ``slow_columns``: used bytes of each GPU, then total bytes, then bytes of this process."""
        memory = [self._query("nvmlDeviceGetMemoryInfo", handle) for handle in self._handles]
        used = [UNKNOWN if info is None else float(info.used) for info in memory]
        total = [UNKNOWN if info is None else float(info.total) for info in memory]
        return [*used, *total, *map(self._process_bytes, self._handles)]

    def close(self) -> None:
        """Release the driver's library. May be called twice; ``epoch_end`` returns NaN afterwards."""
        if self._pid is not None:
            self._query("nvmlShutdown")
        self._pid = None

    def abandon(self) -> None:
        """Leave the driver's library running: taking pynvml's lock in the garbage collector could deadlock."""
        self._pid = None

    def _query(self, function: str, *args: Any) -> Any:
        """Query the driver; ``None`` for "not available". Every query except ``nvmlInit`` goes through here.

        Causes of failure: a GPU, vGPU or MIG slice without that figure, a driver older than the function, a container
        without permission, a GPU that fell off the bus.
        """
        try:
            return getattr(self._nvml, function)(*args)
        except self._nvml.NVMLError:
            return None

    def _find_devices(self, visible: str | None) -> None:
        count = self._query("nvmlDeviceGetCount") or 0
        gpus = [self._query("nvmlDeviceGetHandleByIndex", index) for index in range(count)]
        if not gpus:
            raise ProbeUnavailableError("The NVIDIA driver finds no GPU.", _driver_remedy())
        known = [self._describe(gpu) for gpu in gpus]
        chosen = visible_devices(visible, [str(gpu["uuid"]) for gpu in known])
        handles = [gpus[d] if isinstance(d, int) else self._query("nvmlDeviceGetHandleByUUID", d) for d in chosen]
        self._handles = [handle for handle in handles if handle is not None]
        if not self._handles:
            remedy = f"Expected indices below {count} or UUIDs. Received: CUDA_VISIBLE_DEVICES={visible!r}."
            # Empty and -1 mean that the user wants the CPU: nothing is wrong.
            raise ProbeUnavailableError("No GPU is visible to CUDA.", "" if visible in ("", "-1") else remedy)
        names = ("nvml_used_bytes", "nvml_total_bytes", "nvml_process_bytes")
        self.slow_columns = tuple(Column(name, width=len(self._handles)) for name in names)
        self.facts = {
            "drivers": [self._describe(handle) for handle in self._handles],
            "driver_version": self._query("nvmlSystemGetDriverVersion"),
        }
        kind = "index" if visible is None else kind_of(visible.strip())
        notes = self._notes(kind, len({gpu["name"] for gpu in known} - {None}))
        if notes:
            self.facts["note"] = " ".join(notes)

    def _describe(self, handle: Any) -> dict[str, object]:
        if handle is None:
            return {"name": None, "uuid": None, "total_bytes": None}
        memory = self._query("nvmlDeviceGetMemoryInfo", handle)
        return {
            "name": self._query("nvmlDeviceGetName", handle),
            "uuid": self._query("nvmlDeviceGetUUID", handle),
            "total_bytes": None if memory is None else int(memory.total),
        }

    def _notes(self, kind: str, num_models: int) -> list[str]:
        notes = []
        if kind == "index" and num_models > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            # CUDA then numbers GPUs from the fastest, and only CUDA knows which that is.
            notes.append(
                "The GPUs are different models, so it is unknown which column is which TensorFlow GPU. "
                "Set CUDA_DEVICE_ORDER=PCI_BUS_ID before Python starts."
            )
        modes = [self._query("nvmlDeviceGetMigMode", handle) for handle in self._handles]
        if kind != "MIG-" and any(mode is not None and mode[0] == 1 for mode in modes):
            notes.append(
                "MIG is on: the driver's figures are for the whole GPU. "
                "Set CUDA_VISIBLE_DEVICES to a MIG id (nvidia-smi -L) to read one slice."
            )
        return notes

    def _process_bytes(self, handle: Any) -> float:
        compute = self._query("nvmlDeviceGetComputeRunningProcesses", handle)
        graphics = self._query("nvmlDeviceGetGraphicsRunningProcesses", handle)
        if compute is None:
            return UNKNOWN
        pid = os.getpid()
        shares = [
            [entry.usedGpuMemory for entry in entries if entry.pid == pid] for entries in (compute, graphics or ())
        ]
        if any(None in share for share in shares):
            return UNKNOWN
        # A process with both kinds of context is in both lists with the same bytes: take the larger, not the sum.
        return max((float(sum(share)) for share in shares if share), default=UNKNOWN)


def _import_pynvml() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        if _driver_absent():
            raise ProbeUnavailableError("There is no NVIDIA GPU here.") from error
        remedy = "Install it with: pip install 'kerasmemwatch[nvml]'"
        raise ProbeUnavailableError("nvidia-ml-py is not installed.", remedy) from error


def _driver_remedy() -> str:
    return "" if _driver_absent() else "Check that nvidia-smi runs; a container needs --gpus all."


def _driver_absent() -> bool:
    """Whether there is evidently no NVIDIA driver, so that installing a Python package would not help."""
    return sys.platform == "darwin" or (sys.platform == "linux" and not any(sign.exists() for sign in _DRIVER_SIGNS))
