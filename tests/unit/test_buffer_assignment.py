"""Buffers of compiled programs: small ones written here, and three real ones from ``tests/data``."""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.attribution.xla.buffer_assignment import UnscheduledModuleError, open_module, requests
from kerasmemwatch.attribution.xla.hlo_proto import parse_hlo
from kerasmemwatch.attribution.xla.program_memory import XlaAllocation, XlaBuffer, XlaModule, live_bytes

DATA = Path(__file__).parents[1] / "data"
CAPTURED = ["cnn", "lstm", "cond"]
FLOAT = 4
BATCH = 16


@cache
def captured_proto(name: str) -> Any:
    return parse_hlo(lzma.decompress((DATA / f"{name}.hlo.xz").read_bytes()))


@cache
def captured(name: str) -> XlaModule:
    return open_module(captured_proto(name))


class Program:
    """Writes a ``HloProto``: computations first, the entry last; then what lies where."""

    def __init__(self) -> None:
        self.proto = parse_hlo(b"")
        self.module = self.proto.hlo_module
        self.module.name = "step"
        self.ids: dict[str, int] = {}

    def computation(self, name: str, *instructions: Any) -> Program:
        computation = self.module.computations.add(name=name, id=len(self.ids) + 1)
        self.ids[name] = computation.id
        for instruction in instructions:
            self._add(computation, **instruction)
        computation.root_id = computation.instructions[-1].id
        sequence = self.module.schedule.sequences.add(key=computation.id).value
        sequence.instruction_ids.extend(instruction.id for instruction in computation.instructions)
        self.module.entry_computation_id = computation.id
        return self

    def _add(
        self,
        computation: Any,
        name: str,
        opcode: str,
        operands: Sequence[str] = (),
        op_name: str = "",
        calls: Sequence[str] = (),
        shape: Sequence[int] = (1,),
        parts: int = 0,
        number: int = 0,
    ) -> None:
        made = computation.instructions.add(name=name, opcode=opcode, id=len(self.ids) + 1)
        self.ids[name] = made.id
        made.operand_ids.extend(self.ids[operand] for operand in operands)
        made.called_computation_ids.extend(self.ids[called] for called in calls)
        made.metadata.op_name = op_name
        made.parameter_number = made.tuple_index = number
        if parts:
            for _ in range(parts):
                made.shape.tuple_shapes.add(dimensions=shape)
        else:
            made.shape.dimensions.extend(shape)

    def allocation(self, size: int, *buffers: tuple[str, Sequence[int], int, int], **fields: Any) -> Program:
        assignment = self.proto.buffer_assignment
        made = assignment.buffer_allocations.add(index=len(assignment.buffer_allocations), size=size, **fields)
        for name, index, offset, width in buffers:
            buffer = assignment.logical_buffers.add(id=len(assignment.logical_buffers), size=width)
            buffer.defined_at.instruction_id = self.ids[name]
            buffer.defined_at.shape_index.extend(index)
            made.assigned.add(logical_buffer_id=buffer.id, offset=offset, size=width)
        return self

    def open(self) -> dict[str, XlaBuffer]:
        self.opened = open_module(self.proto)
        return {buffer.name: buffer for buffer in self.opened.buffers}


def op(name: str, opcode: str, *operands: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "opcode": opcode, "operands": operands, **fields}


def chain(offset_of_b: int = 8) -> Program:
    """x -> a -> b -> c, where a is read again at the end."""
    return (
        Program()
        .computation(
            "main",
            op("x", "parameter", op_name="XLA_Args"),
            op("a", "dot", "x", op_name="model/one/MatMul"),
            op("b", "dot", "a", op_name="model/two/MatMul"),
            op("c", "dot", "b", op_name="gradient_tape/model/two/MatMul"),
            op("result", "dot", "a", "c", op_name="adam/Assign"),
        )
        .allocation(4, ("x", (), 0, 4), is_entry_computation_parameter=True)
        .allocation(4, ("result", (), 0, 4), maybe_live_out=True)
        .allocation(24, ("a", (), 0, 8), ("b", (), offset_of_b, 8), ("c", (), 16, 8))
    )


