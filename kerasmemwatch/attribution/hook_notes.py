"""Records of a step's functions by the hooks, as values: the analysis needs no objects of TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.hooks.graph_registry import Reference
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.live.batch_spec import Spec
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer
from kerasmemwatch.attribution.variables.variable_size import components

__all__ = ["HookNotes", "hook_notes"]


@dataclass(frozen=True)
class HookNotes:
    """Records by the hooks."""

    owners: OpOwners  # owner of each operation
    # By name of an operation that assigns, or whose result is assigned, the variable's buffer.
    assigned: Mapping[str, KnownBuffer] = field(default_factory=dict)
    gradients: Sequence[GradientBuffer] = ()  # the gradients of variables
    # By layer path, a record of each tensor that a layer's call returns.
    outputs: Mapping[str, Iterable[Spec]] = field(default_factory=dict)
    missing: Sequence[str] = ()  # consequences of hooks that could not be installed
    # By name of an operation that calls a function, the function's name.
    calls: Mapping[str, str] = field(default_factory=dict)


def hook_notes(captured: CapturedStep, stack: OwnerStack, owners: OpOwners) -> HookNotes:
    """Collect the hooks' records of a captured step."""
    by_key = {buffer.key: buffer for buffer in captured.known if buffer.key}
    return HookNotes(
        owners=owners,
        assigned=_assigned(stack, captured.stage, by_key),
        gradients=list(_gradients(captured, stack, by_key)),
        outputs={owner: specs for (stage, owner), specs in stack.outputs.copy().items() if stage == captured.stage},
        missing=list(stack.missing.values()),
        calls=stack.merged(captured.stage, "calls"),
    )


def _assigned(stack: OwnerStack, stage: str, by_key: dict[int, KnownBuffer]) -> dict[str, KnownBuffer]:
    found = {name: by_key.get(id(reference())) for name, reference in stack.merged(stage, "variables").items()}
    return {name: buffer for name, buffer in found.items() if buffer is not None}


def _buffer_of(variable: Any, by_key: dict[int, KnownBuffer]) -> KnownBuffer | None:
    """Return the known buffer of a variable; for a distributed one, the buffer of its first replica."""
    # Outside of a replica, the whole of a distributed variable has no handle, and raises a ValueError.
    handles = (getattr(each, "handle", None) for each in components(variable))
    return next((by_key[id(handle)] for handle in handles if id(handle) in by_key), None)


def _gradients(captured: CapturedStep, stack: OwnerStack, by_key: dict[int, KnownBuffer]) -> Iterator[GradientBuffer]:
    """Yield the gradients of functions' graphs, then those of eager code."""
    found: list[tuple[Reference, bool, dict[str, Any]]] = [
        (source, sparse, {"ops": names}) for source, sparse, names in stack.merged(captured.stage, "gradients").values()
    ]
    found += [(source, False, {"address": at, "time_ns": time_ns}) for source, at, time_ns in captured.gradients]
    for source, sparse, place in found:
        buffer = _buffer_of(source(), by_key)
        if buffer is not None:
            size = None if sparse else buffer.bytes
            yield GradientBuffer(buffer.owner, buffer.class_name, size, buffer.key, **place)
