"""What describes a run: its devices, its worker, its versions and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PLANNED", "SILENT_ALLOCATOR", "STAGES", "DeviceInfo", "RunInfo", "WorkerInfo"]

STAGES = ("train", "test", "predict")
# What a note of a run says of a device whose memory is known in sum only.
SILENT_ALLOCATOR = "its allocator tells nothing of single allocations"
# What a note says of a step whose timeline is no measurement.
PLANNED = "What is shown of the step is XLA's plan of it"


@dataclass(frozen=True)
class DeviceInfo:
    """One allocator whose bytes are recorded.

    Attributes:
        name: TensorFlow's short name: ``"GPU:0"``, ``"CPU:0"``.
        counting: ``"exact"`` (every allocation), or ``"partial"`` (see ``counted_from_bytes``).
        counted_from_bytes: Allocations smaller than this are not counted; 0 if all are.
        limit_bytes: What the allocator may hand out at most, if known.
        covered_share: Share of the model's variable bytes that a partial count sees; ``None`` if unknown.
        remedy: How to get an exact count; empty if it is.
    """

    name: str
    counting: str = "exact"
    counted_from_bytes: int = 0
    limit_bytes: int | None = None
    covered_share: float | None = None
    remedy: str = ""


@dataclass(frozen=True)
class WorkerInfo:
    """Which of several processes that train together recorded a run.

    Attributes:
        cluster: Short hash of the cluster's description, equal in all of its processes.
        type: ``"chief"``, ``"master"`` or ``"worker"``.
        index: 0-based, among those of its type.
        count: How many processes train together.
    """

    cluster: str
    type: str
    index: int
    count: int

    @property
    def name(self) -> str:
        """For example ``"worker:0"``."""
        return f"{self.type}:{self.index}"

    @property
    def suffix(self) -> str:
        """What the names of its runs end in: ``"-worker-0"``."""
        return f"-{self.type}-{self.index}"


@dataclass(frozen=True)
class RunInfo:
    """What is known about a run besides its samples.

    Attributes:
        name: Name of the run's directory under the log dir, or of the run in memory.
        created: UNIX time of the first sample, in seconds.
        tags: The user's own words for it.
        devices: The allocators that the device columns describe, in column order.
        versions: Versions of Python, TensorFlow, Keras, ... by name.
        configuration: What shapes the measurement: thread counts, oneDNN, precision, ``sample_every``, ...
        host: Limits and sizes of the host: ``limit_bytes``, ``limit_source``, ``physical_bytes``.
        drivers: What the GPU driver tells once: names and total bytes.
        notes: What could not be measured, and what went wrong, in plain words.
        worker: Which worker recorded it; ``None`` if it trained alone, or if this is several workers' runs in one.
    """

    name: str
    created: float
    tags: tuple[str, ...] = ()
    devices: tuple[DeviceInfo, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    drivers: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    worker: WorkerInfo | None = None
