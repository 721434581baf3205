"""What a watcher does when a step has run out of memory: a record, a report beside it, and a note on the exception.

The exception itself stays as it is. Nothing here runs unless a step has failed.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from kerasmemwatch.analysis.death_words import death_note
from kerasmemwatch.attribution.hooks.layer_hooks import execution_mode
from kerasmemwatch.attribution.live.batch_spec import Spec, row_bytes
from kerasmemwatch.attribution.live.live_buffers import variable_buffers
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer
from kerasmemwatch.attribution.variables.watched import Watched
from kerasmemwatch.faults import Faults
from kerasmemwatch.out_of_memory.error_text import read_error
from kerasmemwatch.out_of_memory.failed_program import find_program
from kerasmemwatch.out_of_memory.failing_layer import Asker, by_op_name, by_traceback, rows_given
from kerasmemwatch.out_of_memory.last_moment import Known, last_moment
from kerasmemwatch.out_of_memory.tries import Kind, Tries, kind_of
from kerasmemwatch.recording import Recording
from kerasmemwatch.records.death import Death, Request
from kerasmemwatch.records.recorded import Recorded
from kerasmemwatch.records.rows import Layout, column_indices
from kerasmemwatch.records.run import STAGES
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.tracing.controller import Tracing

__all__ = ["PAGE", "may_have_survived", "note_death", "note_survival"]

PAGE = "out-of-memory.html"
_FIRST_WORD = "kerasmemwatch:"
# Seconds that the exception waits for traced steps to be analysed, and for the page.
_STEPS_S, _PAGE_S = 0.8, 0.8
T = TypeVar("T")

_tries = Tries()
# Recorders that other watches' tries have been looked up for.
_looked_up: weakref.WeakSet[Recorder] = weakref.WeakSet()


def note_death(
    error: BaseException, recorder: Recorder, tracing: Tracing | None, model: Any = None, batch: int | None = None
) -> bool:
    """Record a step's death if it was for lack of memory, and add a note to the exception.

    Args:
        error: What left the step; its row is written.
        recorder: The recorder of the step.
        tracing: What knows the layers of operations; ``None`` if nothing is traced.
        model: The model that ran the step; ``None`` in a loop of the user's.
        batch: Rows of the batch, if known.

    Returns:
        Whether it was for lack of memory.
    """
    with recorder.faults.guard("out of memory", "The exception has no note."):
        request = read_error(str(error), type(error).__name__)
        if request is not None:
            _note(error, request, recorder, tracing, model, batch)
            return True
    return False


def _note(
    error: BaseException, request: Request, recorder: Recorder, tracing: Tracing | None, model: Any, batch: int | None
) -> None:
    """Each part by itself: the host may be short of memory, too, and the note needs the least."""
    faults, where = recorder.faults, ""
    with faults.guard("out of memory", "The batch's rows are unknown."):
        batch = rows_given(error) if batch is None else batch
    death = _first_words(error, request, recorder, model, batch)
    with faults.guard("out of memory", "What was alive is unknown."):
        death = _completed(death, error, recorder, tracing, model)
    with faults.guard("out of memory", "Tries with other watches are not recorded."):
        _adopt(recorder, kind := _kind(recorder, death.stage))
        if kind is not None:
            _tries.add(kind, recorder.run.name, death)
    with faults.guard("out of memory", "The step's death is not recorded."):
        recorder.add_death(death)
    with faults.guard("out of memory", "There is no page about it."):
        page = where = _page_path(recorder)
        # What takes longer is there once the process has ended.
        if page and _within(_PAGE_S, lambda: _write_page(recorder, page)) is False:
            where = os.path.dirname(page)
    with faults.guard("out of memory", "The exception has no note."):
        if not any(str(note).startswith(_FIRST_WORD) for note in getattr(error, "__notes__", ())):
            error.add_note(death_note(death, where))


def may_have_survived(recorder: Recorder) -> bool:
    """Whether a loop that has ended, or a step of a user's loop, may be what fitted at last."""
    return recorder.has_died or (bool(_tries) and recorder not in _looked_up)