def test_a_buffer_lives_from_its_instruction_to_the_last_that_reads_it() -> None:
    program = chain()
    buffers = program.open()
    assert {name: (buffer.first, buffer.last) for name, buffer in buffers.items()} == {
        "x": (0, 4),
        "a": (1, 4),
        "b": (2, 3),
        "c": (3, 4),
        "result": (4, 4),
    }
    assert {name: buffer.kind for name, buffer in buffers.items()} == {
        "x": "parameter",
        "a": "temp",
        "b": "temp",
        "c": "temp",
        "result": "output",
    }
    assert live_bytes(program.opened, 2).tolist() == [0, 8, 16, 24, 16]
    assert buffers["a"].used_by == ("model/two/MatMul", "adam/Assign")
    assert program.opened.temp_bytes == 24
    assert program.opened.requests == (
        XlaAllocation(1, 4, "output", None, True),
        XlaAllocation(2, 24, "temp", None, False),
    )
    assert program.opened.instructions == ("x", "a", "b", "c", "result")
    assert program.opened.conflicts == 0


def test_two_that_overlap_without_reason_are_a_conflict() -> None:
    # c is not made of a, and yet would be written over it.
    program = chain()
    program.proto.buffer_assignment.buffer_allocations[2].assigned[2].offset = 0
    program.open()
    assert program.opened.conflicts == 1


def test_work_in_place_is_counted_once() -> None:
    program = (
        Program()
        .computation(
            "main",
            op("a", "constant"),
            op("b", "add", "a"),
            op("c", "multiply", "b"),
            op("d", "negate", "c"),
        )
        .allocation(4, ("a", (), 0, 4), is_constant=True)
        .allocation(16, ("b", (), 0, 16), ("c", (), 0, 16))
        .allocation(16, ("d", (), 0, 16), maybe_live_out=True)
    )
    buffers = program.open()
    assert [(buffers[name].first, buffers[name].last) for name in "bc"] == [(1, 1), (2, 3)]
    assert live_bytes(program.opened, 1).tolist() == [0, 16, 16, 16]
    assert program.opened.conflicts == 0


def test_tuples_and_bitcasts_pass_a_value_on() -> None:
    buffers = (
        Program()
        .computation(
            "main",
            op("both", "custom-call", parts=2),
            op("pair", "tuple", "both", "both", parts=2),
            op("second", "get-tuple-element", "both", number=1),
            op("flat", "bitcast", "second"),
            op("other", "constant"),
            op("reader", "dot", "flat", op_name="model/late/MatMul"),
        )
        .allocation(16, ("both", (0,), 0, 8), ("both", (1,), 8, 8), ("reader", (), 0, 4))
        .open()
    )
    assert buffers["both{1}"].last == 5
    assert buffers["both{0}"].last == 0
    assert buffers["both{1}"].used_by == ("model/late/MatMul",)
    assert (buffers["both{1}"].op_name, buffers["both{1}"].op_from) == ("model/late/MatMul", "user")


def test_a_new_weight_takes_the_place_of_the_old() -> None:
    program = (
        Program()
        .computation(
            "main",
            op("weight", "parameter", number=3, shape=(2, 3)),
            op("copy", "copy", "weight", shape=(2, 3)),
            op("scratch", "dot", "copy", shape=(6,)),
            op("updated", "subtract", "copy", "scratch", op_name="adam/AssignSub", shape=(2, 3)),
        )
        .allocation(
            24,
            *(("weight", (), 0, 24), ("scratch", (), 0, 24), ("updated", (), 0, 24)),
            is_entry_computation_parameter=True,
            parameter_number=3,
            maybe_live_out=True,
        )
        .allocation(24, ("copy", (), 0, 24))
    )
    buffers = program.open()
    assert program.opened.allocations[0] == XlaAllocation(0, 24, "parameter", 3, True)
    assert {name: (b.kind, b.in_parameter, b.copy_of, b.first, b.last) for name, b in buffers.items()} == {
        "weight": ("parameter", 3, None, 0, 1),
        "copy": ("temp", None, 3, 1, 3),
        # Made of the weight alone and as large, as far as can be told.
        "scratch": ("temp", 3, 3, 2, 2),
        "updated": ("output", 3, None, 3, 3),
    }
    assert live_bytes(program.opened, 0).tolist() == [24, 24, 24, 24]


