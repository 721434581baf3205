"""Merging of several workers' recordings: which ones belong together, and what they give. Pure, numpy only.

Workers that train together run the same steps, so rows of the same ``step`` belong together. A run continued by
another process counts on from its own last step, so workers that were killed a step apart stay a step apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.environment import WORKER_TYPES
from kerasmemwatch.records.death import Death
from kerasmemwatch.records.recorded import Recorded
from kerasmemwatch.records.rows import ENDED, as_ended
from kerasmemwatch.records.run import DeviceInfo, RunInfo, WorkerInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.records.timeline import TracedStep

__all__ = ["absences", "gather", "group_name", "merge"]

# The first worker's value of these columns stands for all.
_TAKEN = ("train_step", "epoch", "stage", "call", "model")


_R = TypeVar("_R", bound=Recorded)


def group_name(run: RunInfo) -> str:
    """The common part of the workers' run names."""
    return run.name.removesuffix(run.worker.suffix) if run.worker else run.name


def gather(
    chosen: _R, others: Iterable[tuple[RunInfo, Callable[[], _R]]]
) -> tuple[tuple[_R, ...], tuple[RunInfo, ...]]:
    """Find the other workers' recordings of the training that one worker's run recorded.

    For each other worker of the same cluster, that is the newest run recorded at the same time. A run of the same
    ``group_name`` takes precedence, because one training may have two watches.

    Args:
        others: Runs of the log dir, and how to read each; read one by one, and only where needed.

    Returns:
        One run per worker, in order of the workers; and, newest first, the runs recorded at the same time but left
        out, such as those of a worker before it was restarted.
    """
    worker = chosen.run.worker
    if worker is None:
        return (chosen,), ()
    begin, end = _span(chosen)
    found: list[_R] = []
    unread: list[RunInfo] = []
    done: set[str] = set()
    for run, read in sorted(others, key=lambda other: -other[0].created):
        other = run.worker
        if other is None or other.cluster != worker.cluster:
            continue
        if other.name in done:
            unread.append(run)
            continue
        recording = read()
        found.append(recording)
        if _span(recording)[1] < begin:
            done.add(other.name)  # its earlier runs ended even earlier
    members = {worker.name: chosen}
    for recording in sorted(found, key=lambda one: (group_name(one.run) == group_name(chosen.run), one.run.created)):
        first, last = _span(recording)
        if _worker(recording).name != worker.name and first <= end and last >= begin:
            members[_worker(recording).name] = recording
    kept = sorted(members.values(), key=lambda one: _order(_worker(one)))
    spans = [_span(one) for one in kept]
    left_out = [
        one.run
        for one in found
        if not any(one is member for member in kept)
        and any(_span(one)[0] <= last and _span(one)[1] >= first for first, last in spans)
    ]
    earliest = min(first for first, _ in spans)
    return tuple(kept), (*left_out, *(run for run in unread if run.created >= earliest))


def merge(recordings: Sequence[Recorded]) -> Recorded:
    """Join several workers' recordings of one training.

    There is a row for each ``step`` of any worker. Device columns are put side by side, each device named after its
    worker; values that a worker did not record are unknown. Other columns have the maximum over the workers: their
    processes may be on different machines, so a sum would describe no machine.

    The layers are the first worker's, because variables are mirrored.
    """
    names = [_worker(recording).name for recording in recordings]
    steps = [_named(step, name) for name, recording in zip(names, recordings, strict=True) for step in recording.steps]
    steps.sort(key=lambda step: step.step)
    return Recorded(_run(names, recordings), _samples(recordings), recordings[0].layers, tuple(steps))


def _named(step: TracedStep, worker: str) -> TracedStep:
    """The step with its devices named after its worker."""
    head, *others = (replace(each, device=f"{worker}/{each.device}") for each in (step.timeline, *step.others))
    return replace(step, timeline=head, others=tuple(others))


def absences(recordings: Sequence[Recorded], left_out: Sequence[RunInfo]) -> tuple[str, ...]:
    """Notes on what is missing from a recording of several workers."""
    notes = [f"Left out: {run.name!r}, another run at that time; load it by its name." for run in left_out]
    names = [_worker(recording).name for recording in recordings]
    count = _worker(recordings[0]).count
    if len(names) < count:
        missing = count - len(names)
        notes.append(
            f"{missing} of {count} workers left no recording of this training here; it has {', '.join(names)}."
        )
    return tuple(notes)


def _worker(recording: Recorded) -> WorkerInfo:
    worker = recording.run.worker
    assert worker is not None
    return worker


def _order(worker: WorkerInfo) -> tuple[int, str, int]:
    known = worker.type in WORKER_TYPES
    return (WORKER_TYPES.index(worker.type) if known else len(WORKER_TYPES), worker.type, worker.index)


def _span(recording: Recorded) -> tuple[float, float]:
    """Times at which a run began and its last row was sampled."""
    created = recording.run.created
    times = recording.samples["time_s"]
    return created, float(np.fmax.reduce(times, initial=created))