def note_survival(recorder: Recorder, batch: int | None = None) -> None:
    """Record that a loop ended, or a step of a user's loop, after one had run out of memory, also with another watch.

    Args:
        recorder: Its recorder.
        batch: Rows of its batches, if known.
    """
    with recorder.faults.guard("out of memory", "What fitted afterwards is not recorded."):
        kind = _kind(recorder, recorder.stage)
        if kind is not None:
            _looked_up.add(recorder)
        if not recorder.has_died:
            _adopt(recorder, kind)
        deaths = recorder.run.deaths
        if recorder.has_died and deaths[-1].stage == recorder.stage:
            recorder.replace_deaths((*deaths[:-1], replace(deaths[-1], followed=True, fitted_batch=batch)))
            if kind is not None:
                _tries.settle(kind)


def _kind(recorder: Recorder, stage: str) -> Kind | None:
    directory = recorder.directory
    return kind_of(None if directory is None else os.path.dirname(directory), stage, recorder.layers)


def _adopt(recorder: Recorder, kind: Kind | None) -> None:
    """Have a run record the tries of the same kind that were with other watches, before its own."""
    own = recorder.run.deaths
    others = () if kind is None else _tries.of_others(kind, recorder.run.name)
    if new := tuple(death for death in others if death not in own):
        recorder.replace_deaths((*own, *new))


def _first_words(error: BaseException, request: Request, recorder: Recorder, model: Any, batch: int | None) -> Death:
    """What the error and the step's row tell."""
    layout, rows = recorder.newest(1)
    row = rows[-1] if len(rows) else ()
    value = _values(layout, row)
    devices = recorder.run.devices
    names = [device.name for device in devices]
    index = names.index(request.device) if request.device in names else 0
    counts_all = bool(devices) and devices[index].counting == "exact"
    if request.kind == "host":
        in_use, limit = value("host_rss_bytes"), recorder.run.host.get("limit_bytes")
    else:
        in_use = value("device_peak_bytes", index) if counts_all else None
        limit = devices[index].limit_bytes if devices else None
    epoch = value("epoch")
    return Death(
        step=int(value("step") or recorder.step),
        stage=STAGES[int(value("stage") or 0)],
        epoch=None if epoch is None else int(epoch),
        error=type(error).__name__,
        request=replace(request, device=request.device or (names[index] if names and request.kind != "host" else "")),
        mode="" if model is None else execution_mode(model),
        batch=batch,
        in_use_bytes=_whole(in_use),
        limit_bytes=limit,
    )


def _values(layout: Layout, row: Sequence[float]) -> Any:
    def value(name: str, index: int = 0) -> float | None:
        found = column_indices(layout, [name]).get(name, [])
        number = float(row[found[index]]) if index < len(found) and len(row) else float("nan")
        return None if number != number else number

    return value


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _completed(death: Death, error: BaseException, recorder: Recorder, tracing: Tracing | None, model: Any) -> Death:
    """Add who asked, and what was alive."""
    watched = Watched() if tracing is None else tracing.watched
    if model is not None:
        watched.add_model(model)
    layers = watched.layers()
    owners = OpOwners({} if tracing is None else tracing.stack.ops(death.stage))
    optimizers = tuple(str(optimizer.name) for optimizer in watched.optimizers())
    classes = {layer.path: type(layer.layer).__name__ for layer in layers}
    paths = {id(layer.layer): (layer.path, type(layer.layer).__name__) for layer in layers}
    snapshot = _within(_STEPS_S, lambda: _snapshot(recorder))
    addresses = {}
    if "/" not in death.request.op:  # an eager operation's name tells no layer
        buffers = variable_buffers(watched.ledger())
        addresses = {each.address: (each.owner, each.class_name) for each in buffers if each.address}
    asker = _asker(death, error, owners, classes, optimizers, paths, addresses)
    program = None
    if death.request.kind == "program":
        with recorder.faults.guard("out of memory", "What the program's block would have held is unknown."):
            program = find_program(death.request, owners, _gradients(watched) if death.stage == "train" else ())
    is_mixed = any(getattr(layer.layer, "compute_dtype", "") in ("float16", "bfloat16") for layer in layers)
    noted = {} if tracing is None else tracing.stack.outputs
    specs = [spec for (stage, _), found in noted.items() if stage == death.stage for spec in found]
    shapes = {shape for shape, _ in specs}
    if not shapes:  # no hook was in place when the step's function was made
        shapes = {shape for layer in layers for shape in _symbolic_shapes(layer.layer, recorder.faults)}
    steps = () if snapshot is None else snapshot.steps
    inputs = row_bytes(_input_specs(model, recorder.faults))
    known = Known(asker, steps, recorder.layers, shapes, inputs, row_bytes(specs), program, is_mixed=is_mixed)
    return last_moment(death, known)


