"""Attribution of one captured step: reads the capture, and notes the uncertainties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.device_attribution import StepFacts, attributed_device
from kerasmemwatch.attribution.events.allocation_events import AllocationEvents, read_events
from kerasmemwatch.attribution.events.allocators_by_device import by_device, is_partial
from kerasmemwatch.attribution.function_constants import Kept
from kerasmemwatch.attribution.hook_notes import HookNotes, hook_notes
from kerasmemwatch.attribution.hooks.other_fits import BESIDE
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.live.batch_spec import output_bytes, rows_by_outputs, rows_in_batch
from kerasmemwatch.attribution.live.data_on_gpu import data_on_gpu
from kerasmemwatch.attribution.owners.call_spans import call_spans, named_by_calls
from kerasmemwatch.attribution.owners.name_scopes import frames_by_name
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.silent_allocators import planned_note, silent_device
from kerasmemwatch.attribution.step_mode import mode_of_calls
from kerasmemwatch.attribution.step_notes import coverage_notes, hookless_note
from kerasmemwatch.attribution.xla.planned_events import nowhere, planned_events
from kerasmemwatch.attribution.xla.program_memory import XlaModule
from kerasmemwatch.attribution.xla.program_runs import Programs, XlaRun, find_runs
from kerasmemwatch.compat.tensorflow import CREATE_OPERATION, XPLANE
from kerasmemwatch.probes.allocators import ONEDNN_THRESHOLD_BYTES
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep

__all__ = ["AnalysisCache", "analysed", "attributed"]


class AnalysisCache:
    """Results of analysing one step that the next analysis reuses."""

    def __init__(self) -> None:
        self.programs = Programs()  # compiled programs
        self._owners: dict[str, tuple[int, OpOwners]] = {}

    def owners(self, stack: OwnerStack, stage: str) -> OpOwners:
        """Return the owner of each operation; computed again only if operations were made since."""
        made = stack.num_operations
        if stage not in self._owners or self._owners[stage][0] != made:
            self._owners[stage] = made, OpOwners(stack.ops(stage))
        return self._owners[stage][1]


def analysed(
    captured: CapturedStep, stack: OwnerStack, cache: AnalysisCache, kept: Sequence[Kept] = ()
) -> TracedStep | None:
    """Attribute a captured step's memory.

    Args:
        cache: Results from earlier steps; this step's results are added.

    Returns:
        The traced step; ``None`` if the capture has no allocation of the device that the step ran on, as with a silent
        allocator.
    """
    notes = hook_notes(captured, stack, cache.owners(stack, captured.stage))
    return attributed(captured, notes, cache.programs, kept)


def attributed(
    captured: CapturedStep, noted: HookNotes, programs: Programs, kept: Sequence[Kept] = ()
) -> TracedStep | None:
    """Attribute a captured step's memory from values alone, which may come from a file.

    Args:
        programs: Compiled programs of earlier steps; this step's programs are added.
    """
    space = XPLANE.get().FromString(captured.space)
    if _shows_programs(captured):
        programs.read(space)
    silent, allocators = _allocators(space, programs, captured)
    if not allocators:
        return None
    events = by_device(allocators)
    main = next(iter(events.values()))
    runs = _runs(space, programs, captured, events)
    modules = programs.opened({run.program_id for found in runs.values() for run in found})
    is_compiled = any(runs.values())
    mode = captured.mode or mode_of_calls(main, captured)
    is_eager = mode == "eager" and not is_compiled and captured.after is None
    owners, guessed = (noted.owners, False) if is_eager else _owners(captured, noted.owners, main, modules.values())
    if is_compiled and mode != "xla":
        events = {
            device: _named(space, noted, owners, each, runs.get(device, ()), modules) for device, each in events.items()
        }
    facts = StepFacts(captured, noted, kept, owners, modules, guessed=guessed)
    found = {device: attributed_device(facts, device, each, runs.get(device, ())) for device, each in events.items()}
    first, *others = found.values()
    rows = captured.rows
    if rows is None:
        by_outputs = rows_by_outputs(noted.outputs, _forward_sizes(first.timeline))
        rows = rows_in_batch(captured.batch, main, by_outputs)
    notes = (
        planned_note(silent) if silent else "",
        *coverage_notes(events.values()),
        *(note for each in found.values() for note in each.notes),
        data_on_gpu(captured.known, captured.batch, rows),
        hookless_note(captured) if guessed and not CREATE_OPERATION.is_missing else "",
        BESIDE if captured.beside else "",
        *noted.missing,
    )
    return TracedStep(
        step=captured.step,
        stage=captured.stage,
        epoch=captured.epoch,
        time_s=captured.begun_ns / 1e9,
        mode="xla" if first.is_compiled and not captured.mode else mode,
        reason=captured.reason,
        timeline=nowhere(first.timeline) if silent else first.timeline,
        gradient_bytes=first.gradient_bytes,
        output_bytes=output_bytes(noted.outputs, rows),
        notes=tuple(dict.fromkeys(filter(None, notes))),
        others=tuple(replace(each.timeline, gradient_bytes=each.gradient_bytes) for each in others),
        batch_rows=rows,
        batch_bytes=max((part.bytes * (rows or 1 if part.per_row else 1) for part in captured.batch), default=None),
    )


def _forward_sizes(timeline: Timeline) -> dict[str, set[int]]:
    """By layer path, the sizes of what its forward pass allocated."""
    found: dict[str, set[int]] = {}
    made = np.flatnonzero((timeline.birth >= 0) & (timeline.phase == PHASES.index("forward")))
    pairs = np.unique(np.stack([timeline.owner[made], timeline.requested_bytes[made]]), axis=1)
    for owner, size in pairs.T.tolist():
        found.setdefault(timeline.owners[owner], set()).add(size)
    return found


def _shows_programs(captured: CapturedStep) -> bool:
    """Whether compiled programs are opened: in a gap, a program belongs to the callback whose turn it was."""
    return captured.after is None or captured.mode in ("xla", "")


def _allocators(space: Any, programs: Programs, captured: CapturedStep) -> tuple[str, list[AllocationEvents]]:
    """Return the device of the step whose allocator is silent, if any, and the step's allocations."""
    allocators = list(read_events(space).values())
    silent = silent_device(captured.known, [each.device for each in allocators])
    if not silent:
        return "", allocators
    if captured.after is not None:
        return silent, []  # a plan belongs to a step
    # Allocations of another device cannot stand in for this one's.
    planned = _planned(space, silent, programs, captured)
    return silent, [] if planned is None else [planned, *allocators]