def _run(names: Sequence[str], recordings: Sequence[Recorded]) -> RunInfo:
    runs = [recording.run for recording in recordings]
    first = runs[0]
    named = list(zip(names, runs, strict=True))
    every = [run.configuration.get("sample_every", 1) for run in runs]
    resets = [run.configuration.get("reset_peak", True) for run in runs]
    return replace(
        first,
        name=group_name(first),
        devices=tuple(
            replace(device, name=f"{name}/{device.name}")
            for name, recording in zip(names, recordings, strict=True)
            for device in _devices(recording)
        ),
        # A row's peak covers the same steps in all columns only if it does so for all workers.
        configuration={**first.configuration, "sample_every": max(every), "reset_peak": all(resets)},
        drivers=tuple(
            {**driver, "name": f"{name}/{driver.get('name') or 'GPU'}"} for name, run in named for driver in run.drivers
        ),
        notes=_notes(named),
        worker=None,
        deaths=_deaths(named),
        ending="",
        leaks=tuple(leak for _, run in named for leak in run.leaks),
    )


def _devices(recording: Recorded) -> tuple[DeviceInfo, ...]:
    """A worker's devices, one for each of its columns; a resumed run may have had more earlier."""
    known = recording.run.devices
    count = _width(recording, "device_peak_bytes")
    remedy = "Its earlier process had this allocator, and did not leave a description of it."
    return known + tuple(DeviceInfo(f"device:{i}", "partial", remedy=remedy) for i in range(len(known), count))


def _deaths(named: Sequence[tuple[str, RunInfo]]) -> tuple[Death, ...]:
    """All workers' deaths in the order of their steps, with the worker's device."""
    found = [
        replace(death, request=replace(death.request, device=f"{name}/{death.request.device}"))
        for name, run in named
        for death in run.deaths
    ]
    return tuple(sorted(found, key=lambda death: death.step))


def _notes(named: Sequence[tuple[str, RunInfo]]) -> tuple[str, ...]:
    """All notes, prefixed with the worker; a note that all workers share appears once."""
    shared = [note for note in named[0][1].notes if all(note in run.notes for _, run in named)]
    return (*shared, *(f"{name}: {note}" for name, run in named for note in run.notes if note not in shared))


def _samples(recordings: Sequence[Recorded]) -> Samples:
    parts = [recording.samples for recording in recordings]
    steps = np.unique(np.concatenate([part["step"] for part in parts]))
    rows = [np.searchsorted(steps, part["step"]) for part in parts]
    columns: dict[str, NDArray[Any]] = {"step": steps}
    for name in dict.fromkeys(name for part in parts for name in part if name != "step"):
        blocks = [part.get(name) for part in parts]
        if name in _TAKEN:
            columns[name] = _taken(blocks, rows, len(steps))
            continue
        is_wide = any(block is not None and block.ndim == 2 for block in blocks)
        widths = [_width(recording, name) if is_wide else 1 for recording in recordings]
        spread = [_spread(*block, len(steps)) for block in zip(blocks, rows, widths, strict=True)]
        if name == ENDED.name:
            columns[name] = as_ended(np.fmin.reduce(spread)[:, 0])  # a step that died in one worker did not end
            continue
        joined = np.concatenate(spread, axis=1) if is_wide else np.fmax.reduce(spread)[:, 0]
        columns[name] = _typed(joined, name, blocks)
    return Samples(columns)


def _width(recording: Recorded, name: str) -> int:
    """Number of values that a worker has in a column: one per device, even before its first sample."""
    block = recording.samples.get(name)
    width = 0 if block is None else 1 if block.ndim == 1 else block.shape[1]
    described = {"device": len(recording.run.devices), "nvml": len(recording.run.drivers)}
    return max(width, described.get(name.partition("_")[0], 0))


def _taken(blocks: Sequence[NDArray[Any] | None], rows: Sequence[NDArray[np.intp]], count: int) -> NDArray[Any]:
    """For each row, the value of the first worker that has it."""
    known = [(block, row) for block, row in zip(blocks, rows, strict=True) if block is not None]
    taken = np.zeros(count, np.result_type(*(block.dtype for block, _ in known)))
    for block, row in reversed(known):
        taken[row] = block
    return taken


def _spread(block: NDArray[Any] | None, rows: NDArray[np.intp], width: int, count: int) -> NDArray[np.float64]:
    spread = np.full((count, width), np.nan)
    if block is not None:
        values = block[:, None] if block.ndim == 1 else block
        spread[rows, : values.shape[1]] = values
    return spread


def _typed(values: NDArray[np.float64], name: str, blocks: Iterable[NDArray[Any] | None]) -> NDArray[Any]:
    """Convert whole numbers to integers where all are known."""
    is_whole = name.endswith("_bytes") or any(block is not None and block.dtype.kind == "i" for block in blocks)
    return values.astype(np.int64) if is_whole and np.isfinite(values).all() else values
