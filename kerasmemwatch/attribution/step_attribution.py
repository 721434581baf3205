"""From what a tracer kept of a step to the traced step: reads the capture, and says what is uncertain."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.events.allocation_events import AllocationEvents, read_events
from kerasmemwatch.attribution.events.allocator_names import HOST
from kerasmemwatch.attribution.events.allocators_by_device import by_device, is_partial
from kerasmemwatch.attribution.function_constants import Kept, constants
from kerasmemwatch.attribution.hook_notes import HookNotes, hook_notes
from kerasmemwatch.attribution.hooks.other_fits import BESIDE
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.live.batch_spec import output_bytes, rows_in_batch
from kerasmemwatch.attribution.live.data_on_gpu import data_on_gpu, host_copies
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.owners.allocation_owners import within_calls
from kerasmemwatch.attribution.owners.batches_ahead import ahead_note
from kerasmemwatch.attribution.owners.call_spans import call_spans, named_by_calls
from kerasmemwatch.attribution.owners.name_scopes import frames_by_name
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.replicas import gradients_on
from kerasmemwatch.attribution.owners.timeline_assembly import Evidence, assemble, in_order
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer
from kerasmemwatch.attribution.silent_allocators import planned_note, silent_device
from kerasmemwatch.attribution.xla.buffer_owners import XlaCategories
from kerasmemwatch.attribution.xla.planned_events import nowhere, planned_events
from kerasmemwatch.attribution.xla.program_memory import XlaModule
from kerasmemwatch.attribution.xla.program_runs import Programs, XlaRun, find_runs
from kerasmemwatch.attribution.xla.timeline_expansion import compiled_runs, expand, unused_note
from kerasmemwatch.compat.tensorflow import CREATE_OPERATION, XPLANE
from kerasmemwatch.exact_cpu import remedy
from kerasmemwatch.probes.allocators import ONEDNN_THRESHOLD_BYTES
from kerasmemwatch.records.timeline import Timeline, TracedStep
from kerasmemwatch.units import format_bytes

__all__ = ["Learned", "analysed", "attributed"]

_LEAST = format_bytes(ONEDNN_THRESHOLD_BYTES)
_PARTIAL = f"Of the traced step only allocations of {_LEAST} or more are known."
_NO_OWNERS = (
    "The step's function was made before the watch came, so its operations are told apart by their names only: "
    "layers of the same name may be mixed up, and gradients are known by their sizes. Give the watch to the first fit."
)
_HOOKS_ELSEWHERE = (
    "One fit of a process is traced at a time, and another was when this step's function was made. So its operations "
    "are told apart by their names only: layers of the same name may be mixed up, and gradients are known by sizes."
)
_HOOKS_SPARED = (
    "This step's function was made without hooks, as fits that seemed alike had been traced. So its operations are "
    "told apart by their names only: layers of the same name may be mixed up, and gradients are known by their sizes. "
    "To have a fit's own steps traced, name them: trace=[2, 10]."
)


class Learned:
    """What the analysis of one step leaves for that of the next.

    Attributes:
        programs: Compiled programs.
    """

    def __init__(self) -> None:
        self.programs = Programs()
        self._owners: dict[str, tuple[int, OpOwners]] = {}

    def owners(self, stack: OwnerStack, stage: str) -> OpOwners:
        """Who made each operation; anew only if operations have been made since."""
        made = stack.num_operations
        if stage not in self._owners or self._owners[stage][0] != made:
            self._owners[stage] = made, OpOwners(stack.ops(stage))
        return self._owners[stage][1]


def analysed(
    captured: CapturedStep, stack: OwnerStack, learned: Learned, kept: Sequence[Kept] = ()
) -> TracedStep | None:
    """Attribute a captured step's memory.

    Args:
        captured: The step.
        stack: What the hooks noted.
        learned: From steps before this one; what this one shows is added.
        kept: What functions' first calls left.

    Returns:
        The traced step; ``None`` if the capture has no allocation of the device that the step ran on, as with an
        allocator that tells nothing.
    """
    notes = hook_notes(captured, stack, learned.owners(stack, captured.stage))
    return attributed(captured, notes, learned.programs, kept)


def attributed(
    captured: CapturedStep, noted: HookNotes, programs: Programs, kept: Sequence[Kept] = ()
) -> TracedStep | None:
    """Attribute a captured step's memory by values alone: they may come from a file.

    Args:
        captured: The step.
        noted: What the hooks noted.
        programs: Compiled programs of steps before; those of this one are added.
        kept: What functions' first calls left.

    Returns:
        As ``analysed``.
    """
    space = XPLANE.get().FromString(captured.space)
    allocators = list(read_events(space).values())
    # In a gap a program is whose turn it was.
    opens = captured.after is None or captured.mode in ("xla", "")
    if opens:
        programs.read(space)
    # Another device's allocations are no answer.
    silent = silent_device(captured.known, [each.device for each in allocators])
    if silent:
        planned = _planned(space, silent, programs, captured)
        allocators = [] if planned is None else [planned, *allocators]
    if not allocators or (silent and captured.after is not None):
        return None  # a plan is of a step
    events = by_device(allocators)
    main = next(iter(events.values()))
    # A GPU's programs do not run on the host.
    runs = {
        device: find_runs(space, each, programs.requests, ONEDNN_THRESHOLD_BYTES if is_partial(each) else 0)
        for device, each in events.items()
        if opens and each.on_host == main.on_host
    }
    compiled = [run for found in runs.values() for run in found]
    mode = captured.mode or _mode(main, captured)
    modules = programs.opened({run.program_id for run in compiled})
    is_eager = mode == "eager" and not compiled and captured.after is None
    owners, guessed = (noted.owners, False) if is_eager else _owners(captured, noted.owners, main, modules.values())
    if compiled and mode != "xla":
        events = {
            device: _named(space, noted, owners, each, runs.get(device, ()), modules) for device, each in events.items()
        }
    found = {
        device: _attributed(captured, noted, kept, owners, device, each, runs.get(device, ()), modules, guessed)
        for device, each in events.items()
    }
    timeline, gradient_bytes, notes, is_opened = found.pop(main.device)
    if not captured.mode and is_opened:
        mode = "xla"
    others = tuple(replace(each, gradient_bytes=sizes) for each, sizes, *_ in found.values())
    partial = [each.device for each in others if is_partial(events[each.device])]
    rows = rows_in_batch(captured.batch, main)
    notes = (
        planned_note(silent) if silent else "",
        f"{_PARTIAL} {remedy()}" if is_partial(main) else "",
        *(f"On {device} only allocations of {_LEAST} or more are known of the traced step." for device in partial),
        *notes,
        *(note for _, _, more, _ in found.values() for note in more),
        data_on_gpu(captured.known, captured.batch, rows),
        _unhooked(captured) if guessed and not CREATE_OPERATION.is_missing else "",
        BESIDE if captured.beside else "",
        *noted.missing,
    )
    return TracedStep(
        step=captured.step,
        stage=captured.stage,
        epoch=captured.epoch,
        time_s=captured.begun_ns / 1e9,
        mode=mode,
        reason=captured.reason,
        timeline=nowhere(timeline) if silent else timeline,
        gradient_bytes=gradient_bytes,
        output_bytes=output_bytes(noted.outputs, rows),
        notes=tuple(dict.fromkeys(filter(None, notes))),
        others=others,
    )


def _planned(space: Any, device: str, programs: Programs, captured: CapturedStep) -> AllocationEvents | None:
    """What the plan of a step that is compiled as a whole says, where its device's allocator says nothing."""
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
    """The events of an allocator with those of programs that functions call by the names of the calls."""
    made = [(modules[run.program_id].name, [*run.births.values()]) for run in runs if run.program_id in modules]
    return named_by_calls(events, call_spans(space), owners, made, noted.calls) if runs else events


