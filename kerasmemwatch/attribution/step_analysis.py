"""From what a tracer kept of a step to the traced step: reads the capture, and says what is uncertain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kerasmemwatch.attribution.allocation_events import AllocationEvents, read_events
from kerasmemwatch.attribution.assembly import Evidence, assemble, in_order
from kerasmemwatch.attribution.batch_parts import BatchPart, output_bytes, rows_in_batch
from kerasmemwatch.attribution.first_calls import Kept, constants
from kerasmemwatch.attribution.known_buffers import KnownBuffer, Sighting
from kerasmemwatch.attribution.op_names import frames_by_name
from kerasmemwatch.attribution.op_owners import OpOwners
from kerasmemwatch.attribution.other_fits import BESIDE
from kerasmemwatch.attribution.owner_stack import Frame, OwnerStack, Reference
from kerasmemwatch.attribution.row_frames import within_calls
from kerasmemwatch.attribution.variable_size import components
from kerasmemwatch.attribution.weight_gradients import GradientBuffer
from kerasmemwatch.attribution.xla_buffers import XlaModule
from kerasmemwatch.attribution.xla_categories import XlaCategories
from kerasmemwatch.attribution.xla_expansion import compiled_runs, expand, unused_note
from kerasmemwatch.attribution.xla_runs import Programs, XlaRun, find_runs
from kerasmemwatch.exact_cpu import remedy
from kerasmemwatch.probes.allocators import ONEDNN_THRESHOLD_BYTES
from kerasmemwatch.timeline import TracedStep
from kerasmemwatch.traced_before import Fit
from kerasmemwatch.units import format_bytes

__all__ = ["CapturedStep", "Learned", "analysed"]

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


@dataclass
class CapturedStep:
    """A captured step, before the analysis.

    Attributes:
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        mode: ``"graph"``, ``"eager"`` or ``"xla"``; ``""`` if the capture is to tell, as in a loop of the user's.
        reason: Why it was captured.
        batch: The tensors of its batch.
        layers: By path of each layer in the model's order, its class.
        optimizers: Names of the models' optimizers.
        space: A serialized ``XSpace``.
        begun_ns: UNIX time of its begin.
        log: Times and who was on top of the stack from then.
        gradients: As in ``OwnerStack.eager_gradients``.
        known: Buffers alive after it.
        step: The sample's ``step``.
        epoch: 0-based epoch.
        calls: UNIX times in nanoseconds at which functions began and ended.
        arguments: Where the tensors lie that the step was called with.
        held: By owner, what it is known to have held when the step began, though not where.
        beside: Whether another fit ran in the process.
        missed: Whether another fit was being traced when this one made its functions.
        before: By key of a variable, where it lay before it.
        sightings: Where variables were seen within it.
        spared: Whether this fit's functions were made without hooks, as fits that are alike had been traced.
        fit: What keeps the traced step for fits that are alike.
    """

    stage: str
    mode: str
    reason: str
    batch: list[BatchPart]
    layers: Mapping[str, str] = field(default_factory=dict)
    optimizers: tuple[str, ...] = ()
    space: bytes = b""
    begun_ns: int = 0
    log: list[tuple[int, Frame]] = field(default_factory=list)
    gradients: list[tuple[Reference, int, int]] = field(default_factory=list)
    known: list[KnownBuffer] = field(default_factory=list)
    step: int = 0
    epoch: int | None = None
    calls: list[tuple[int, int]] = field(default_factory=list)
    arguments: set[int] = field(default_factory=set)
    held: dict[str, int] = field(default_factory=dict)
    beside: bool = False
    missed: bool = False
    before: dict[int, int] = field(default_factory=dict)
    sightings: list[Sighting] = field(default_factory=list)
    spared: bool = False
    fit: Fit | None = None


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
        The traced step; ``None`` if the capture has no allocation, as with an allocator that tells nothing.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(captured.space)
    events = read_events(space)
    if not events:
        return None
    main = max(events.values(), key=lambda found: (found.allocator.startswith("GPU"), len(found)))
    on_host = not _device(main.allocator).startswith("GPU")
    # A step that is seen whole makes numbers of a few bytes, too.
    partial = bool(main.births.any()) and int(main.requested_bytes[main.births].min()) >= ONEDNN_THRESHOLD_BYTES
    compiled: list[XlaRun] = []
    if captured.mode in ("xla", ""):
        learned.programs.read(space)
        compiled = find_runs(space, main, learned.programs.requests, ONEDNN_THRESHOLD_BYTES if partial else 0)
    mode = captured.mode or _mode(main, captured.calls, compiled)
    modules = learned.programs.opened({run.program_id for run in compiled})
    known = captured.known
    if on_host:
        known = [*known, *constants(kept, known, main, learned.owners(stack, captured.stage))]
    else:
        # Variables' places there are unknown; whatever else Python can name lies in host memory.
        known = [buffer for buffer in known if buffer.key and not buffer.address]
    owners, guessed = _owners(captured, mode, learned.owners(stack, captured.stage), main, modules.values())
    evidence = _evidence(captured, stack, owners, known, main, guessed=guessed)
    timeline, gradient_bytes = assemble(main, evidence)
    runs = compiled_runs(timeline, compiled, modules)
    if runs:
        gradients = [*evidence.gradients, *_gradients_by_size(captured.known)]
        timeline = expand(timeline, runs, owners, XlaCategories(owners, gradients, evidence.assigned))
    timeline = in_order(timeline, tuple(captured.layers))
    notes = (
        f"{_PARTIAL} {remedy()}" if partial else "",
        unused_note(runs),
        _unhooked(captured) if guessed else "",
        BESIDE if captured.beside else "",
        *stack.missing.values(),
    )
    outputs = {owner: specs for (stage, owner), specs in stack.outputs.copy().items() if stage == captured.stage}
    return TracedStep(
        step=captured.step,
        stage=captured.stage,
        epoch=captured.epoch,
        time_s=captured.begun_ns / 1e9,
        mode=mode,
        reason=captured.reason,
        timeline=timeline,
        gradient_bytes=gradient_bytes if not runs else {},
        output_bytes=output_bytes(outputs, rows_in_batch(captured.batch, main)),
        notes=tuple(filter(None, notes)),
    )


def _unhooked(captured: CapturedStep) -> str:
    """Why the step's functions were made without hooks."""
    return _HOOKS_ELSEWHERE if captured.missed else _HOOKS_SPARED if captured.spared else _NO_OWNERS