def loop(body_offset: int = 0) -> Program:
    """A loop whose variable is written in place, with a buffer that lives within its body only."""
    return (
        Program()
        .computation(
            "condition",
            op("seen", "parameter", parts=1),
            op("limit", "get-tuple-element", "seen"),
            op("again", "compare", "limit"),
        )
        .computation(
            "body",
            op("state", "parameter", parts=1),
            op("old", "get-tuple-element", "state"),
            op("within", "dot", "old", op_name="model/cell/while/MatMul"),
            op("new", "add", "old", "within", op_name="model/cell/while/Add"),
            op("next", "tuple", "new", parts=1),
        )
        .computation(
            "main",
            op("zeros", "broadcast", op_name="model/cell/zeros"),
            op("begin", "tuple", "zeros", parts=1),
            op("loop", "while", "begin", calls=("body", "condition"), parts=1),
            op("end", "get-tuple-element", "loop"),
            op("result", "dot", "end", op_name="gradient_tape/model/cell/MatMul"),
        )
        .allocation(
            20,
            *(("zeros", (), 0, 8), ("state", (0,), body_offset, 8), ("seen", (0,), 0, 8), ("new", (), body_offset, 8)),
            *(("loop", (0,), 0, 8), ("within", (), 8, 8), ("again", (), 16, 1)),
        )
        .allocation(8, ("result", (), 0, 8), maybe_live_out=True)
    )


def test_a_loop_stands_once_before_its_instruction() -> None:
    program = loop()
    buffers = program.open()
    order = [
        "zeros",
        "begin",
        "seen",
        "limit",
        "again",
        "state",
        "old",
        "within",
        "new",
        "next",
        "loop",
        "end",
        "result",
    ]
    assert list(program.opened.instructions) == order
    assert (buffers["within"].first, buffers["within"].last) == (order.index("within"), order.index("new"))
    # One variable, at any time held by one of its versions; what the condition sees is what the loop begins with.
    variable = [buffers[name] for name in ("zeros", "state{0}", "new", "loop{0}")]
    assert [(buffer.first, buffer.last) for buffer in variable] == [(0, 4), (5, 7), (8, 9), (10, 12)]
    assert program.opened.buffers[buffers["seen{0}"].alias_of or 0].name == "zeros"
    assert live_bytes(program.opened, 0).tolist() == [8, 8, 8, 8, 9, 8, 8, 16, 16, 8, 8, 8, 8]
    assert program.opened.conflicts == 0
    assert all("gradient_tape/model/cell/MatMul" in buffer.used_by for buffer in variable)
    assert [(buffer.op_name, buffer.op_from) for buffer in variable] == [
        ("model/cell/zeros", "own"),
        ("model/cell/zeros", "operand"),
        ("model/cell/while/Add", "own"),
        ("model/cell/while/Add", "operand"),
    ]


def test_a_loop_that_kept_its_variable_over_another_buffer_is_a_conflict() -> None:
    program = loop(body_offset=4)
    program.open()
    assert program.opened.conflicts > 0


def test_a_version_that_outlives_a_newer_one_counts_for_both() -> None:
    program = loop()
    # The first version is read again after the loop, as where XLA knows that the loop does not change it.
    program.module.computations[2].instructions[-1].operand_ids.append(program.ids["zeros"])
    buffers = program.open()
    assert program.opened.conflicts == 0
    assert [buffers[name].alias_of is None for name in ("zeros", "seen{0}", "state{0}", "new")] == [True] + 3 * [False]
    assert live_bytes(program.opened, 0).tolist() == [8, 8, 8, 8, 9, 8, 8, 16, 16, 8, 8, 8, 8]