def _attributed(
    captured: CapturedStep,
    noted: HookNotes,
    kept: Sequence[Kept],
    owners: OpOwners,
    device: str,
    events: AllocationEvents,
    runs: Sequence[XlaRun],
    modules: Mapping[int, XlaModule],
    guessed: bool,
) -> tuple[Timeline, dict[str, int], tuple[str, ...], bool]:
    """One allocator's timeline, the gradients in it by layer, what is uncertain, and whether programs were opened."""
    # Of two allocators of one device the busier has what lies there.
    known = [buffer for buffer in captured.known if buffer.device == device]
    if device == HOST:
        known += host_copies(captured.known, captured.arguments)
    if is_partial(events):
        # Handles and small copies lie in another allocator.
        known = [each for each in known if each.address or each.key or each.bytes >= ONEDNN_THRESHOLD_BYTES]
    known += constants([each for each in kept if each.device == device], known, events, noted.owners)
    evidence = _evidence(captured, noted, owners, known, device, events, guessed=guessed)
    timeline, gradient_bytes = assemble(events, evidence)
    opened = compiled_runs(timeline, runs, modules)
    if opened:
        seen = [*noted.gradients, *_gradients_by_size(captured.known)]
        names = {name for run in runs if run.program_id in modules for name in modules[run.program_id].op_names}
        gradients = gradients_on(events, seen, captured.known, names)
        categories = XlaCategories(owners, gradients, evidence.assigned)
        timeline = expand(timeline, opened, owners, categories)
        gradient_bytes = {**gradient_bytes, **categories.gradient_bytes}
    timeline = in_order(timeline, tuple(captured.layers))
    return timeline, gradient_bytes, (unused_note(opened), ahead_note(timeline)), bool(opened)


