"""The memory of a compiled program as values: its allocations, and the buffers that lie in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["XlaAllocation", "XlaBuffer", "XlaModule", "live_bytes", "requested"]


@dataclass(frozen=True)
class XlaAllocation:
    """A piece of memory that a program works in.

    Attributes:
        index: Its number in the buffer assignment.
        bytes: Its size.
        kind: ``"parameter"``: passed in by the caller; ``"constant"``: part of the program; ``"output"`` and
            ``"temp"``: asked of the allocator, in the order of ``index``, each time that the program runs. An output
            is the caller's afterwards, what is temp is given back.
        parameter: Number of the parameter, ``None`` for other kinds.
        is_output: Whether a result lies in it. For a parameter: the caller gives it away (donates it), and a result
            takes its place, as a weight's new value does. Where the caller keeps it after all, the run asks for as
            much again.
    """

    index: int
    bytes: int
    kind: str
    parameter: int | None
    is_output: bool


@dataclass(frozen=True)
class XlaBuffer:
    """What one instruction writes into one place.

    Attributes:
        name: The instruction, with ``{index}`` for a part of a tuple: ``"fusion.3{1}"``.
        op_name: The model's operation, as a name scope; ``""`` if unknown.
        op_from: How that was found: ``"own"``, ``"fusion"``, ``"operand"`` or ``"user"`` (see ``OpNames``); ``""`` if
            unknown. A name from a user tells the layer, and not when the buffer was written.
        bytes: Its size.
        shape: Its dimensions; empty for a scalar and a tuple.
        allocation_index: Of the ``XlaAllocation`` that it lies in.
        offset: Where in that, in bytes.
        kind: ``"parameter"``, ``"constant"``, ``"output"`` (a result of the program) or ``"temp"``. One that is temp
            may lie in a parameter's allocation, before a result does.
        first: The position in the schedule that writes it. What is there before the program runs has 0.
        last: The last position that needs it, inclusive.
        copy_of: Number of the parameter that it repeats, in another place, layout or type: made of it alone, with as
            many elements, as a weight before it is overwritten. ``None`` for all else.
        in_parameter: Number of the parameter in whose memory it lies, ``None`` if in none.
        alias_of: Index of the buffer that holds the same bytes at the same time and is counted, ``None`` if this is.
        used_by: The operations that read it; for a loop's variable, at any time: before, in and after the loop.
    """

    name: str
    op_name: str
    op_from: str
    bytes: int
    shape: tuple[int, ...]
    allocation_index: int
    offset: int
    kind: str
    first: int
    last: int
    copy_of: int | None
    in_parameter: int | None
    alias_of: int | None
    used_by: tuple[str, ...]


@dataclass(frozen=True)
class XlaModule:
    """A compiled program and its memory.

    Attributes:
        name: The program's.
        program_id: What a capture's events call it.
        length: Number of positions in the schedule. The body of a loop stands in it once, before the loop itself, and
            so do the branches of a conditional.
        instructions: Name of the instruction at each position.
        op_names: The model's operation of each instruction, ``""`` where unknown.
        backward_from: The position where the backward pass begins, ``None`` without one. XLA moves what it can ahead:
            an earlier position may have a name of the backward pass, and the other way round.
        allocations: All but those on a thread's stack, by index.
        buffers: Those that lie in them.
        conflicts: Number of pairs of buffers that overlap in place and time though nothing says why. Other than 0
            means that the lifetimes cannot be trusted.
    """

    name: str
    program_id: int
    length: int
    instructions: tuple[str, ...] = field(repr=False)
    op_names: tuple[str, ...] = field(repr=False)
    backward_from: int | None
    allocations: tuple[XlaAllocation, ...] = field(repr=False)
    buffers: tuple[XlaBuffer, ...] = field(repr=False)
    conflicts: int

    @property
    def temp_bytes(self) -> int:
        """Size of the temp block, 0 without one."""
        return max((allocation.bytes for allocation in self.allocations if allocation.kind == "temp"), default=0)

    @property
    def requests(self) -> tuple[XlaAllocation, ...]:
        """What the allocator is asked for first at each run, in that order."""
        return requested(self.allocations)


def live_bytes(module: XlaModule, allocation_index: int) -> NDArray[np.int64]:
    """How much of an allocation is in use at each position of the schedule; the rest of it is unused.

    Returns:
        ``int64[module.length]``.
    """
    change = np.zeros(module.length + 1, np.int64)
    for buffer in module.buffers:
        if buffer.allocation_index == allocation_index and buffer.alias_of is None:
            change[buffer.first] += buffer.bytes
            change[buffer.last + 1] -= buffer.bytes
    return np.cumsum(change)[:-1]


def requested(allocations: Iterable[XlaAllocation]) -> tuple[XlaAllocation, ...]:
    """Those that the allocator is asked for at each run, in that order."""
    return tuple(allocation for allocation in allocations if allocation.kind in ("output", "temp"))
