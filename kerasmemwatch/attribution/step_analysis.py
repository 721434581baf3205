"""From what a tracer kept of a step to the traced step: reads the capture, and says what is uncertain."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kerasmemwatch.attribution.allocation_events import AllocationEvents, read_events
from kerasmemwatch.attribution.assembly import Evidence, assemble, in_order
from kerasmemwatch.attribution.batch_parts import output_bytes, rows_in_batch
from kerasmemwatch.attribution.batches_ahead import ahead_note
from kerasmemwatch.attribution.call_spans import call_spans, named_by_calls
from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.data_on_gpu import data_on_gpu
from kerasmemwatch.attribution.first_calls import Kept, constants
from kerasmemwatch.attribution.hook_notes import HookNotes, hook_notes
from kerasmemwatch.attribution.known_buffers import KnownBuffer
from kerasmemwatch.attribution.op_names import frames_by_name
from kerasmemwatch.attribution.op_owners import OpOwners
from kerasmemwatch.attribution.other_fits import BESIDE
from kerasmemwatch.attribution.owner_stack import OwnerStack
from kerasmemwatch.attribution.planned_events import nowhere, planned_events
from kerasmemwatch.attribution.row_frames import within_calls
from kerasmemwatch.attribution.silent_allocators import planned_note, silent_device
from kerasmemwatch.attribution.weight_gradients import GradientBuffer
from kerasmemwatch.attribution.xla_buffers import XlaModule
from kerasmemwatch.attribution.xla_categories import XlaCategories
from kerasmemwatch.attribution.xla_expansion import compiled_runs, expand, unused_note
from kerasmemwatch.attribution.xla_runs import Programs, find_runs
from kerasmemwatch.exact_cpu import remedy
from kerasmemwatch.probes.allocators import ONEDNN_THRESHOLD_BYTES
from kerasmemwatch.timeline import TracedStep
from kerasmemwatch.units import format_bytes

__all__ = ["Learned", "analysed", "attributed"]

_PARTIAL = f"Of the traced step only allocations of {format_bytes(ONEDNN_THRESHOLD_BYTES)} or more are known."
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
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(captured.space)
    events = read_events(space)
    # In a gap a program is whose turn it was.
    opens = captured.after is None or captured.mode in ("xla", "")
    if opens:
        programs.read(space)
    # Another device's allocations are no answer.
    silent = silent_device(captured.known, [found.device for found in events.values()])
    main = _planned(space, silent, programs, captured) if silent else max(events.values(), key=_rank, default=None)
    if main is None or (silent and captured.after is not None):
        return None  # a plan is of a step
    partial = _is_partial(main)
    compiled = find_runs(space, main, programs.requests, ONEDNN_THRESHOLD_BYTES if partial else 0) if opens else []
    mode = captured.mode or _mode(main, captured)
    modules = programs.opened({run.program_id for run in compiled})
    known = [buffer for buffer in captured.known if buffer.device == main.device]
    known += constants(kept, known, main, noted.owners)
    is_eager = mode == "eager" and not compiled and captured.after is None
    owners, guessed = (noted.owners, False) if is_eager else _owners(captured, noted.owners, main, modules.values())
    if compiled and mode != "xla":
        made = [(modules[run.program_id].name, [*run.births.values()]) for run in compiled if run.program_id in modules]
        main = named_by_calls(main, call_spans(space), owners, made, noted.calls)
    evidence = _evidence(captured, noted, owners, known, main, guessed=guessed)
    timeline, gradient_bytes = assemble(main, evidence)
    runs = compiled_runs(timeline, compiled, modules)
    if not captured.mode and runs:
        mode = "xla"
    if runs:
        gradients = [*evidence.gradients, *_gradients_by_size(captured.known)]
        categories = XlaCategories(owners, gradients, evidence.assigned)
        timeline = expand(timeline, runs, owners, categories)
        gradient_bytes = {**gradient_bytes, **categories.gradient_bytes}
    timeline = in_order(nowhere(timeline) if silent else timeline, tuple(captured.layers))
    rows = rows_in_batch(captured.batch, main)
    notes = (
        planned_note(silent) if silent else "",
        f"{_PARTIAL} {remedy()}" if partial else "",
        unused_note(runs),
        ahead_note(timeline),
        data_on_gpu(captured.known, captured.batch, rows),
        _unhooked(captured) if guessed else "",
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
        timeline=timeline,
        gradient_bytes=gradient_bytes,
        output_bytes=output_bytes(noted.outputs, rows),
        notes=tuple(filter(None, notes)),
    )


def _rank(events: AllocationEvents) -> tuple[bool, int]:
    return events.device.startswith("GPU"), len(events)


def _planned(space: Any, device: str, programs: Programs, captured: CapturedStep) -> AllocationEvents | None:
    """What the plan of a step that is compiled as a whole says, where its device's allocator says nothing."""
    if captured.mode != "xla":
        return None
    known = [buffer for buffer in captured.known if buffer.device == device]
    return planned_events(space, device, programs.requests, known, captured.batch)


def _is_partial(events: AllocationEvents) -> bool:
    """Whether only large allocations are told of, as by the host's default allocator."""
    # A step that is seen whole makes numbers of a few bytes, too.
    sizes = events.requested_bytes[events.births]
    return events.device.startswith("CPU") and bool(len(sizes)) and int(sizes.min()) >= ONEDNN_THRESHOLD_BYTES


def _unhooked(captured: CapturedStep) -> str:
    """Why the step's functions were made without hooks."""
    return _HOOKS_ELSEWHERE if captured.missed else _HOOKS_SPARED if captured.spared else _NO_OWNERS


def _evidence(
    captured: CapturedStep,
    noted: HookNotes,
    owners: OpOwners,
    known: Sequence[KnownBuffer],
    events: AllocationEvents,
    *,
    guessed: bool,
) -> Evidence:
    """What is known beside the events."""
    return Evidence(
        device=events.device,
        begun_ns=captured.begun_ns,
        owners=owners,
        log=captured.log,
        assigned=noted.assigned,
        gradients=[*noted.gradients, *(_gradients_by_size(captured.known) if guessed else ())],
        known=known,
        batch=captured.batch,
        calls=captured.calls,
        sightings=captured.sightings,
        held={} if events.device.startswith("GPU") else captured.held,
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
