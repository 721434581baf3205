"""The memories that a budget limits: the host's, and that of each device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras

from kerasmemwatch.errors import InvalidArgumentError, ProbeUnavailableError
from kerasmemwatch.leaks.verdicts.series import Kind
from kerasmemwatch.probes.allocators import allocators
from kerasmemwatch.probes.host import HostProbe
from kerasmemwatch.probes.limits import host_limit
from kerasmemwatch.probes.peak_window import PeakWindow
from kerasmemwatch.units import parse_bytes

__all__ = ["BudgetedMemory", "device_memories", "host_memory", "limit_bytes"]


@dataclass(frozen=True)
class BudgetedMemory:
    """A memory with a limit.

    Attributes:
        name: What it is, in words.
        kind: What counts its bytes.
        limit_bytes: Its limit.
        read: Returns the bytes in use, and the peak since the last call.
        close: Ends the reading.
    """

    name: str
    kind: Kind
    limit_bytes: int
    read: Callable[[], tuple[float, float]]
    close: Callable[[], None]

    @property
    def holds_datasets(self) -> bool:
        """Whether datasets are in it: host memory, counted in either way."""
        return self.kind == "host" or "CPU" in self.name


def host_memory(limit: int | str) -> BudgetedMemory:
    """The process's resident set size, whose peak within a step is unknown."""
    probe = HostProbe()
    probe.open()

    def read() -> tuple[float, float]:
        rss = probe.batch_end()[0]
        return rss, rss

    size = limit_bytes(limit, host_limit().limit_bytes, "host")
    return BudgetedMemory("Host memory (RSS)", "host", size, read, probe.close)


def device_memories(limit: int | str) -> list[BudgetedMemory]:
    """The bytes of each device's allocator.

    Raises:
        ProbeUnavailableError: If the backend is not TensorFlow.
    """
    if keras.config.backend() != "tensorflow":
        raise ProbeUnavailableError(f"Device memory is unknown on the {keras.config.backend()} backend.")
    memories = []
    for allocator in allocators():
        info = allocator.info
        whole = info.limit_bytes
        if whole is None:
            whole = host_limit().limit_bytes if info.name.startswith("CPU") else _gpu_bytes(info.name)
        window = PeakWindow(info.name, allocator.read, allocator.read_and_reset)
        window.take()
        size = limit_bytes(limit, whole, "device")
        memories.append(BudgetedMemory(f"Memory of {info.name}", "device", size, _reader(window), window.close))
    return memories


def limit_bytes(limit: int | str, whole: int | None, name: str) -> int:
    """A limit in bytes. For a share without a whole, only its form is checked.

    Raises:
        InvalidArgumentError: If it is no size and no share (a ``ValueError``).
        InvalidTypeError: If it is neither a number of bytes nor a string (a ``TypeError``).
    """
    if not isinstance(limit, str) or not limit.strip().endswith("%"):
        return parse_bytes(limit, name=name)
    try:
        share = float(limit.strip()[:-1]) / 100
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise InvalidArgumentError(
            f"Expected {name} to be a share above 0% and up to 100%. Received: {name}={limit!r}."
        )
    return 1 if whole is None else int(whole * share)


def _reader(window: PeakWindow) -> Callable[[], tuple[float, float]]:
    # ``take`` is looked up for each call: other readers of the counter change it.
    return lambda: window.take()


def _gpu_bytes(name: str) -> int:
    """A GPU's memory, from the driver."""
    from kerasmemwatch.probes.nvml import NvmlProbe

    probe = NvmlProbe()
    probe.open()
    try:
        drivers = probe.facts["drivers"]
        return int(drivers[int(name.rpartition(":")[2])]["total_bytes"])  # type: ignore[index]
    finally:
        probe.close()
