"""The values everything else is built from: frozen dataclasses, JSON-able, no behaviour beyond reading.

Bytes are ``int``. What is unknown is ``None`` (``NaN`` in arrays), never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kerasmemwatch.records.samples import Column, Samples

__all__ = [
    "PLANNED",
    "SILENT_ALLOCATOR",
    "Column",
    "DeviceInfo",
    "Growth",
    "LayerMemory",
    "LeakFinding",
    "Peak",
    "RunInfo",
    "Samples",
    "TracedPeak",
    "WorkerInfo",
    "WorkerMemory",
]

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


@dataclass(frozen=True)
class LayerMemory:
    """Bytes of one layer (exclusive of its sub-layers) or of a named owner that is no layer.

    Attributes:
        path: ``"encoder/block_3/attention"``, or an owner: ``"optimizer"``, ``"metrics"``, ...
        class_name: Class of the layer, ``""`` for an owner that is no layer.
        weights_bytes: Its variables, raw ``tf.Variable``s too.
        gradients_bytes: Gradients of its weights.
        optimizer_bytes: Optimizer slots of its weights.
        activations_bytes: Forward outputs that the backward pass needs.
        temporaries_bytes: Workspaces and values freed early.
        inputs_bytes: The batch, and the input pipeline's buffers.
        output_bytes: Size of the outputs of one call.
        other_bytes: Seeds, metric states.
        unattributed_bytes: What its category is not known of.
        total_bytes: In a live set the sum of the row; over a whole step the most it had alive at once.
        added_bytes: By how much the step's peak falls without this layer's own buffers.
        forward_peak_bytes: The most that was alive of everything while its forward pass allocated.
        backward_peak_bytes: The same of its backward pass.
        num_variables: Number of variables counted.
    """

    path: str
    class_name: str = ""
    weights_bytes: int | None = None
    gradients_bytes: int | None = None
    optimizer_bytes: int | None = None
    activations_bytes: int | None = None
    temporaries_bytes: int | None = None
    inputs_bytes: int | None = None
    output_bytes: int | None = None
    other_bytes: int | None = None
    unattributed_bytes: int | None = None
    total_bytes: int | None = None
    added_bytes: int | None = None
    forward_peak_bytes: int | None = None
    backward_peak_bytes: int | None = None
    num_variables: int | None = None


@dataclass(frozen=True)
class Peak:
    """The run's highest moment.

    Attributes:
        bytes: In-use bytes as the allocator counts them; ``None`` if no allocator could be read.
        step: The sample in whose window it lay.
        device: Name of the allocator.
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        phase: ``"between"`` if it lay between two batches, as the samples tell. Else the phase of the highest traced
            step's peak; ``None`` without a trace, or if the step did not end.
        epoch: 0-based epoch, ``None`` outside training.
        requested_bytes: Requested bytes at the highest traced step's peak, the moment that ``Report.traced`` describes;
            ``None`` without a trace.
        by_category: Requested bytes by category at that moment.
        by_layer: The live set of that moment, by owner, the largest first.
        op: The operation that allocated at that moment; ``None`` if unknown.
        ended: Whether the step in whose window it lay ended; ``False`` if an exception left it.
    """

    bytes: int | None = None
    step: int | None = None
    device: str | None = None
    stage: str | None = None
    phase: str | None = None
    epoch: int | None = None
    requested_bytes: int | None = None
    by_category: Mapping[str, int] = field(default_factory=dict)
    by_layer: tuple[LayerMemory, ...] = field(default=(), repr=False)
    op: str | None = None
    ended: bool = True


@dataclass(frozen=True)
class TracedPeak:
    """The moment of all traced steps at which most bytes were requested.

    Attributes:
        step: The traced step.
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        epoch: 0-based epoch, ``None`` outside training.
        mode: ``"graph"``, ``"eager"`` or ``"xla"``; ``""`` of a gap.
        device: Name of the allocator.
        phase: What the step was doing; ``"between"`` if nothing later was as high as the step's begin.
        op: The operation that allocated; ``None`` if unknown.
        owner: For which layer or other owner.
        allocated_bytes: How many bytes it asked for.
        requested_bytes: Live requested bytes.
        in_use_bytes: What the allocator had handed out; what is more than requested is slack.
        prefetched_bytes: If the input pipeline allocated last, beside the step: how much. ``op``, ``owner`` and
            ``allocated_bytes`` are then those of the step's own last allocation.
        measured_in: As of ``TracedStep``: the run that it is a step of, if that is not this one.
        after: As of ``TracedStep``: the step before it, if it is a gap between two.
    """

    step: int
    stage: str
    epoch: int | None
    mode: str
    device: str
    phase: str
    op: str | None
    owner: str | None
    allocated_bytes: int | None
    requested_bytes: int
    in_use_bytes: int
    prefetched_bytes: int = 0
    measured_in: str | None = None
    after: int | None = None


@dataclass(frozen=True)
class WorkerMemory:
    """The highest figures of one of several workers.

    Attributes:
        name: ``"worker:0"``.
        run: Name of its own run.
        peak_bytes: In-use bytes at its highest moment; ``None`` if no allocator could be read.
        peak_step: The step in whose window that lay.
        device: Name of the allocator, as the worker itself calls it.
        host_rss_bytes: Its highest resident set size.
        last_step: Its last sampled step; ``None`` if it has none.
        ends_early: Whether other workers went on after that.
    """

    name: str
    run: str
    peak_bytes: int | None
    peak_step: int | None
    device: str | None
    host_rss_bytes: int | None
    last_step: int | None
    ends_early: bool


@dataclass(frozen=True)
class Growth:
    """A trend at step end, with its 95 % interval.

    Attributes:
        series: Name of the column, with the device where there are several.
        bytes_per_step: Median slope.
        low: Lower end of the interval.
        high: Upper end.
        num_samples: How many samples it rests on.
    """

    series: str
    bytes_per_step: float
    low: float
    high: float
    num_samples: int


@dataclass(frozen=True)
class LeakFinding:
    """One cause of growth: what grows, the evidence, how fast, since when, where, and the fix."""

    cause: str
    evidence: str
    bytes_per_step: float | None
    since_step: int | None
    confidence: float | None
    where: str
    fix: str
