"""What a tape held in a step, from the allocator or from a traced step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.steps.live_set import category_series, grouped_series, requested_at
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.owners import KEPT_TAPES
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep

__all__ = ["TapeMemory", "tensor_bytes", "traced_memory"]


@dataclass(frozen=True)
class TapeMemory:
    """What a tape held in one step. Unknown values are ``None``.

    Attributes:
        source: ``"allocator"``: growth of its in-use bytes while the tape recorded, which counts in chunks and includes
            other memory kept then; ``"trace"``: the activations of a traced step, in requested bytes.
        step: The ``step`` it was measured in.
        saved_for_backward_bytes: Bytes that the forward pass left alive for the backward pass.
        gradients_bytes: Bytes of the gradients computed last.
        peak_bytes: The highest total alive from the start of the step to the end of the backward pass; in a traced
            step, to the end of the step.
    """

    source: str
    step: int | None
    saved_for_backward_bytes: int | None = None
    gradients_bytes: int | None = None
    peak_bytes: int | None = None


def traced_memory(steps: Sequence[TracedStep]) -> TapeMemory | None:
    """The tape memory of the newest traced training step with a backward pass; ``None`` without one."""
    for step in reversed(steps):
        births = _backward_births(step.timeline)
        if step.stage == "train" and len(births):
            series = category_series(step.timeline)
            gradients = series[CATEGORIES.index("gradients")]
            # Not what is alive at the first gradient operation: one that needs no incoming gradient, such as a
            # shape's, may run long before the forward pass ends.
            saved: int | None = int((series[CATEGORIES.index("activations")] - _held_by_others(step.timeline)).max())
            all_gradients: int | None = sum(step.gradient_bytes.values()) or int(gradients.max())
            if step.mode == "xla":
                # The compiler moves values between the passes, so memory may exist although its category has none.
                saved, all_gradients = saved or None, all_gradients or None
            return TapeMemory("trace", step.step, saved, all_gradients, int(requested_at(step.timeline).max()))
    return None


def _held_by_others(timeline: Timeline) -> NDArray[np.int64]:
    """Bytes that tapes of earlier steps hold at each moment; entry ``e`` is the moment before event ``e``."""
    kept = timeline.is_of(KEPT_TAPES)
    kept &= timeline.category == CATEGORIES.index("activations")
    held: NDArray[np.int64] = grouped_series(timeline, np.where(kept, 0, -1), 1)[0]
    return held


def _backward_births(timeline: Timeline) -> NDArray[np.int64]:
    """Events at which the backward pass allocated; without an owner, an allocation's phase is a guess."""
    owned = ~timeline.is_of("unattributed")
    births: NDArray[np.int64] = timeline.birth[(timeline.phase == PHASES.index("backward")) & owned]
    return births


def tensor_bytes(value: Any) -> int | None:
    """Bytes of an eager tensor, of ``tf.IndexedSlices`` or another composite; ``None`` if a size is unknown.

    Example:
        >>> import numpy
        >>> tensor_bytes(numpy.zeros((3, 4), "float32")), tensor_bytes(None)
        (48, 0)
    """
    if value is None:
        return 0
    parts = [getattr(value, name, None) for name in ("values", "indices")]
    if parts[0] is not None and parts[1] is not None:
        sizes = [tensor_bytes(part) for part in parts]
        return None if None in sizes else sum(size for size in sizes if size is not None)
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    item = getattr(dtype, "size", None) or getattr(dtype, "itemsize", None)
    try:
        return math.prod(map(int, shape)) * int(item)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
