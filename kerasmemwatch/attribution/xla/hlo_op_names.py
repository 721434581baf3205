"""The model's operation for each value of a compiled program.

XLA keeps an operation's name as an instruction's metadata, and loses it when it rewrites: in copies, transposes and
pieces of an expanded operation. Such an instruction takes its name from its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.attribution.xla.hlo_program import HloProgram

__all__ = ["Named", "OpNames", "in_gradient_tape"]

# Names that TensorFlow's bridge to XLA gives to a program's arguments.
_NO_NAMES = ("", "XLA_Args", "XLA_Retvals")
# The gradient of a function that is called within the step.
_OF_FUNCTION = re.compile(r"(?:^|/)gradients(?:_\d+)?/.+_grad/")

Named = tuple[str, str]
_UNKNOWN: Named = ("", "")


def in_gradient_tape(op_name: str) -> bool:
    """Whether an operation of TensorFlow belongs to the backward pass.

    Example:
        >>> in_gradient_tape("gradient_tape/mlp/dense/MatMul/MatMul_1"), in_gradient_tape("mlp/dense/MatMul")
        (True, False)
    """
    return "gradient_tape/" in op_name or _OF_FUNCTION.search(op_name) is not None


@dataclass(frozen=True)
class _Fusion:
    """Instructions of a fusion by id, the last of them, and the operations that read each of its operands."""

    instructions: dict[int, Any]
    root: Any
    readers: dict[int, list[str]]

    def nearest_name(self, instruction_id: int) -> str:
        """Return the first name found from an instruction through its operands, breadth first."""
        waiting, seen = [instruction_id], {instruction_id}
        for current in waiting:
            name = _own(self.instructions[current])
            if name:
                return name
            found = [id for id in dict.fromkeys(self.instructions[current].operand_ids) if id not in seen]
            waiting.extend(found)
            seen.update(found)
        return ""


class OpNames:
    """Finds the operation of each value, and the source of its name.

    Sources, in order: ``"own"``, the instruction's name; ``"fusion"``, that of the fused instruction nearest to the
    result; ``"operand"``, that of the latest operand in the schedule; ``"user"``, that of the first reader. A value
    that only the backward pass reads belongs to its readers, not to the preceding forward operation; so do parts of a
    gradient that are computed ahead.
    """

    def __init__(self, program: HloProgram) -> None:
        self._program = program
        self._fusions: dict[int, _Fusion] = {}
        self._of_position = [self._in_metadata(program.instructions[id]) for id in program.order]
        # Only values whose name is not the instruction's: a loop's variables, and parts of a fusion's result.
        self._of_value: dict[int, Named] = {}
        self._position = {value: position for position, values in enumerate(program.writes) for value in values}
        self._merged_into: dict[int, list[int]] = {}
        for merged, sources in program.merges.items():
            for source in sources:
                self._merged_into.setdefault(source, []).append(merged)
        self._read_fusions()
        self._name_by_operands()
        self._name_by_users()

    def of(self, value: int) -> Named:
        """Return the operation's name and the name's source, both empty if unknown."""
        if value in self._program.merges or value in self._of_value:
            return self._of_value.get(value, _UNKNOWN)
        position = self._position.get(value)
        return _UNKNOWN if position is None else self._of_position[position]

    def of_positions(self) -> tuple[Named, ...]:
        """Return each instruction's operation in the schedule, and the source of its name."""
        return tuple(self._of_position)

    def of_users(self, value: int) -> tuple[str, ...]:
        """Return the names of the operations that read a value, including those inside a fusion, without repetition."""
        names: dict[str, None] = {}
        for position in self._readers(value):
            names.update(dict.fromkeys((*self._readers_in_fusion(value, position), self._of_position[position][0])))
        names.pop("", None)
        return tuple(names)

    def _read_fusions(self) -> None:
        for (instruction_id, index), value in self._program.definitions.items():
            instruction = self._program.instructions.get(instruction_id)
            if len(index) == 1 and instruction is not None and instruction.opcode == "fusion":
                fusion = self._fusion(instruction)
                if fusion.root.opcode == "tuple":
                    name = fusion.nearest_name(fusion.root.operand_ids[index[0]])
                    if name:
                        self._of_value[value] = name, "fusion"

    def _in_metadata(self, instruction: Any) -> Named:
        name = _own(instruction)
        if name or instruction.opcode != "fusion":
            return name, "own" if name else ""
        fusion = self._fusion(instruction)
        name = fusion.nearest_name(fusion.root.id)
        return name, "fusion" if name else ""

    def _name_by_operands(self) -> None:
        for position, read in enumerate(self._program.reads):
            for value in self._program.writes[position]:
                if value in self._program.merges:
                    self._of_value[value] = self._latest(self._program.merges[value], position)
            if not self._of_position[position][0]:
                self._of_position[position] = self._latest([value for group in read for value in group], position)

    def _latest(self, values: Sequence[int], position: int) -> Named:
        # A loop's variable is named before the loop's body, which writes it again.
        named = [value for value in values if self._position.get(value, position) < position and self.of(value)[0]]
        if not named:
            return _UNKNOWN
        return self.of(max(named, key=lambda value: self._position[value]))[0], "operand"

    def _name_by_users(self) -> None:
        for position in reversed(range(len(self._program))):
            parts = [value for value in self._program.writes[position] if value in self._program.merges]
            for value in parts:
                # A loop's variable belongs to its layer, whatever reads it afterwards.
                if not self.of(value)[0]:
                    self._of_value[value] = self._by_users([value], _UNKNOWN)
            if not parts:
                self._of_position[position] = self._by_users(
                    self._program.writes[position], self._of_position[position]
                )

    def _by_users(self, values: list[int], named: Named) -> Named:
        name, how = named
        if how not in ("", "operand"):
            return named
        names = [name for value in values for name in self._names_of_users(value)]
        made_for_backward = not in_gradient_tape(name) and all(map(in_gradient_tape, names))
        return (names[0], "user") if names and (not name or made_for_backward) else named

    def _names_of_users(self, value: int) -> Iterator[str]:
        for position in self._readers(value):
            # In a fusion, the operation that reads the value is more specific than the fusion's last one.
            inside = next(filter(None, self._readers_in_fusion(value, position)), "")
            if inside or self._of_position[position][0]:
                yield inside or self._of_position[position][0]
        yield from (self.of(merged)[0] for merged in self._merged_into.get(value, ()) if self.of(merged)[0])

    def _readers(self, value: int) -> list[int]:
        # Instructions that write nothing merely pass the value on.
        return [
            position for position in dict.fromkeys(self._program.uses.get(value, ())) if self._program.writes[position]
        ]

    def _readers_in_fusion(self, value: int, position: int) -> Iterator[str]:
        instruction = self._program.instructions[self._program.order[position]]
        if instruction.opcode == "fusion":
            readers = self._fusion(instruction).readers
            for operand, values in enumerate(self._program.reads[position]):
                if value in values:
                    yield from readers.get(operand, ())

    def _fusion(self, instruction: Any) -> _Fusion:
        called = instruction.called_computation_ids[0]
        if called not in self._fusions:
            self._fusions[called] = _open_fusion(self._program.computations[called])
        return self._fusions[called]


def _open_fusion(computation: Any) -> _Fusion:
    instructions: dict[int, Any] = {}
    parameters: dict[int, int] = {}
    readers: dict[int, list[str]] = {}
    # Operands precede their readers.
    for instruction in computation.instructions:
        instruction_id = instruction.id
        instructions[instruction_id] = instruction
        if instruction.opcode == "parameter":
            parameters[instruction_id] = instruction.parameter_number
        elif read := parameters.keys() & instruction.operand_ids:
            name = _own(instruction)
            for operand_id in read:
                readers.setdefault(parameters[operand_id], []).append(name)
    return _Fusion(instructions, instructions[computation.root_id], readers)


def _own(instruction: Any) -> str:
    # For an operation in a called function, its own name comes first, then the one below the caller's name.
    name = str(instruction.metadata.op_name).rpartition(";")[2]
    return "" if name in _NO_NAMES else name
