"""Contents of the memory of an XLA-compiled step: its logical buffers, each with an operation and a lifetime.

XLA plans a program's memory ahead: a few allocations, the largest of which, the temp block, holds nearly everything
that lives during a step, at fixed offsets. A profiler capture carries this plan, the buffer assignment, per program.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from kerasmemwatch.attribution.xla.hlo_backward import backward_from
from kerasmemwatch.attribution.xla.hlo_op_names import OpNames
from kerasmemwatch.attribution.xla.hlo_program import HloProgram, Index
from kerasmemwatch.attribution.xla.program_memory import XlaAllocation, XlaBuffer, XlaModule, requested
from kerasmemwatch.errors import MemWatchError

__all__ = ["open_module", "requests"]


class UnscheduledModuleError(MemWatchError, ValueError):
    """A program without a schedule or a buffer assignment, whose memory is therefore unknown."""


def requests(proto: Any) -> tuple[XlaAllocation, ...]:
    """Return the ``requests`` of a program without opening it, which takes far less time."""
    assigned = proto.buffer_assignment.buffer_allocations
    return requested(_allocation(allocation) for allocation in assigned if not allocation.is_thread_local)


def open_module(proto: Any) -> XlaModule:
    """Find the buffers of a program.

    Raises:
        UnscheduledModuleError: If the program has no schedule or no buffer assignment.
    """
    module, assignment = proto.hlo_module, proto.buffer_assignment
    if not module.schedule.sequences or not assignment.buffer_allocations:
        raise UnscheduledModuleError(
            f"Expected a scheduled program with a buffer assignment. Received: {module.name!r}."
        )
    places = {buffer.id: _place(buffer) for buffer in assignment.logical_buffers}
    program = HloProgram(module, {place: value for value, place in places.items()})
    names = OpNames(program)
    allocations, buffers, values = [], [], []
    for allocation in assignment.buffer_allocations:
        if allocation.is_thread_local:
            continue
        allocations.append(_allocation(allocation))
        for assigned in allocation.assigned:
            value = assigned.logical_buffer_id
            if value in program.first:
                buffers.append(_buffer(program, names, allocations[-1], places[value], assigned))
                values.append(value)
    buffers, conflicts = _share(buffers, values, program)
    return XlaModule(
        name=str(module.name),
        program_id=int(module.id),
        length=len(program),
        instructions=tuple(str(program.instructions[id].name) for id in program.order),
        op_names=tuple(name for name, _ in names.of_positions()),
        backward_from=backward_from(program, names.of_positions()),
        allocations=tuple(allocations),
        buffers=tuple(buffers),
        conflicts=conflicts,
    )


def _place(buffer: Any) -> tuple[int, Index]:
    return buffer.defined_at.instruction_id, tuple(buffer.defined_at.shape_index)


def _allocation(allocation: Any) -> XlaAllocation:
    if allocation.is_entry_computation_parameter:
        kind = "parameter"
    elif allocation.is_constant:
        kind = "constant"
    else:
        kind = "output" if allocation.maybe_live_out else "temp"
    parameter = int(allocation.parameter_number) if kind == "parameter" else None
    return XlaAllocation(int(allocation.index), int(allocation.size), kind, parameter, bool(allocation.maybe_live_out))


def _buffer(
    program: HloProgram, names: OpNames, allocation: XlaAllocation, place: tuple[int, Index], assigned: Any
) -> XlaBuffer:
    value = assigned.logical_buffer_id
    instruction_id, index = place
    instruction = program.instructions[instruction_id]
    shape = instruction.shape
    for number in index:
        shape = shape.tuple_shapes[number]
    is_parameter = instruction.opcode == "parameter" and allocation.kind == "parameter"
    if is_parameter and program.first[value] == 0:
        kind = "parameter"
    elif allocation.kind == "constant":
        kind = "constant"
    else:
        kind = "output" if value in program.results else "temp"
    # Memory that the program does not own exists for the whole run.
    is_kept = kind == "constant" or (kind == "parameter" and not allocation.is_output)
    op_name, op_from = names.of(value)
    same = program.versions.get(program.variables.get(value, value), [value])
    return XlaBuffer(
        name=instruction.name + ("{" + ",".join(map(str, index)) + "}" if index else ""),
        op_name=op_name,
        op_from=op_from,
        bytes=int(assigned.size),
        shape=tuple(shape.dimensions),
        allocation_index=allocation.index,
        offset=int(assigned.offset),
        kind=kind,
        first=0 if is_kept else program.first[value],
        last=len(program) - 1 if is_kept else program.last[value],
        copy_of=_copied(program, value, shape) if kind == "temp" else None,
        in_parameter=allocation.parameter,
        alias_of=None,
        used_by=tuple(dict.fromkeys(name for each in same for name in names.of_users(each))),
    )


def _copied(program: HloProgram, value: int, shape: Any) -> int | None:
    origin = program.origins.get(value)
    if origin is not None:
        parameter = program.instructions[origin]
        same_size = math.prod(shape.dimensions) == math.prod(parameter.shape.dimensions)
        if same_size and not shape.tuple_shapes:
            return int(parameter.parameter_number)
    return None


def _share(buffers: list[XlaBuffer], values: list[int], program: HloProgram) -> tuple[list[XlaBuffer], int]:
    """Ensure that no two buffers count the same bytes at the same time.

    An instruction that works in place writes over its operand, and a loop's variable stays in its place. There the
    older buffer ends when the newer begins, or the newer one is an alias of one that outlives it.
    """
    first, last = ([getattr(buffer, name) for buffer in buffers] for name in ("first", "last"))
    begins = [buffer.offset for buffer in buffers]
    ends = [buffer.offset + buffer.bytes for buffer in buffers]
    alias_of: dict[int, int] = {}
    conflicts = 0
    by_allocation: dict[int, list[int]] = {}
    for number in sorted(range(len(buffers)), key=first.__getitem__):
        by_allocation.setdefault(buffers[number].allocation_index, []).append(number)
    for numbers in by_allocation.values():
        active: list[int] = []
        for new in numbers:
            position, begin, end = first[new], begins[new], ends[new]
            active = [old for old in active if last[old] >= position]
            for old in [old for old in active if begins[old] < end and begin < ends[old]]:
                if begins[old] != begin or not _may_share(values[old], values[new], position, program):
                    conflicts += 1
                elif last[new] < last[old] or position == first[old]:
                    alias_of[new] = old
                    last[old] = max(last[old], last[new])
                    break
                else:
                    last[old] = position - 1
            if new not in alias_of:
                active.append(new)
    shared = [
        buffer
        if last[number] == buffer.last and number not in alias_of
        else replace(buffer, last=last[number], alias_of=alias_of.get(number))
        for number, buffer in enumerate(buffers)
    ]
    return shared, conflicts


def _may_share(old: int, new: int, position: int, program: HloProgram) -> bool:
    if program.variables.get(old, old) == program.variables.get(new, new):
        return True
    return any(old in read for read in program.reads[position])
