"""Description of a run: its devices, worker, versions and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kerasmemwatch.records.death import Death
from kerasmemwatch.records.growth import Growth, LeakFinding, OwnRise

__all__ = ["PLANNED", "SILENT_ALLOCATOR", "STAGES", "DeviceInfo", "RunInfo", "WorkerInfo"]

STAGES = ("train", "test", "predict")
# Stored in a run's notes, where reports find it, for a device whose memory is known only in total.
SILENT_ALLOCATOR = "its allocator tells nothing of single allocations"
# Likewise, for a step whose timeline is not a measurement.
PLANNED = "What is shown of the step is XLA's plan of it"


@dataclass(frozen=True)
class DeviceInfo:
    """One allocator whose bytes are recorded.

    Attributes:
        name: TensorFlow's short name: ``"GPU:0"``, ``"CPU:0"``.
        counting: ``"exact"`` (every allocation), or ``"partial"`` (see ``counted_from_bytes``).
        counted_from_bytes: Allocations smaller than this are not counted; 0 if all are.
        limit_bytes: Most that the allocator may hand out, if known.
        covered_share: Share of the model's variable bytes that a partial count includes; ``None`` if unknown.
        remedy: How to get an exact count; empty if it is exact already.
    """

    name: str
    counting: str = "exact"
    counted_from_bytes: int = 0
    limit_bytes: int | None = None
    covered_share: float | None = None
    remedy: str = ""


@dataclass(frozen=True)
class WorkerInfo:
    """The worker that recorded a run, of several processes that train together.

    Attributes:
        cluster: Short hash of the cluster's description, the same in all of its processes.
        type: ``"chief"``, ``"master"`` or ``"worker"``.
        index: 0-based, among those of its type.
        count: Number of processes that train together.
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
        """Suffix of its runs' names: ``"-worker-0"``."""
        return f"-{self.type}-{self.index}"


@dataclass(frozen=True)
class RunInfo:
    """Everything known about a run besides its samples.

    Attributes:
        name: Name of the run's directory under the log dir, or of a run kept in memory.
        created: UNIX time of the first sample, in seconds.
        tags: The user's labels for it.
        devices: The allocators that the device columns describe, in column order.
        versions: Versions of Python, TensorFlow, Keras, ... by name.
        configuration: Settings that affect the measurement: thread counts, oneDNN, precision, ``sample_every``, ...
        host: Limits and sizes of the host: ``limit_bytes``, ``limit_source``, ``physical_bytes``.
        drivers: Facts that the GPU driver reports once: names and total bytes.
        notes: What could not be measured and what went wrong, in plain words.
        worker: The worker that recorded it; ``None`` if it trained alone, or if this merges several workers' runs.
        deaths: Steps that ran out of memory, in order.
        ending: Of a run that is read while its files are open: ``"running"``, ``"killed"`` (its process ended without a
            word), or ``"SIGTERM"``. ``""`` if it ended properly, or if that is unknown.
        leaks: Causes of growth that were found while it ran, the surest first.
        own_rises: By how much our own looks for causes raised RSS, and when.
        call_growth: What grew from one fit, evaluate or predict of the process to the next, if each had a watch of its
            own.
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
    deaths: tuple[Death, ...] = ()
    ending: str = ""
    leaks: tuple[LeakFinding, ...] = ()
    own_rises: tuple[OwnRise, ...] = ()
    call_growth: tuple[Growth, ...] = ()
