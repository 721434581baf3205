"""The moment of death from all that is known of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kerasmemwatch.analysis.steps.live_set import born_at, by_category, by_layer, requested_at
from kerasmemwatch.out_of_memory.batch_rows import (
    alike,
    rows_by_outputs,
    rows_by_request,
    rows_by_shapes,
    rows_by_use,
    rows_traced,
)
from kerasmemwatch.out_of_memory.failed_program import FailedProgram
from kerasmemwatch.out_of_memory.failing_layer import Asker
from kerasmemwatch.out_of_memory.scaled_step import ScaledStep, data_set_bytes, scaled
from kerasmemwatch.out_of_memory.suggestions import Needs, suggest
from kerasmemwatch.records.categories import CATEGORIES, OF_VARIABLES
from kerasmemwatch.records.death import Death
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.timeline import TracedStep

__all__ = ["Known", "last_moment"]

_SHOWN_LAYERS = 3
# What a training step holds at most, over its layers' outputs: from 2 (Transformers) to 5 (convolutions on a CPU).
_TRAINING_COPIES = 5
# A traced step that was scaled may differ by this share from what was measured.
_DOUBT = 0.25


@dataclass(frozen=True)
class Known:
    """What else is known of a step that died.

    Attributes:
        asker: Who asked for the memory; ``None`` if unknown.
        steps: The traced steps so far.
        inventory: The model's variables by layer.
        outputs: Shapes of the layers' outputs, ``None`` where a size depends on the batch.
        input_row_bytes: Bytes of the model's inputs for a row of a batch; ``None`` if unknown.
        row_bytes: Bytes of all layers' outputs for a row of a batch; ``None`` if unknown.
        program: The XLA program that did not fit; ``None`` if none was found.
        is_mixed: Whether mixed precision is in use.
    """

    asker: Asker | None = None
    steps: Sequence[TracedStep] = ()
    inventory: Sequence[LayerMemory] = ()
    outputs: Collection[tuple[int | None, ...]] = ()
    input_row_bytes: int | None = None
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
    if step.batch_rows is None:
        step = replace(step, batch_rows=rows_traced(step, death))
    batch = death.batch or rows_by_request(step, death)
    if batch is None and death.request.kind == "op" and (guess := rows_by_use(step, death)):
        return replace(scaled(step, guess, device), is_guessed=True)
    return scaled(step, batch, device)


def _named(death: Death, traced: ScaledStep) -> Death:
    """Name the layer of an eager operation by the traced step: of equal requests, the first that would not have fitted.

    That is how the gradients of layers without variables are known.
    """
    timeline = traced.timeline
    births, sizes = alike(timeline, death)
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


def _of_traced(death: Death, traced: ScaledStep) -> tuple[Death, Needs | None]:
    timeline, is_scaled = traced.timeline, traced.batch is not None
    births, sizes = alike(timeline, death)
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
        free_then_bytes=_free_then(death, traced, event) if len(births) and is_scaled else None,
    )
    step, device = traced.step, timeline.device
    return found, (lambda rows: scaled(step, rows, device).peak_bytes) if is_scaled else None


def _free_then(death: Death, traced: ScaledStep, event: int) -> int | None:
    """What was free after an event of the traced step; ``None`` if that step does not fit what was measured."""
    in_use = requested_at(traced.timeline)[: event + 2] * traced.slack
    highest, measured = float(in_use.max()), death.in_use_bytes
    is_like = measured is None or abs(highest - measured) <= _DOUBT * measured
    if death.limit_bytes is None or traced.is_guessed or not is_like:
        return None
    return max(0, death.limit_bytes - round(float(in_use[-1])))


# -- from the program that did not fit -------------------------------------------------------------------------


def _of_program(death: Death, program: FailedProgram, known: Known) -> tuple[Death, Needs | None]:
    rows = program.by_owner()
    variables = {row.owner: row.known_variables_bytes for row in known.inventory}
    held = _sums(known.inventory, OF_VARIABLES)
    block = _sums(rows, CATEGORIES)
    total = {name: held.get(name, 0) + block.get(name, 0) for name in dict.fromkeys((*block, *held))}
    layers = [replace(row, total_bytes=(row.total_bytes or 0) + variables.get(row.owner, 0)) for row in rows]
    batch = death.batch or rows_by_shapes(known.outputs, program.shapes)
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


# -- from the variables ----------------------------------------------------------------------------------------


def _of_variables(death: Death, known: Known) -> tuple[Death, Needs | None]:
    """No step was traced: the variables' sum is all that is known, and the sizes of layers' outputs."""
    held = [replace(row, total_bytes=row.known_variables_bytes) for row in known.inventory]
    batch = death.batch or rows_by_outputs(known.outputs, death.request.shape)
    variables, inputs = _sums(known.inventory, OF_VARIABLES), (batch or 0) * (known.input_row_bytes or 0)
    found = replace(
        death,
        batch=batch,
        by_category={**variables, "inputs": inputs} if inputs else variables,
        layers=tuple(sorted((row for row in held if row.class_name), key=lambda row: -(row.total_bytes or 0))),
        figures_from=f"variables {'and inputs ' if inputs else ''}only; no step was traced yet",
    )
    row_bytes, training = known.row_bytes, death.stage == "train"
    if not row_bytes:
        return found, None
    fixed = sum(variables.values()) + training * variables.get("weights", 0)  # as many gradients
    each = row_bytes * (_TRAINING_COPIES if training else 1)
    return found, lambda rows: fixed + rows * each


def _sums(rows: Sequence[LayerMemory], names: Collection[str]) -> dict[str, int]:
    """Bytes of each category over some rows, without those that hold none."""
    found = {name: sum(getattr(row, f"{name}_bytes") or 0 for row in rows) for name in names}
    return {name: size for name, size in found.items() if size}