def _unhooked(captured: CapturedStep) -> str:
    """Why the step's functions were made without hooks."""
    return _HOOKS_ELSEWHERE if captured.missed else _HOOKS_SPARED if captured.spared else _NO_OWNERS


def _evidence(
    captured: CapturedStep,
    noted: HookNotes,
    owners: OpOwners,
    known: Sequence[KnownBuffer],
    device: str,
    events: AllocationEvents,
    *,
    guessed: bool,
) -> Evidence:
    """What is known beside the events."""
    # A variable of the host may be told by an operation of a GPU's, and none of another GPU's.
    devices = (device, HOST)
    return Evidence(
        device=device,
        begun_ns=captured.begun_ns,
        owners=owners,
        log=captured.log,
        assigned={op: buffer for op, buffer in noted.assigned.items() if buffer.device in devices},
        gradients=gradients_on(
            events, [*noted.gradients, *(_gradients_by_size(captured.known) if guessed else ())], captured.known
        ),
        known=known,
        batch=captured.batch,
        calls=captured.calls,
        sightings=captured.sightings,
        held=captured.held if device == HOST else {},
    )


def _mode(events: AllocationEvents, captured: CapturedStep) -> str:
    """How a step ran that is not compiled: by what most of its bytes were allocated."""
    times = [time_ns for time_ns, _ in captured.log]
    # A function that eager code calls within a layer is one of the layer's operations.
    tops = (captured.log[max(0, bisect_right(times, begun) - 1)][1] for begun, _ in captured.calls)
    calls = [call for call, top in zip(captured.calls, tops, strict=True) if not top.class_name]
    sizes = events.requested_bytes[events.births]
    called = within_calls(calls, events.time_ns[events.births])
    return "graph" if int(sizes[called].sum()) * 2 > int(sizes.sum()) else "eager"


def _owners(
    captured: CapturedStep, noted: OpOwners, events: AllocationEvents, modules: Iterable[XlaModule]
) -> tuple[OpOwners, bool]:
    """Who made each operation of functions, and whether that is guessed from the names of most."""
    if captured.after is not None:
        return OpOwners({}), False  # in a gap all is its whose turn it was
    names = {name for name in events.ops if name}.union(*(module.op_names for module in modules))
    by_name = frames_by_name(names, captured.layers, captured.optimizers)
    if 2 * sum(noted.exact(name) is None for name in by_name) <= len(by_name):
        return noted, False
    return OpOwners({**{name: (frame,) for name, frame in by_name.items()}, **noted.ops}), True


def _gradients_by_size(known: Iterable[KnownBuffer]) -> Iterator[GradientBuffer]:
    return (
        GradientBuffer(buffer.owner, buffer.class_name, buffer.bytes, buffer.key)
        for buffer in known
        if buffer.trainable
    )
