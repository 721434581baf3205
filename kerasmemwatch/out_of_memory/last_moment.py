"""The moment of death from all that is known of it. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.steps.live_set import born_at, by_category, by_layer, requested_at
from kerasmemwatch.out_of_memory.failed_program import FailedProgram
from kerasmemwatch.out_of_memory.failing_layer import Asker
from kerasmemwatch.out_of_memory.scaled_step import ScaledStep, data_set_bytes, grows, scaled
from kerasmemwatch.out_of_memory.suggestions import Needs, suggest
from kerasmemwatch.records.death import Death
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.records.timeline import CATEGORIES, PHASES, Timeline, TracedStep

__all__ = ["Known", "last_moment"]

_SHOWN_LAYERS = 3
# What a training step holds at most, over its layers' outputs: from 2 (Transformers) to 5 (convolutions on a CPU).
_TRAINING_COPIES = 5
_VARIABLES = ("weights", "optimizer", "other")


@dataclass(frozen=True)
class Known:
    """What else is known of a step that died.

    Attributes:
        asker: Who asked for the memory; ``None`` if unknown.
        steps: The traced steps so far.
        inventory: The model's variables by layer.
        outputs: Shapes of the layers' outputs, ``None`` where a size depends on the batch.
        row_bytes: Bytes of all layers' outputs for a row of a batch; ``None`` if unknown.
        program: The XLA program that did not fit; ``None`` if none was found.
        is_mixed: Whether mixed precision is in use.
    """

    asker: Asker | None = None
    steps: Sequence[TracedStep] = ()
    inventory: Sequence[LayerMemory] = ()
    outputs: Collection[tuple[int | None, ...]] = ()
    row_bytes: int | None = None
    program: FailedProgram | None = None
    is_mixed: bool = False


def last_moment(death: Death, known: Known) -> Death:
    """Complete a death with who asked, what was alive, and what would help.

    Args:
        death: What the error and the step's own row tell.
        known: What else is known.
    """
    if known.asker is not None:
        owner, class_name, phase = known.asker.frame
        death = replace(death, layer=owner, class_name=class_name, phase=phase, layer_from=known.asker.known_from)
    traced, needs, data_bytes = _like_this(known.steps, death), None, 0
    if traced is not None and not death.layer and death.request.kind == "op":
        death = _named(death, traced)
    if known.program is not None:
        death, needs = _of_program(death, known.program, known)
    elif traced is not None:
        death, needs = _of_traced(death, traced)
        data_bytes = data_set_bytes(traced) if traced.timeline.device.startswith("GPU") else 0
    else:
        death, needs = _of_variables(death, known)
    is_rough = traced is None and known.program is None
    about = traced.batch if traced is not None and known.program is None else None
    asked = replace(death, batch=death.batch or about)
    helps = suggest(asked, needs, is_rough=is_rough, is_mixed=known.is_mixed, data_bytes=data_bytes)
    return replace(death, suggestions=helps, layers=death.layers[:_SHOWN_LAYERS])


# -- from a traced step ----------------------------------------------------------------------------------------


def _like_this(steps: Sequence[TracedStep], death: Death) -> ScaledStep | None:
    """The newest traced step of the same stage, scaled to this batch."""
    own = [step for step in steps if step.after is None and step.stage == death.stage]
    if not own:
        return None
    step, device = own[-1], death.request.device
    batch = death.batch or _rows_by_request(step, death)
    if batch is None and death.request.kind == "op" and (guess := _rows_by_use(step, death)):
        return replace(scaled(step, guess, device), is_guessed=True)
    return scaled(step, batch, device)


def _named(death: Death, traced: ScaledStep) -> Death:
    """Name the layer of an eager operation by the traced step: of equal requests, the first that would not have fitted.

    That is how the gradients of layers without variables are known.
    """
    timeline = traced.timeline
    births, sizes = _alike(timeline, death)
    births = births[sizes == death.request.num_bytes]
    if not len(births) or traced.batch is None:
        return death
    total, limit = requested_at(timeline) * traced.slack, death.limit_bytes or math.inf
    over = births[total[births + 1] > limit]
    nearest = int(over[0] if len(over) else births[np.argmax(total[births + 1])])
    index = born_at(timeline, nearest)
    if index is None:
        return death
    owner = timeline.owner[index]
    return replace(
        death, layer=timeline.owners[owner], class_name=timeline.classes[owner], layer_from="the traced step"
    )


def _rows_by_request(step: TracedStep, death: Death) -> int | None:
    """Rows of this batch, by the size that the same operation of the same layer asked for in the traced step."""
    asked, rows = death.request.num_bytes, step.batch_rows
    if asked is None or rows is None:
        return None
    sizes = np.unique(_alike(step.timelines.get(death.request.device, step.timeline), death)[1]).tolist()
    found = {asked * rows // size for size in sizes if size and asked * rows % size == 0}
    by_shape = found & set(death.request.shape[:1])
    return (by_shape or found).pop() if len(by_shape or found) == 1 else None


def _rows_by_use(step: TracedStep, death: Death) -> int | None:
    """About how many rows this batch had, by the bytes in use as the operation asked; ``None`` if they do not tell.

    The size of an operation's own workspace need not grow in step with the batch.
    """
    traced = scaled(step, None, death.request.device)
    timeline, rows = traced.timeline, step.batch_rows
    births, _ = _alike(timeline, death)
    if rows is None or death.in_use_bytes is None or not len(births):
        return None
    growing = np.where(grows(step, timeline), timeline.requested_bytes, 0)
    grown, total = requested_at(replace(timeline, requested_bytes=growing)), requested_at(timeline)
    moment = int(births[np.argmax(total[births])])
    per_row = int(grown[moment]) / rows
    left = death.in_use_bytes / traced.slack - int(total[moment] - grown[moment])
    guess = round(left / per_row) if per_row else 0
    return guess if guess > rows else None


def _alike(timeline: Timeline, death: Death) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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


def _of_traced(death: Death, traced: ScaledStep) -> tuple[Death, Needs | None]:
    timeline, is_scaled = traced.timeline, traced.batch is not None
    births, sizes = _alike(timeline, death)
    same = births[sizes == death.request.num_bytes]
    births = same if len(same) else births
    total = requested_at(timeline)
    if len(births):
        # The first that would not have fitted, else the highest; without the request itself: the moment before.
        over = births[total[births + 1] * traced.slack > (death.limit_bytes or math.inf)]
        event = int(over[0] if len(over) else births[np.argmax(total[births])]) - 1
    else:
        above = np.flatnonzero(total * traced.slack > (death.limit_bytes or math.inf))
        event = int(above[0]) - 2 if len(above) else int(np.argmax(total)) - 1
    event = max(event, -1)
    found = replace(
        death,
        batch=death.batch or (None if traced.is_guessed else traced.batch),
        mode=death.mode or traced.step.mode,
        by_category={name: size for name, size in by_category(timeline, event).items() if size},
        layers=tuple(row for row in by_layer(timeline, event) if row.class_name),
        figures_from=traced.words,
        peak_bytes=traced.peak_bytes if is_scaled else None,
    )
    step, device = traced.step, timeline.device
    return found, (lambda rows: scaled(step, rows, device).peak_bytes) if is_scaled else None


# -- from the program that did not fit -------------------------------------------------------------------------


def _of_program(death: Death, program: FailedProgram, known: Known) -> tuple[Death, Needs | None]:
    rows = program.by_owner()
    variables = {row.owner: row for row in known.inventory}
    held = _sums(known.inventory, _VARIABLES)
    block = _sums(rows, CATEGORIES)
    total = {name: held.get(name, 0) + block.get(name, 0) for name in dict.fromkeys((*block, *held))}
    layers = [
        replace(row, total_bytes=(row.total_bytes or 0) + _variables_bytes(variables.get(row.owner))) for row in rows
    ]
    batch = death.batch or _rows_by_shapes(known.outputs, program.shapes)
    size, fixed = program.block.bytes, sum(held.values())
    # What was in use besides, as the batch, grows with it.
    grows = size + max(0, (death.in_use_bytes or 0) - fixed)
    found = replace(
        death,
        request=replace(death.request, num_bytes=size, rounded="", op=program.module.name),
        batch=batch,
        mode="xla",
        by_category=total,
        layers=tuple(row for row in layers if row.class_name),
        figures_from="XLA's plan of the block's fullest moment, and the variables",
        peak_bytes=fixed + grows,
    )
    return found, None if batch is None else lambda rows: fixed + math.ceil(grows * rows / batch)


def _rows_by_shapes(outputs: Collection[tuple[int | None, ...]], shapes: Collection[tuple[int, ...]]) -> int | None:
    """Rows of the batch by the shapes that are a layer's output for any batch; the larger ones count more."""
    found: Counter[int] = Counter()
    for shape in shapes:
        rows = _rows_by_outputs(outputs, shape)
        if rows is not None:
            found[rows] += math.prod(shape)
    return max(found, key=found.__getitem__, default=None)


