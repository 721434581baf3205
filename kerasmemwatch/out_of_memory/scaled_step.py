"""A traced step as it would be with another batch: buffers that grow with the batch, the others as they are. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.steps.live_set import requested_at
from kerasmemwatch.records.categories import CATEGORIES, GROWING_WITH_BATCH
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep

__all__ = ["ScaledStep", "data_set_bytes", "scaled"]

_GROWING = [CATEGORIES.index(name) for name in GROWING_WITH_BATCH]
_PASSES = [PHASES.index(name) for name in ("input", "forward", "backward")]
_VARIABLES = [CATEGORIES.index("weights")]
_INPUTS = CATEGORIES.index("inputs")


@dataclass(frozen=True, eq=False)
class ScaledStep:
    """A traced step scaled to a batch.

    Attributes:
        step: The traced step.
        timeline: Its timeline on the device, with the sizes of the scaled buffers.
        batch: Rows of the batch that it is scaled to; ``None`` if it is as traced.
        is_guessed: Whether the rows are guessed from the bytes in use.
    """

    step: TracedStep
    timeline: Timeline
    batch: int | None
    is_guessed: bool = False

    @property
    def words(self) -> str:
        """Where its figures come from."""
        traced = f"step {self.step.step:,}"
        if self.batch is None:
            return f"as in traced {traced}, whose batch may be another"
        if self.batch == self.step.batch_rows:
            return f"as in traced {traced}"
        about = "about " if self.is_guessed else ""
        return f"traced {traced}, scaled from batch {self.step.batch_rows:,} to {about}{self.batch:,}"

    @property
    def peak_bytes(self) -> int:
        """Bytes that the allocator hands out at the peak: what is requested, and as much rounding as it had."""
        return round(int(requested_at(self.timeline).max()) * self.slack)

    @property
    def slack(self) -> float:
        """Bytes in use for each requested byte, at the traced step's highest moment."""
        traced = next(each for each in self.step.timelines.values() if each.device == self.timeline.device)
        highest = max(traced.in_use_before_bytes, int(traced.in_use_bytes.max(initial=0)))
        requested = int(requested_at(traced).max())
        return max(1.0, highest / requested) if requested else 1.0


def scaled(step: TracedStep, batch: int | None, device: str = "") -> ScaledStep:
    """Scale a traced step to a batch.

    Args:
        step: The traced step.
        batch: Rows of the batch; ``None`` if unknown.
        device: The device that ran out of memory; the step's main one if it has none of that name.
    """
    timeline = step.timelines.get(device, step.timeline)
    if batch is None or not step.batch_rows:
        return ScaledStep(step, timeline, None)
    ratio = batch / step.batch_rows
    sizes = np.where(grows(step, timeline), timeline.requested_bytes * ratio, timeline.requested_bytes)
    return ScaledStep(step, replace(timeline, requested_bytes=np.ceil(sizes).astype(np.int64)), batch)


def data_set_bytes(traced: ScaledStep) -> int:
    """Bytes of a data set that the device holds as a whole."""
    timeline, size = traced.step.timelines[traced.timeline.device], traced.timeline.requested_bytes
    held = (timeline.birth < 0) & (timeline.category == _INPUTS)
    return int(size[held & (timeline.requested_bytes > _batch_bytes(traced.step))].sum())


def _batch_bytes(step: TracedStep) -> int:
    """Bytes of the largest tensor of a step's batch, as far as is known."""
    timeline = step.timeline
    made = (timeline.birth >= 0) & (timeline.category == _INPUTS)
    return max(int(timeline.requested_bytes[made].max(initial=0)), step.batch_bytes or 0)


def grows(step: TracedStep, timeline: Timeline) -> NDArray[np.bool_]:
    """Whether each allocation grows with the batch: ``bool[num_allocations]``.

    What a pass makes grows, unless it is as large as a variable of its layer, cannot be divided among the rows, or is
    a convolution's workspace on a CPU.
    """
    size, rows = timeline.requested_bytes, step.batch_rows or 1
    born = (timeline.birth >= 0) & np.isin(timeline.phase, _PASSES)
    # Batches that wait in the pipeline, or are the step's argument; a whole data set is larger than any batch.
    waiting = (timeline.birth < 0) & (timeline.category == _INPUTS) & (size <= _batch_bytes(step))
    variables = np.unique(np.stack([timeline.owner, size])[:, np.isin(timeline.category, _VARIABLES)], axis=1)
    known = {(owner, bytes_) for owner, bytes_ in variables.T.tolist()}
    is_variable = np.array(
        [pair in known for pair in zip(timeline.owner.tolist(), size.tolist(), strict=True)], np.bool_
    )
    found: NDArray[np.bool_] = (
        (born | waiting) & np.isin(timeline.category, _GROWING) & ~is_variable & (size % rows == 0) & (size >= rows)
    )
    found[_workspaces(timeline)] = False
    return found


def _workspaces(timeline: Timeline) -> list[int]:
    """Allocations on a CPU in which a convolution's kernel works: what it makes besides its result, which comes first.

    The kernel takes as many pictures at once as fill a set number of bytes, however large the batch is
    (tensorflow/core/kernels/conv_grad_filter_ops.cc: target_working_set_size).
    """
    if not timeline.device.startswith("CPU"):
        return []  # there, the algorithm decides
    is_convolution = np.array(["conv" in op.rpartition("/")[2].lower() for op in timeline.ops], np.bool_)
    made = np.flatnonzero((timeline.op >= 0) & (timeline.birth >= 0))
    made = made[is_convolution[timeline.op[made]]] if len(made) else made
    results: dict[tuple[int, int], int] = {}
    found = []
    for index in made[np.argsort(timeline.birth[made])].tolist():
        size = int(timeline.requested_bytes[index])
        if results.setdefault((int(timeline.owner[index]), int(timeline.op[index])), size) != size:
            found.append(index)
    return found
