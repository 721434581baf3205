"""Attribution of a step's memory on one device: timeline, gradients by layer, and notes on uncertainties."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.allocator_names import HOST
from kerasmemwatch.attribution.events.allocators_by_device import is_partial
from kerasmemwatch.attribution.function_constants import Kept, constants
from kerasmemwatch.attribution.hook_notes import HookNotes
from kerasmemwatch.attribution.live.data_on_gpu import host_copies
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.owners.batches_ahead import ahead_note
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.replicas import gradients_on
from kerasmemwatch.attribution.owners.timeline_assembly import Evidence, assemble, in_order
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer
from kerasmemwatch.attribution.xla.buffer_owners import XlaCategories
from kerasmemwatch.attribution.xla.program_memory import XlaModule
from kerasmemwatch.attribution.xla.program_runs import XlaRun
from kerasmemwatch.attribution.xla.timeline_expansion import compiled_runs, expand, unused_note
from kerasmemwatch.probes.allocators import ONEDNN_THRESHOLD_BYTES
from kerasmemwatch.records.timeline import Timeline

__all__ = ["DeviceAttribution", "StepFacts", "attributed_device"]


@dataclass(frozen=True)
class StepFacts:
    """Knowledge of a step besides the allocators' events."""

    captured: CapturedStep  # the step
    noted: HookNotes  # the hooks' records
    kept: Sequence[Kept]  # buffers that functions' first calls left
    owners: OpOwners  # owner of each operation
    modules: Mapping[int, XlaModule]  # compiled programs that are opened, by id
    guessed: bool  # whether most of `owners` are guessed from the operations' names


@dataclass(frozen=True)
class DeviceAttribution:
    """A device's part of a traced step."""

    timeline: Timeline  # its allocations with their owners
    gradient_bytes: dict[str, int]  # bytes of gradients by layer
    notes: tuple[str, ...]  # notes on uncertainties; may contain empty strings
    is_compiled: bool  # whether it shows the buffers of compiled programs


def attributed_device(
    facts: StepFacts, device: str, events: AllocationEvents, runs: Sequence[XlaRun]
) -> DeviceAttribution:
    """Attribute one device's allocations."""
    captured, noted, owners, modules = facts.captured, facts.noted, facts.owners, facts.modules
    # With two allocators on one device, the busier one holds these buffers.
    known = [buffer for buffer in captured.known if buffer.device == device]
    if device == HOST:
        known += host_copies(captured.known, captured.arguments)
    if is_partial(events):
        # Handles and small copies are in another allocator.
        known = [each for each in known if each.address or each.key or each.bytes >= ONEDNN_THRESHOLD_BYTES]
    known += constants([each for each in facts.kept if each.device == device], known, events, noted.owners)
    evidence = _evidence(facts, known, device, events)
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
    return DeviceAttribution(timeline, gradient_bytes, (unused_note(opened), ahead_note(timeline)), bool(opened))


def _evidence(facts: StepFacts, known: Sequence[KnownBuffer], device: str, events: AllocationEvents) -> Evidence:
    """Collect all knowledge besides the events."""
    captured, noted = facts.captured, facts.noted
    # An operation on a GPU may identify a variable in host memory, but not one on another GPU.
    devices = (device, HOST)
    return Evidence(
        device=device,
        begun_ns=captured.begun_ns,
        owners=facts.owners,
        log=captured.log,
        assigned={op: buffer for op, buffer in noted.assigned.items() if buffer.device in devices},
        gradients=gradients_on(
            events, [*noted.gradients, *(_gradients_by_size(captured.known) if facts.guessed else ())], captured.known
        ),
        known=known,
        earlier=[buffer for buffer in captured.earlier if buffer.device == device],
        batch=captured.batch,
        calls=captured.calls,
        sightings=captured.sightings,
        held=captured.held if device == HOST else {},
    )


def _gradients_by_size(known: Iterable[KnownBuffer]) -> Iterator[GradientBuffer]:
    return (
        GradientBuffer(buffer.owner, buffer.class_name, buffer.bytes, buffer.key)
        for buffer in known
        if buffer.trainable
    )