def _rows_by_outputs(outputs: Collection[tuple[int | None, ...]], shape: tuple[int, ...]) -> int | None:
    """Rows of a tensor's batch, if it has the shape of a layer's output for any batch."""
    # A function that was traced for one batch has its rows in all outputs.
    fixed = {found[0] for found in outputs if found}
    for found in outputs:
        is_for_any = found[:1] == (None,) or (len(fixed) == 1 and found[:1] == shape[:1])
        if is_for_any and len(found) == len(shape) > 1 and found[1:] == shape[1:]:
            return shape[0]
    return None


# -- from the variables ----------------------------------------------------------------------------------------


def _of_variables(death: Death, known: Known) -> tuple[Death, Needs | None]:
    """No step was traced: the variables' sum is all that is known, and the sizes of layers' outputs."""
    held = [replace(row, total_bytes=_variables_bytes(row)) for row in known.inventory]
    found = replace(
        death,
        batch=death.batch or _rows_by_outputs(known.outputs, death.request.shape),
        by_category=_sums(known.inventory, _VARIABLES),
        layers=tuple(sorted((row for row in held if row.class_name), key=lambda row: -(row.total_bytes or 0))),
        figures_from="no step was traced yet: variables only",
    )
    row_bytes, training = known.row_bytes, death.stage == "train"
    if not row_bytes:
        return found, None
    fixed = sum(found.by_category.values()) + training * found.by_category.get("weights", 0)  # as many gradients
    each = row_bytes * (_TRAINING_COPIES if training else 1)
    return found, lambda rows: fixed + rows * each


def _variables_bytes(row: LayerMemory | None) -> int:
    return 0 if row is None else (row.weights_bytes or 0) + (row.optimizer_bytes or 0) + (row.other_bytes or 0)


def _sums(rows: Sequence[LayerMemory], names: Collection[str]) -> dict[str, int]:
    """Bytes of each category over some rows, without those that hold none."""
    found = {name: sum(getattr(row, f"{name}_bytes") or 0 for row in rows) for name in names}
    return {name: size for name, size in found.items() if size}
