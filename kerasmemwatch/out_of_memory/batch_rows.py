"""How many rows a batch had, by what was asked for, what was in use, or the shapes of tensors. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.steps.live_set import requested_at
from kerasmemwatch.out_of_memory.scaled_step import grows, scaled
from kerasmemwatch.records.death import Death
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep

__all__ = ["alike", "rows_by_outputs", "rows_by_request", "rows_by_shapes", "rows_by_use", "rows_traced"]


def rows_by_request(step: TracedStep, death: Death) -> int | None:
    """Rows of the batch that failed, by the size that the same operation of its layer asked for in the traced step."""
    asked, rows = death.request.num_bytes, step.batch_rows
    if asked is None or rows is None:
        return None
    found = {asked * rows // size for size in _sizes(step, death) if asked * rows % size == 0}
    by_shape = found & set(death.request.shape[:1])
    return (by_shape or found).pop() if len(by_shape or found) == 1 else None


def rows_traced(step: TracedStep, death: Death) -> int | None:
    """Rows of the traced step's batch, likewise, if only this batch's are known, as where each batch is given alone."""
    asked, rows = death.request.num_bytes, death.batch
    if not asked or rows is None:
        return None
    found = {size * rows // asked for size in _sizes(step, death) if size * rows % asked == 0}
    return found.pop() if len(found) == 1 else None


def _sizes(step: TracedStep, death: Death) -> list[int]:
    timeline = step.timelines.get(death.request.device, step.timeline)
    return [size for size in np.unique(alike(timeline, death)[1]).tolist() if size]


def rows_by_use(step: TracedStep, death: Death) -> int | None:
    """About how many rows this batch had, by the bytes in use as the operation asked; ``None`` if they do not tell.

    The size of an operation's own workspace need not grow in step with the batch.
    """
    traced = scaled(step, None, death.request.device)
    timeline, rows = traced.timeline, step.batch_rows
    births, _ = alike(timeline, death)
    if rows is None or death.in_use_bytes is None or not len(births):
        return None
    growing = np.where(grows(step, timeline), timeline.requested_bytes, 0)
    grown, total = requested_at(replace(timeline, requested_bytes=growing)), requested_at(timeline)
    moment = int(births[np.argmax(total[births])])
    per_row = int(grown[moment]) / rows
    left = death.in_use_bytes / traced.slack - int(total[moment] - grown[moment])
    guess = round(left / per_row) if per_row else 0
    return guess if guess > rows else None


def alike(timeline: Timeline, death: Death) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Births and sizes of what the operation that failed, or one of its name in its layer, made in a traced step."""
    ops = [index for index, op in enumerate(timeline.ops) if _is_same_op(op, death.request.op)]
    found = np.isin(timeline.op, ops) & (timeline.birth >= 0)
    if death.layer and "/" not in death.request.op:
        owner = Owner(death.layer, death.class_name)
        of_layer = [Owner(*pair) == owner for pair in zip(timeline.owners, timeline.classes, strict=True)]
        found &= np.array(of_layer, np.bool_)[timeline.owner]
    if death.phase in PHASES and "/" not in death.request.op:
        found &= timeline.phase == PHASES.index(death.phase)
    return timeline.birth[found], timeline.requested_bytes[found]


def _is_same_op(name: str, op: str) -> bool:
    """Whether an event's name, which includes the calls around it, is that of an operation."""
    return bool(op) and (name == op or name.endswith(f"/{op}"))


def rows_by_shapes(outputs: Collection[tuple[int | None, ...]], shapes: Collection[tuple[int, ...]]) -> int | None:
    """Rows of the batch by the shapes that are a layer's output for any batch; the larger ones count more."""
    found: Counter[int] = Counter()
    for shape in shapes:
        rows = rows_by_outputs(outputs, shape)
        if rows is not None:
            found[rows] += math.prod(shape)
    return max(found, key=found.__getitem__, default=None)


def rows_by_outputs(outputs: Collection[tuple[int | None, ...]], shape: tuple[int, ...]) -> int | None:
    """Rows of a tensor's batch, if it has the shape of a layer's output for any batch."""
    # A function that was traced for one batch has its rows in all outputs.
    fixed = {found[0] for found in outputs if found}
    for found in outputs:
        is_for_any = found[:1] == (None,) or (len(fixed) == 1 and found[:1] == shape[:1])
        if is_for_any and len(found) == len(shape) > 1 and found[1:] == shape[1:]:
            return shape[0]
    return None