def _asker(
    death: Death,
    error: BaseException,
    owners: OpOwners,
    classes: Mapping[str, str],
    optimizers: Sequence[str],
    paths: Mapping[int, tuple[str, str]],
    addresses: Mapping[int, tuple[str, str]],
) -> Asker | None:
    request = death.request
    if request.kind != "op":
        return None
    found = by_op_name(request.op, owners, classes, optimizers) if "/" in request.op else None
    return found or by_traceback(error, paths, addresses)


def _gradients(watched: Watched) -> list[GradientBuffer]:
    """The gradients of layers' variables, each as large as its variable."""
    return [
        GradientBuffer(memory.owner, memory.class_name, memory.bytes, number)
        for number, (memory, variable) in enumerate(watched.ledger().variables())
        if memory.category == "weights" and getattr(variable, "trainable", False)
    ]


def _symbolic_shapes(layer: Any, faults: Faults) -> list[tuple[int | None, ...]]:
    """The shape of a layer's output in a functional model, if it has one."""
    with faults.guard("out of memory", "Shapes of some layers' outputs are unknown."):
        try:
            return [tuple(layer.output.shape)]
        except (AttributeError, ValueError):  # not called yet, or with several outputs
            pass
    return []


def _input_specs(model: Any, faults: Faults) -> list[Spec]:
    """Shape and bytes of an item of each input of a functional model."""
    with faults.guard("out of memory", "Shapes of the model's inputs are unknown."):
        try:
            return [(tuple(each.shape), np.dtype(each.dtype).itemsize) for each in model.inputs]
        except (AttributeError, TypeError):  # another model, or a type that numpy does not have
            pass
    return []


def _snapshot(recorder: Recorder) -> Recorded | None:
    with recorder.faults.guard("out of memory", "What was alive in traced steps is unknown."):
        return recorder.snapshot()
    return None


def _page_path(recorder: Recorder) -> str:
    """Path of the page in the run's directory; ``""`` if it has none."""
    return "" if recorder.directory is None else os.path.join(recorder.directory, PAGE)


def _write_page(recorder: Recorder, path: str) -> bool:
    with recorder.faults.guard("out of memory", "There is no page about it."):
        snapshot = recorder.snapshot()
        Recording(snapshot.run, snapshot.samples, snapshot.layers, snapshot.steps).report.to_html(path)
        return True
    return False


def _within(seconds: float, call: Callable[[], T]) -> T | None:
    """What a call returns if it takes no longer; else ``None``, and it ends in its own time, before the process does.

    A step that is still being analysed, or a page of a very large model, must not hold up the exception.
    """
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(call()), name="kerasmemwatch-last-words")
    try:
        thread.start()
    except RuntimeError:  # no memory for a thread
        return call()
    thread.join(seconds)
    return found[0] if found else None