def test_the_branches_of_a_conditional_stand_one_after_the_other() -> None:
    program = (
        Program()
        .computation("yes", op("given", "parameter"), op("tanh", "tanh", "given", op_name="model/cond/Tanh"))
        .computation("no", op("taken", "parameter"), op("twice", "multiply", "taken", op_name="model/cond/Mul"))
        .computation(
            "main",
            op("choice", "compare"),
            op("input", "dot", op_name="model/Input"),
            op("chosen", "conditional", "choice", "input", "input", calls=("yes", "no")),
            op("result", "dot", "chosen"),
        )
        .allocation(16, *((name, (), 0, 8) for name in ("tanh", "twice", "chosen")), ("input", (), 8, 8))
        .allocation(1, ("choice", (), 0, 1))
    )
    buffers = program.open()
    assert list(program.opened.instructions) == [
        "choice",
        "input",
        "given",
        "tanh",
        "taken",
        "twice",
        "chosen",
        "result",
    ]
    assert {name: (b.first, b.last) for name, b in buffers.items()} == {
        "tanh": (3, 3),
        "twice": (5, 5),
        "chosen": (6, 7),
        "input": (1, 6),
        "choice": (0, 6),
    }
    assert buffers["chosen"].op_name == "model/cond/Mul"
    assert live_bytes(program.opened, 0).tolist() == [0, 8, 8, 16, 8, 16, 16, 8]


def test_a_call_passes_values_in_and_out() -> None:
    buffers = (
        Program()
        .computation("called", op("argument", "parameter"), op("inner", "dot", "argument", op_name="model/a/MatMul"))
        .computation(
            "main",
            op("input", "dot", op_name="model/Input"),
            op("call", "call", "input", calls=("called",)),
            op("result", "dot", "call", op_name="model/b/MatMul"),
        )
        .allocation(16, ("input", (), 0, 8), ("inner", (), 8, 8))
        .allocation(8, ("result", (), 0, 8), maybe_live_out=True)
        .open()
    )
    assert (buffers["input"].first, buffers["input"].last) == (0, 3)
    assert (buffers["inner"].first, buffers["inner"].last) == (2, 4)
    assert buffers["inner"].used_by == ("model/b/MatMul",)


def test_names_come_from_the_fusion_the_operands_and_the_users() -> None:
    buffers = (
        Program()
        .computation(
            "fused",
            op("p", "parameter"),
            op("inner", "multiply", "p", op_name="model/norm/mul"),
            op("outer", "transpose", "inner"),
        )
        .computation("plain", op("q", "parameter"), op("read", "add", "q", op_name="model/dense/BiasAdd"))
        .computation(
            "main",
            op("bias", "parameter", op_name="XLA_Args"),
            op("moved", "copy", "bias"),
            op("fusion", "fusion", "moved", calls=("fused",)),
            op("flipped", "transpose", "fusion"),
            op("ahead", "transpose", "fusion"),
            op("last", "fusion", "moved", calls=("plain",), op_name="model/loss/Sum"),
            op("back", "dot", "ahead", op_name="gradient_tape/model/dense/MatMul"),
            op("forth", "dot", "flipped", op_name="model/dense/MatMul"),
            op("lonely", "iota"),
        )
        .allocation(4, ("bias", (), 0, 4), is_entry_computation_parameter=True)
        .allocation(
            32,
            *((name, (), 4 * place, 4) for place, name in enumerate(["moved", "fusion", "flipped", "ahead", "lonely"])),
        )
        .allocation(12, *((name, (), 4 * place, 4) for place, name in enumerate(["last", "back", "forth"])))
        .open()
    )
    assert {name: (buffer.op_name, buffer.op_from) for name, buffer in buffers.items()} == {
        "bias": ("model/norm/mul", "user"),
        "moved": ("model/norm/mul", "user"),
        "fusion": ("model/norm/mul", "fusion"),
        "flipped": ("model/norm/mul", "operand"),
        # Only the backward pass wants it.
        "ahead": ("gradient_tape/model/dense/MatMul", "user"),
        "lonely": ("", ""),
        "last": ("model/loss/Sum", "own"),
        "back": ("gradient_tape/model/dense/MatMul", "own"),
        "forth": ("model/dense/MatMul", "own"),
    }
    assert buffers["moved"].used_by == ("model/norm/mul", "model/dense/BiasAdd", "model/loss/Sum")


