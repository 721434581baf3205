"""The moment of death from all that is known of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.steps.live_set import by_category, by_layer, requested_at
from kerasmemwatch.out_of_memory.failing_layer import Asker
from kerasmemwatch.out_of_memory.scaled_step import ScaledStep, scaled
from kerasmemwatch.out_of_memory.suggestions import suggest
from kerasmemwatch.records.death import Death
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.records.timeline import Timeline, TracedStep

__all__ = ["Known", "last_moment"]

_SHOWN_LAYERS = 3


@dataclass(frozen=True)
class Known:
    """What else is known of a step that died.

    Attributes:
        asker: Who asked for the memory; ``None`` if unknown.
        steps: The traced steps so far.
        inventory: The model's variables by layer.
        outputs: Shapes of the layers' outputs, ``None`` where a size depends on the batch.
        input_bytes: Bytes of the batch; ``None`` if unknown.
        is_mixed: Whether mixed precision is in use.
    """

    asker: Asker | None = None
    steps: Sequence[TracedStep] = ()
    inventory: Sequence[LayerMemory] = ()
    outputs: Collection[tuple[int | None, ...]] = ()
    input_bytes: int | None = None
    is_mixed: bool = False


def last_moment(death: Death, known: Known) -> Death:
    """Complete a death with who asked, what was alive, and what would help.

    Args:
        death: What the error and the step's own row tell.
        known: What else is known.
    """
    if known.asker is not None:
        frame = known.asker.frame
        death = replace(
            death,
            layer=frame.owner,
            class_name=frame.class_name,
            phase=frame.phase,
            layer_from=known.asker.known_from,
        )
    traced = _like_this(known.steps, death)
    if traced is None:
        death = replace(death, batch=death.batch or _rows_by_outputs(known.outputs, death.request.shape))
    death = _of_variables(death, known) if traced is None else _of_traced(death, traced)
    helps = suggest(
        traced,
        death.limit_bytes,
        death.batch,
        death.by_category,
        death.layers,
        death.mode,
        stage=death.stage,
        is_mixed=known.is_mixed,
    )
    shown = death.layers[:_SHOWN_LAYERS]
    return replace(death, suggestions=helps, layers=shown)


def _like_this(steps: Sequence[TracedStep], death: Death) -> ScaledStep | None:
    """The newest traced step of the same stage, scaled to this batch."""
    own = [step for step in steps if step.after is None and step.stage == death.stage]
    if not own:
        return None
    newest = own[-1]
    batch = death.batch or _rows_by_request(newest, death)
    return scaled(newest, batch, death.request.device)


def _rows_by_request(step: TracedStep, death: Death) -> int | None:
    """Rows of this batch, by the size that the same operation of the same layer asked for in the traced step."""
    asked, rows = death.request.num_bytes, step.batch_rows
    if asked is None or rows is None:
        return None
    sizes = np.unique(_alike(step.timelines.get(death.request.device, step.timeline), death)[1]).tolist()
    found = {asked * rows // size for size in sizes if size and asked * rows % size == 0}
    by_shape = found & set(death.request.shape[:1])
    return (by_shape or found).pop() if len(by_shape or found) == 1 else None


def _alike(timeline: Timeline, death: Death) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Births and sizes of what the operation that failed, or one of its name in its layer, made in a traced step."""
    ops = [index for index, op in enumerate(timeline.ops) if _is_same_op(op, death.request.op)]
    found = np.isin(timeline.op, ops) & (timeline.birth >= 0)
    if death.layer and "/" not in death.request.op:
        owner = Owner(death.layer, death.class_name)
        of_layer = [Owner(*pair) == owner for pair in zip(timeline.owners, timeline.classes, strict=True)]
        found &= np.array(of_layer, np.bool_)[timeline.owner]
    return timeline.birth[found], timeline.requested_bytes[found]


def _rows_by_outputs(outputs: Collection[tuple[int | None, ...]], shape: tuple[int, ...]) -> int | None:
    """Rows of this batch, if what was asked for has the shape of a layer's output for any batch."""
    for found in outputs:
        if len(found) == len(shape) > 1 and found[0] is None and found[1:] == shape[1:]:
            return shape[0]
    return None


def _is_same_op(name: str, op: str) -> bool:
    """Whether an event's name, which includes the calls around it, is that of an operation."""
    return bool(op) and (name == op or name.endswith(f"/{op}"))


def _of_traced(death: Death, traced: ScaledStep) -> Death:
    timeline = traced.timeline
    births, _ = _alike(timeline, death)
    total = requested_at(timeline)
    if len(births):
        # Without the request itself: the moment before.
        event = int(births[np.argmax(total[births])]) - 1
    else:
        over = np.flatnonzero(total * traced.slack > (death.limit_bytes or np.inf))
        event = (int(over[0]) if len(over) else int(np.argmax(total))) - 1
    return replace(
        death,
        batch=death.batch or traced.batch,
        mode=death.mode or traced.step.mode,
        by_category={name: size for name, size in by_category(timeline, event).items() if size},
        layers=tuple(row for row in by_layer(timeline, event) if row.class_name),
        figures_from=traced.words,
        peak_bytes=None if traced.batch is None else traced.peak_bytes,
    )


def _of_variables(death: Death, known: Known) -> Death:
    """No step was traced: the variables' sum and the batch are all that is known."""
    sums = {
        "weights": sum(row.weights_bytes or 0 for row in known.inventory),
        "optimizer": sum(row.optimizer_bytes or 0 for row in known.inventory),
        "other": sum(row.other_bytes or 0 for row in known.inventory),
        "inputs": known.input_bytes or 0,
    }
    held = [replace(row, total_bytes=(row.weights_bytes or 0) + (row.optimizer_bytes or 0)) for row in known.inventory]
    ranked = sorted((row for row in held if row.class_name), key=lambda row: -(row.total_bytes or 0))
    return replace(
        death,
        by_category={name: size for name, size in sums.items() if size},
        layers=tuple(ranked),
        figures_from="no step was traced yet: variables" + (" and the batch" if known.input_bytes else "") + " only",
    )