def _evidence(
    captured: CapturedStep,
    stack: OwnerStack,
    owners: OpOwners,
    known: Sequence[KnownBuffer],
    events: AllocationEvents,
    *,
    guessed: bool,
) -> Evidence:
    """What is known beside the events."""
    by_key = {buffer.key: buffer for buffer in captured.known if buffer.key}
    device = _device(events.allocator)
    return Evidence(
        device=device,
        begun_ns=captured.begun_ns,
        owners=owners,
        log=captured.log,
        assigned=_assigned(stack, captured.stage, by_key),
        gradients=[
            *_graph_gradients(stack, captured.stage, by_key),
            *_eager_gradients(captured, by_key),
            *(_gradients_by_size(captured.known) if guessed else ()),
        ],
        known=known,
        batch=captured.batch,
        calls=captured.calls,
        sightings=captured.sightings,
        held={} if device.startswith("GPU") else captured.held,
    )


def _device(allocator: str) -> str:
    """Name of an allocator's device: ``"GPU_1_bfc"`` is GPU 1's."""
    kind, _, rest = allocator.partition("_")
    index = rest.partition("_")[0]
    return f"GPU:{index}" if kind == "GPU" and index.isdecimal() else "CPU:0"


def _mode(events: AllocationEvents, calls: Sequence[tuple[int, int]], compiled: Sequence[XlaRun]) -> str:
    """How a step ran: by what most of its bytes were allocated."""
    if compiled:
        return "xla"
    sizes = events.requested_bytes[events.births]
    called = within_calls(calls, events.time_ns[events.births])
    return "graph" if int(sizes[called].sum()) * 2 > int(sizes.sum()) else "eager"


def _owners(
    captured: CapturedStep, mode: str, noted: OpOwners, events: AllocationEvents, modules: Iterable[XlaModule]
) -> tuple[OpOwners, bool]:
    """Who made each operation, and whether that is guessed from the names of most."""
    if mode == "eager":
        return noted, False
    names = {name for name in events.ops if name}.union(*(module.op_names for module in modules))
    by_name = frames_by_name(names, captured.layers, captured.optimizers)
    if 2 * sum(noted.exact(name) is None for name in by_name) <= len(by_name):
        return noted, False
    return OpOwners({**{name: (frame,) for name, frame in by_name.items()}, **noted.ops}), True


def _assigned(stack: OwnerStack, stage: str, by_key: dict[int, KnownBuffer]) -> dict[str, KnownBuffer]:
    found = {name: by_key.get(id(reference())) for name, reference in stack.merged(stage, "variables").items()}
    return {name: buffer for name, buffer in found.items() if buffer is not None}


def _buffer_of(variable: Any, by_key: dict[int, KnownBuffer]) -> KnownBuffer | None:
    """The known buffer of a variable; of one that is distributed, its first replica's."""
    # The whole of a distributed variable has no handle outside of a replica, and says so with a ValueError.
    handles = (getattr(each, "handle", None) for each in components(variable))
    return next((by_key[id(handle)] for handle in handles if id(handle) in by_key), None)


def _graph_gradients(stack: OwnerStack, stage: str, by_key: dict[int, KnownBuffer]) -> list[GradientBuffer]:
    found = []
    for source, sparse, names in stack.merged(stage, "gradients").values():
        buffer = _buffer_of(source(), by_key)
        if buffer is not None:
            size = None if sparse else buffer.bytes
            found.append(GradientBuffer(buffer.owner, buffer.class_name, size, buffer.key, ops=names))
    return found


def _eager_gradients(captured: CapturedStep, by_key: dict[int, KnownBuffer]) -> list[GradientBuffer]:
    found = []
    for source, address, time_ns in captured.gradients:
        buffer = _buffer_of(source(), by_key)
        if buffer is not None:
            found.append(
                GradientBuffer(
                    buffer.owner, buffer.class_name, buffer.bytes, buffer.key, address=address, time_ns=time_ns
                )
            )
    return found


def _gradients_by_size(known: Iterable[KnownBuffer]) -> Iterator[GradientBuffer]:
    return (
        GradientBuffer(buffer.owner, buffer.class_name, buffer.bytes, buffer.key)
        for buffer in known
        if buffer.trainable
    )