def test_the_backward_pass_begins_where_data_and_weights_have_met() -> None:
    program = (
        Program()
        .computation(
            "main",
            op("x", "parameter"),
            op("weight", "parameter", number=1),
            op("zeros", "broadcast", op_name="gradient_tape/model/zeros"),
            op("turned", "transpose", "weight", op_name="gradient_tape/model/dense/MatMul"),
            op("forward", "dot", "x", "weight", op_name="model/dense/MatMul"),
            op("backward", "dot", "forward", "turned", op_name="gradient_tape/model/dense/MatMul"),
        )
        .allocation(8, ("x", (), 0, 4), ("weight", (), 4, 4), is_entry_computation_parameter=True)
        .allocation(16, *((name, (), 4 * n, 4) for n, name in enumerate(["zeros", "turned", "forward", "backward"])))
    )
    program.open()
    assert program.opened.backward_from == 5
    assert program.opened.op_names[2] == "gradient_tape/model/zeros"


def test_the_backward_pass_begins_after_the_derivative_that_was_made_ahead() -> None:
    program = (
        Program()
        .computation(
            "main",
            op("x", "parameter"),
            op("weight", "parameter", number=1),
            op("hidden", "dot", "x", "weight", op_name="model/dense/MatMul"),
            op("slope", "logistic", "hidden", op_name="gradient_tape/model/dense/Sigmoid"),
            op("output", "multiply", "hidden", "x", op_name="model/head/mul"),
            op("of_head", "multiply", "output", "hidden", op_name="gradient_tape/model/head/mul"),
            op("of_dense", "multiply", "output", "slope", op_name="gradient_tape/model/dense/mul"),
            op("new", "subtract", "weight", "of_dense", op_name="adam/AssignSubVariableOp"),
            op("penalty", "multiply", "weight", "weight", op_name="gradient_tape/model/penalty"),
            op("result", "tuple", "of_head", "new", "penalty"),
        )
        .allocation(8, ("x", (), 0, 4), ("weight", (), 4, 4), is_entry_computation_parameter=True)
        .allocation(
            28,
            *(
                (name, (), 4 * place, 4)
                for place, name in enumerate(["hidden", "slope", "output", "of_head", "of_dense", "new", "penalty"])
            ),
        )
    )
    program.open()
    # Not the slope's position: both gradients wait for the output.
    assert program.opened.backward_from == 5


def test_the_parts_of_a_fusions_result_have_names_of_their_own() -> None:
    buffers = (
        Program()
        .computation(
            "fused",
            op("p", "parameter"),
            op("one", "multiply", "p", op_name="model/one/Mul"),
            op("two", "multiply", "p", op_name="model/two/Mul"),
            op("root", "tuple", "one", "two", parts=2),
        )
        .computation(
            "main",
            op("x", "parameter"),
            op("fusion", "fusion", "x", calls=("fused",), parts=2, op_name="model/two/Mul"),
        )
        .allocation(16, ("fusion", (0,), 0, 8), ("fusion", (1,), 8, 8))
        .open()
    )
    assert [buffers[f"fusion{{{part}}}"].op_name for part in (0, 1)] == ["model/one/Mul", "model/two/Mul"]


def test_what_is_on_a_threads_stack_is_left_out() -> None:
    program = chain()
    program.allocation(4, ("a", (), 0, 4), is_thread_local=True)
    program.open()
    assert [allocation.index for allocation in program.opened.allocations] == [0, 1, 2]


def test_a_program_without_schedule_says_so() -> None:
    with pytest.raises(UnscheduledModuleError, match="'step'"):
        open_module(Program().proto)


@pytest.mark.parametrize("name", CAPTURED)
def test_no_two_buffers_of_a_real_step_share_bytes_at_a_time(name: str) -> None:
    """At each position the live buffers of each allocation are put side by side, without the code under test."""
    module = captured(name)
    sizes = {allocation.index: allocation.bytes for allocation in module.allocations}
    assert module.conflicts == 0
    for position in range(module.length):
        alive = [b for b in module.buffers if b.alias_of is None and b.first <= position <= b.last]
        for index in {buffer.allocation_index for buffer in alive}:
            spans = sorted((b.offset, b.offset + b.bytes) for b in alive if b.allocation_index == index)
            assert all(end <= begin for (_, end), (begin, _) in pairwise(spans)), (position, index)
            assert spans[-1][1] <= sizes[index]