def _runs(
    space: Any, programs: Programs, captured: CapturedStep, events: Mapping[str, AllocationEvents]
) -> dict[str, list[XlaRun]]:
    """Return the runs of compiled programs, by device."""
    if not _shows_programs(captured):
        return {}
    main = next(iter(events.values()))
    # A GPU's programs do not run on the host.
    return {
        device: find_runs(space, each, programs.requests, ONEDNN_THRESHOLD_BYTES if is_partial(each) else 0)
        for device, each in events.items()
        if each.on_host == main.on_host
    }


def _planned(space: Any, device: str, programs: Programs, captured: CapturedStep) -> AllocationEvents | None:
    """Return events from the plan of a step that is compiled as a whole, if its device's allocator is silent."""
    if captured.mode != "xla":
        return None
    known = [buffer for buffer in captured.known if buffer.device == device]
    return planned_events(space, device, programs.requests, known, captured.batch)


def _named(
    space: Any,
    noted: HookNotes,
    owners: OpOwners,
    events: AllocationEvents,
    runs: Sequence[XlaRun],
    modules: Mapping[int, XlaModule],
) -> AllocationEvents:
    """Return an allocator's events, with the names of calls for programs that functions call."""
    made = [(modules[run.program_id].name, [*run.births.values()]) for run in runs if run.program_id in modules]
    return named_by_calls(events, call_spans(space), owners, made, noted.calls) if runs else events


def _owners(
    captured: CapturedStep, noted: OpOwners, events: AllocationEvents, modules: Iterable[XlaModule]
) -> tuple[OpOwners, bool]:
    """Return the owner of each operation of functions, and whether most are guessed from their names."""
    if captured.after is not None:
        return OpOwners({}), False  # in a gap, everything belongs to the callback whose turn it was
    names = {name for name in events.ops if name}.union(*(module.op_names for module in modules))
    by_name = frames_by_name(names, captured.layers, captured.optimizers)
    if 2 * sum(noted.exact(name) is None for name in by_name) <= len(by_name):
        return noted, False
    return OpOwners({**{name: (frame,) for name, frame in by_name.items()}, **noted.ops}), True
