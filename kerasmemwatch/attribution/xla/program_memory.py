"""Memory of a compiled program as values: its allocations, and the buffers in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["XlaAllocation", "XlaBuffer", "XlaModule", "live_bytes", "requested"]


@dataclass(frozen=True)
class XlaAllocation:
    """A piece of memory that a program uses."""

    index: int  # its number in the buffer assignment
    bytes: int  # its size
    # `"parameter"`: passed in by the caller; `"constant"`: part of the program; `"output"` and `"temp"`:
    # requested from the allocator, in the order of `index`, at each run. The caller keeps an output; a temp is freed
    # at the end.
    kind: str
    parameter: int | None  # number of the parameter, `None` for other kinds
    # Whether it holds a result. For a parameter: the caller donates it and a result takes its place, as a weight's new
    # value does. If the caller keeps it after all, the run requests the same size again.
    is_output: bool


@dataclass(frozen=True)
class XlaBuffer:
    """The value that one instruction writes into one place."""

    name: str  # the instruction, with `{index}` for a part of a tuple: `"fusion.3{1}"`
    op_name: str  # the model's operation, as a name scope; `""` if unknown
    # Source of that name: `"own"`, `"fusion"`, `"operand"` or `"user"` (see `OpNames`); `""` if unknown. A
    # name from a user gives the layer, but not the time of writing.
    op_from: str
    bytes: int  # its size
    shape: tuple[int, ...]  # its dimensions; empty for a scalar and a tuple
    allocation_index: int  # index of its `XlaAllocation`
    offset: int  # its offset in the allocation, in bytes
    # `"parameter"`, `"constant"`, `"output"` (a result of the program) or `"temp"`. A temp buffer may be in a
    # parameter's allocation, before a result is.
    kind: str
    first: int  # the position in the schedule that writes it; 0 if it exists before the program runs
    last: int  # the last position that needs it, inclusive
    # Number of the parameter that it repeats in another place, layout or type: it depends on that alone and has as many
    # elements, as a weight before it is overwritten. `None` for others.
    copy_of: int | None
    in_parameter: int | None  # number of the parameter whose memory holds it, `None` if none does
    # Index of the counted buffer that holds the same bytes at the same time, `None` if this one counts.
    alias_of: int | None
    used_by: tuple[str, ...]  # the operations that read it; for a loop's variable, those before, in and after the loop


@dataclass(frozen=True)
class XlaModule:
    """A compiled program and its memory."""

    name: str  # name of the program
    program_id: int  # its id in a capture's events
    # Number of positions in the schedule, where a loop's body appears once, before the loop itself, and so do the
    # branches of a conditional.
    length: int
    instructions: tuple[str, ...] = field(repr=False)  # name of the instruction at each position
    op_names: tuple[str, ...] = field(repr=False)  # the model's operation of each instruction, `""` where unknown
    # The first position of the backward pass, `None` without one. XLA reorders instructions: an earlier position may
    # have a name of the backward pass, and the other way round.
    backward_from: int | None
    allocations: tuple[XlaAllocation, ...] = field(repr=False)  # all but those on a thread's stack, by index
    buffers: tuple[XlaBuffer, ...] = field(repr=False)  # the buffers in them
    # Number of pairs of buffers that overlap in place and time without a known reason. If it is not 0, the lifetimes
    # cannot be trusted.
    conflicts: int

    @property
    def temp_bytes(self) -> int:
        """Size of the temp block, 0 without one."""
        return max((allocation.bytes for allocation in self.allocations if allocation.kind == "temp"), default=0)

    @property
    def requests(self) -> tuple[XlaAllocation, ...]:
        """The requests to the allocator at the beginning of each run, in order."""
        return requested(self.allocations)


def live_bytes(module: XlaModule, allocation_index: int) -> NDArray[np.int64]:
    """Return the bytes of an allocation in use at each position of the schedule; the rest is unused."""
    change = np.zeros(module.length + 1, np.int64)
    for buffer in module.buffers:
        if buffer.allocation_index == allocation_index and buffer.alias_of is None:
            change[buffer.first] += buffer.bytes
            change[buffer.last + 1] -= buffer.bytes
    return np.cumsum(change)[:-1]


def requested(allocations: Iterable[XlaAllocation]) -> tuple[XlaAllocation, ...]:
    """Return the allocations that each run requests from the allocator, in order."""
    return tuple(allocation for allocation in allocations if allocation.kind in ("output", "temp"))
