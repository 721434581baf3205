"""A compiled program: its instructions in order, and the values that each reads and writes.

Follows XLA's own rules (``hlo_dataflow_analysis.cc``, ``hlo_live_range.cc``). A value is what one instruction writes
into one logical buffer; tuples, bitcasts and control flow pass values on without copying them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["HloProgram", "Index"]

Index = tuple[int, ...]
# These pass on the value of their first operand under the same index.
_TRANSPARENT = {"bitcast", "opt-barrier", "domain", "add-dependency", "while", "copy"}
_ASYNC = {"async-start", "async-update", "async-done"}
_CONTROL_FLOW = {"while", "conditional", "call", *_ASYNC}


class HloProgram:
    """Instructions of the entry computation and of all that it calls, in the order of the schedule.

    The computations of a ``while``, ``conditional`` or ``call`` appear once, right before the instruction that calls
    them, as in XLA's own liveness analysis. The computations of a fusion or a reduction are not part of the order.

    Args:
        definitions: By instruction id and shape index, the id of the value written there.
    """

    def __init__(self, module: Any, definitions: dict[tuple[int, Index], int]) -> None:
        self.definitions = definitions
        self.computations = {computation.id: computation for computation in module.computations}
        self.entry = self.computations[module.entry_computation_id]
        self._sequences = {entry.key: entry.value.instruction_ids for entry in module.schedule.sequences}
        self.instructions: dict[int, Any] = {}
        self.callers: dict[int, Any] = {}  # by computation id, the instruction that calls it
        self.order: list[int] = []  # instruction ids in order
        self.spans: dict[int, tuple[int, int]] = {}  # by computation id, its first and last position in `order`
        self._home: dict[int, int] = {}
        self._known: dict[tuple[int, Index], tuple[int, ...]] = {}
        self._indices: dict[int, list[Index]] = {}
        self._flatten(self.entry)
        self.writes: list[list[int]] = [[] for _ in self.order]  # by position, the ids of the values that it writes
        # By instruction id, its position in `order`.
        self.positions = {instruction_id: position for position, instruction_id in enumerate(self.order)}
        for (instruction_id, _), value in definitions.items():
            if instruction_id in self.positions:
                self.writes[self.positions[instruction_id]].append(value)
        self.uses: dict[int, list[int]] = {}  # by value id, the positions that read it
        self.reads: list[list[tuple[int, ...]]] = []  # by position, the ids of the values that it reads, by operand
        self._read()
        self.results = frozenset(self._values_below(self.entry.root_id))  # ids of the values that the program returns
        self.first: dict[int, int] = {}  # by value id, the position that writes it
        self.last: dict[int, int] = {}  # by value id, the last position that needs it
        self._live()
        # By value id, the values that it may be, for a loop's variables and a conditional's results.
        self.merges = dict(self._merges())
        # By value id, the instruction id of the program's parameter that it depends on, `None` if several; values that
        # depend on none are left out.
        self.origins = self._origins()
        self.variables = self._variables()  # by value id, one value that represents all that merge with it, if any do
        self.versions: dict[int, list[int]] = {}  # by representative value, all that it represents
        for value, variable in self.variables.items():
            self.versions.setdefault(variable, []).append(value)

    def __len__(self) -> int:
        return len(self.order)

    def values(self, instruction_id: int, index: Index) -> tuple[int, ...]:
        """Return the ids of the values of an instruction at an index of its shape, its own or passed on."""
        key = (instruction_id, index)
        if key in self.definitions:
            return (self.definitions[key],)
        if key not in self._known:
            found = [value for source in self._sources(*key) for value in self.values(*source)]
            self._known[key] = tuple(dict.fromkeys(found))
        return self._known[key]

    def _flatten(self, computation: Any) -> None:
        begin = len(self.order)
        for instruction in computation.instructions:
            self.instructions[instruction.id] = instruction
            self._home[instruction.id] = computation.id
        for instruction_id in self._sequences.get(computation.id, ()):
            instruction = self.instructions[instruction_id]
            if instruction.opcode in _CONTROL_FLOW:
                for called in _called(instruction):
                    if called not in self.callers:
                        self.callers[called] = instruction
                        self._flatten(self.computations[called])
            self.order.append(instruction_id)
        self.spans[computation.id] = (begin, max(begin, len(self.order) - 1))

    def _sources(self, instruction_id: int, index: Index) -> Iterator[tuple[int, Index]]:
        instruction = self.instructions[instruction_id]
        opcode, operands = instruction.opcode, instruction.operand_ids
        if opcode == "tuple" and index:
            yield operands[index[0]], index[1:]
        elif opcode == "get-tuple-element":
            yield operands[0], (instruction.tuple_index, *index)
        elif opcode in _TRANSPARENT:
            yield operands[0], index
        elif opcode == "copy-start" and index[:1] == (1,):
            yield operands[0], index[1:]
        elif opcode == "copy-done":
            yield operands[0], (0, *index)
        elif opcode == "parameter" and self._home[instruction_id] in self.callers:
            yield self._argument(instruction, index)
        elif opcode in ("call", "conditional"):
            yield from ((self.computations[called].root_id, index) for called in instruction.called_computation_ids)
        elif opcode in _ASYNC:
            yield from self._async_sources(instruction, index)

    def _argument(self, parameter: Any, index: Index) -> tuple[int, Index]:
        computation_id = self._home[parameter.id]
        caller = self.callers[computation_id]
        if caller.opcode == "conditional":
            # The first operand selects the branch, and each branch has one parameter.
            branch = list(caller.called_computation_ids).index(computation_id)
            return caller.operand_ids[1 + branch], index
        return caller.operand_ids[parameter.parameter_number], index

    def _async_sources(self, instruction: Any, index: Index) -> Iterator[tuple[int, Index]]:
        if instruction.opcode == "async-done":
            yield instruction.operand_ids[0], (1, *index)
        elif instruction.opcode == "async-update":
            yield instruction.operand_ids[0], index
        elif index[:1] == (0,) and len(index) > 1:
            yield instruction.operand_ids[index[1]], index[2:]
        elif index[:1] == (1,):
            yield from ((self.computations[called].root_id, index[1:]) for called in instruction.called_computation_ids)

    def _read(self) -> None:
        for position, instruction_id in enumerate(self.order):
            instruction = self.instructions[instruction_id]
            read = []
            for operand_id in instruction.operand_ids:
                found = dict.fromkeys(
                    value
                    for index in self._read_indices(instruction.opcode, operand_id)
                    for value in self.values(operand_id, index)
                )
                read.append(tuple(found))
                for value in found:
                    self.uses.setdefault(value, []).append(position)
            self.reads.append(read)

    def _live(self) -> None:
        for position, written in enumerate(self.writes):
            instruction_id = self.order[position]
            is_argument = self.instructions[instruction_id].opcode == "parameter"
            # Arguments exist before the first instruction.
            begin = self.spans[self._home[instruction_id]][0] if is_argument else position
            for value in written:
                self.first[value] = begin
                self.last[value] = max([begin, *map(self._end_of_use, self.uses.get(value, ()))])
        for computation_id, (_, end) in self.spans.items():
            for value in self._values_below(self.computations[computation_id].root_id):
                self.last[value] = max(self.last.get(value, 0), end)

    def _end_of_use(self, position: int) -> int:
        instruction = self.instructions[self.order[position]]
        if instruction.opcode == "while":
            # From there on, the loop's own variable has the same place.
            return self.spans[_called(instruction)[-1]][0]
        return position

    def _merges(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        for computation_id, caller in self.callers.items():
            root = self.computations[computation_id].root_id
            if caller.opcode == "while":
                for index in self._shape_indices(caller.id):
                    initial = self.values(caller.operand_ids[0], index)
                    body = self.values(root, index) if computation_id == _called(caller)[-1] else ()
                    for parameter in self._parameters(computation_id):
                        yield from self._merge(parameter, index, initial + body)
                    yield from self._merge(caller.id, index, initial + body)
            elif caller.opcode == "conditional":
                for index in self._shape_indices(caller.id):
                    branches = [self.computations[called].root_id for called in caller.called_computation_ids]
                    yield from self._merge(caller.id, index, tuple(v for b in branches for v in self.values(b, index)))

    def _merge(
        self, instruction_id: int, index: Index, values: tuple[int, ...]
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        merged = self.definitions.get((instruction_id, index))
        if merged is not None:
            yield merged, tuple(value for value in dict.fromkeys(values) if value != merged)

    def _origins(self) -> dict[int, int | None]:
        origins: dict[int, int | None] = {}
        for instruction_id, read, written in zip(self.order, self.reads, self.writes, strict=True):
            sources = {origins[value] for group in read for value in group if value in origins}
            if self.instructions[instruction_id].opcode == "parameter":
                sources = {instruction_id if self._home[instruction_id] == self.entry.id else None}
            for value in written:
                if value in self.merges:
                    # Values that a loop writes are not known yet.
                    origins[value] = None
                elif sources:
                    origins[value] = sources.copy().pop() if len(sources) == 1 else None
        return origins

    def _variables(self) -> dict[int, int]:
        parent: dict[int, int] = {}

        def find(value: int) -> int:
            while parent.setdefault(value, value) != value:
                value = parent[value]
            return value

        for merged, sources in self.merges.items():
            for source in sources:
                parent[find(source)] = find(merged)
        return {value: find(value) for value in list(parent)}

    def _parameters(self, computation_id: int) -> list[int]:
        sequence = self._sequences.get(computation_id, ())
        return [id for id in sequence if self.instructions[id].opcode == "parameter"]

    def _values_below(self, instruction_id: int) -> Iterator[int]:
        for index in self._shape_indices(instruction_id):
            yield from self.values(instruction_id, index)

    def _read_indices(self, opcode: str, operand_id: int) -> list[Index]:
        """List the indices of its operand that an instruction reads; others are at most passed on."""
        if opcode in ("get-tuple-element", "copy"):
            return [()]
        return [] if opcode in ("tuple", "domain") else self._shape_indices(operand_id)

    def _shape_indices(self, instruction_id: int) -> list[Index]:
        if instruction_id not in self._indices:
            self._indices[instruction_id] = list(_indices(self.instructions[instruction_id].shape))
        return self._indices[instruction_id]


def _called(instruction: Any) -> list[int]:
    """List the computations that an instruction calls, in the order in which they run."""
    called = list(instruction.called_computation_ids)
    # XLA lists a loop's body before its condition.
    return called[::-1] if instruction.opcode == "while" else called


def _indices(shape: Any, at: Index = ()) -> Iterator[Index]:
    yield at
    for number, part in enumerate(shape.tuple_shapes):
        yield from _indices(part, (*at, number))