@pytest.mark.parametrize("name", CAPTURED)
def test_a_real_temp_block_is_nearly_full_at_its_peak_and_all_named(name: str) -> None:
    module = captured(name)
    (block,) = (allocation for allocation in module.allocations if allocation.kind == "temp")
    live = live_bytes(module, block.index)
    # XLA packs tightly, so lifetimes that were too short would leave a block half empty, and too long overfill it.
    assert 0.97 * block.bytes <= live.max() <= block.bytes == module.temp_bytes
    peak = int(live.argmax())
    named = [
        b.bytes
        for b in module.buffers
        if b.allocation_index == block.index and b.alias_of is None and b.first <= peak <= b.last and b.op_name
    ]
    assert sum(named) >= 0.999 * live.max()


@pytest.mark.parametrize("name", CAPTURED)
def test_a_wrong_offset_in_a_real_step_is_a_conflict(name: str) -> None:
    proto = parse_hlo(captured_proto(name).SerializeToString())
    block = next(a for a in proto.buffer_assignment.buffer_allocations if a.index == temp_index(captured(name)))
    for assigned in block.assigned:
        assigned.offset //= 2
    assert open_module(proto).conflicts > 0


@pytest.mark.parametrize("name", CAPTURED)
def test_the_variables_of_a_real_step_are_donated(name: str) -> None:
    module = captured(name)
    donated = [a for a in module.allocations if a.kind == "parameter" and a.is_output]
    for allocation in donated:
        results = [b for b in module.buffers if b.allocation_index == allocation.index and b.kind == "output"]
        assert [b.bytes for b in results] == [allocation.bytes]
        assert results[0].in_parameter == allocation.parameter
        assert results[0].last == module.length - 1
    # Two kernels and biases, or an LSTM's three and a head's two: with Adam's two slots each, at least 3 of a kind.
    assert len(donated) >= 12


def temp_index(module: XlaModule) -> int:
    return next(allocation.index for allocation in module.allocations if allocation.kind == "temp")


def test_a_convolutions_output_waits_for_the_backward_pass() -> None:
    module = captured("cnn")
    output = next(b for b in module.buffers if b.op_name.endswith("/c1_1/convolution") and b.op_from == "own")
    assert output.shape == (BATCH, 14, 14, 8)
    assert output.bytes == BATCH * 14 * 14 * 8 * FLOAT
    assert any(name.startswith("gradient_tape/") and "/c1_1/" in name for name in output.used_by)
    assert module.backward_from is not None
    assert output.first < module.backward_from <= output.last


def test_what_prepares_the_pools_gradient_belongs_to_the_pool() -> None:
    # Four arrays of indices as large as the pool's input, which XLA gives no name.
    indices = [b for b in captured("cnn").buffers if b.name.startswith("wrapped_iota")]
    assert [b.bytes for b in indices] == [BATCH * 14 * 14 * 8 * FLOAT] * 4
    assert {(b.op_name, b.op_from) for b in indices} == {("gradient_tape/model_1/pool_1/MaxPool2d/MaxPoolGrad", "user")}


def test_a_real_loop_keeps_what_its_backward_pass_needs() -> None:
    module = captured("lstm")
    # The gates' kernel inputs of each of 12 time steps: 4 x 16 units.
    kept = [b for b in module.buffers if b.shape == (12, BATCH, 64) and b.allocation_index == temp_index(module)]
    assert {b.bytes for b in kept} == {12 * BATCH * 64 * FLOAT}
    assert len({b.offset for b in kept if "TensorListPushBack" in b.op_name}) == 1
    backward = next(position for position, name in enumerate(module.op_names) if "gradients/" in name)
    alive = np.zeros(module.length, np.int64)
    for buffer in kept:
        if buffer.alias_of is None:
            alive[buffer.first : buffer.last + 1] += 1
    loop_end = max(p for p, name in enumerate(module.op_names) if "TensorListPushBack" in name)
    assert (alive[loop_end:backward] >= 1).all()


@pytest.mark.parametrize("name", CAPTURED)
def test_what_a_program_asks_for_is_known_before_it_is_opened(name: str) -> None:
    assert requests(captured_proto(name)) == captured(name).requests
