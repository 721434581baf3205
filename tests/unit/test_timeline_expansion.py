"""The buffers of a compiled step stand in the timeline in the place of its block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from timelines import timeline

from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer
from kerasmemwatch.attribution.xla.buffer_owners import XlaCategories
from kerasmemwatch.attribution.xla.program_memory import XlaAllocation, XlaBuffer, XlaModule
from kerasmemwatch.attribution.xla.program_runs import XlaRun
from kerasmemwatch.attribution.xla.timeline_expansion import CompiledRun, compiled_runs, expand
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.owners import LOSS, OPTIMIZER, Frame
from kerasmemwatch.records.timeline import PHASES, Timeline

A = Frame("a", "Dense", "forward")
OWNERS = OpOwners(
    {
        "m/a/MatMul": [A],
        "gradient_tape/m/a/MatMul_1": [A._replace(phase="backward")],
        "loss/Mean": [Frame(LOSS, "", "forward")],
        "AddN": [A._replace(phase="backward")],
        "adam/mul": [Frame(OPTIMIZER, "", "update")],
    }
)
KERNEL = GradientBuffer("a", "Dense", 300, 1, ops=("gradient_tape/m/a/MatMul_1",))
# Parameter, output, then the temp block.
BLOCK, OUTPUT = 2, 1
ALLOCATIONS = (
    XlaAllocation(0, 400, "parameter", 0, False),
    XlaAllocation(1, 64, "output", None, True),
    XlaAllocation(2, 1000, "temp", None, False),
)


def buffer(op_name: str, size: int, first: int, last: int, **changed: Any) -> XlaBuffer:
    made = XlaBuffer(
        name=op_name, op_name=op_name, op_from="own", bytes=size, shape=(size,), allocation_index=BLOCK, offset=0,
        kind="temp", first=first, last=last, copy_of=None, in_parameter=None, alias_of=None, used_by=(),
    )  # fmt: skip
    return replace(made, **changed)


BUFFERS = (
    buffer("m/a/MatMul", 600, 0, 3),
    buffer("m/a/MatMul", 100, 1, 1),
    buffer("gradient_tape/m/a/MatMul_1", 300, 3, 4, used_by=("adam/mul",)),
    buffer("loss/Mean", 4, 2, 2),
    buffer("", 8, 0, 0, op_from=""),
    buffer("adam/mul", 64, 4, 5, kind="output", allocation_index=OUTPUT),
    buffer("m/a/MatMul", 600, 2, 3, alias_of=0),
    buffer("m/a/MatMul", 400, 0, 0, allocation_index=0, kind="parameter"),
)


def module(buffers: tuple[XlaBuffer, ...] = BUFFERS, length: int = 6, backward_from: int | None = 3) -> XlaModule:
    return XlaModule(
        name="step", program_id=7, length=length, instructions=("i",) * length, op_names=("",) * length,
        backward_from=backward_from, allocations=ALLOCATIONS, buffers=buffers, conflicts=0,
    )  # fmt: skip


# Something before; then the program asks for its output and its block, and gives the block back.
BEFORE = timeline(
    [
        (400, -1, 4, "a", "weights", "between", ""),
        (40, 0, 4, "input pipeline", "inputs", "input", ""),
        (64, 1, 4, "unattributed", "unattributed", "between", ""),
        (1000, 2, 3, "unattributed", "unattributed", "between", ""),
    ],
    4,
    in_use_bytes=np.array([1_000, 1_256, 2_280, 1_256]),
    in_use_before_bytes=744,
)
RUN = CompiledRun(module(), {OUTPUT: 2, BLOCK: 3}, event=2, end=3)


def opened(
    before: Timeline = BEFORE,
    *runs: CompiledRun,
    gradients: Sequence[GradientBuffer] = (),
    assigned: Mapping[str, KnownBuffer] | None = None,
) -> Timeline:
    return expand(before, runs or (RUN,), OWNERS, XlaCategories(OWNERS, gradients, assigned or {}))


def rows(made: Timeline) -> list[tuple[int, int, int, str, str, str]]:
    return [
        (int(size), int(birth), int(death), made.owners[owner], CATEGORIES[category], PHASES[phase])
        for size, birth, death, owner, category, phase in zip(
            made.requested_bytes, made.birth, made.death, made.owner, made.category, made.phase, strict=True
        )
    ]


def test_the_buffers_stand_between_the_blocks_birth_and_death() -> None:
    made = opened(gradients=[KERNEL])
    assert made.num_events == BEFORE.num_events + 6
    assert rows(made) == [
        (400, -1, 10, "a", "weights", "between"),
        (40, 0, 10, "input pipeline", "inputs", "input"),
        (64, 1, 10, "optimizer", "temporaries", "update"),
        (0, 2, 9, "unattributed", "temporaries", "between"),
        (600, 3, 7, "a", "activations", "forward"),
        (100, 4, 5, "a", "temporaries", "forward"),
        (300, 6, 8, "a", "gradients", "backward"),
        (4, 5, 6, "loss", "other", "forward"),
        (8, 3, 4, "unattributed", "unattributed", "forward"),
    ]


def test_what_the_block_does_not_use_is_slack() -> None:
    made = opened()
    assert made.in_use_bytes.tolist() == [1_000, 1_256, *[2_280] * 7, 1_256]
    assert made.reserved_bytes.tolist() == [*BEFORE.reserved_bytes.tolist(), 0, 0, 0, 0, 0]
    for event in range(made.num_events):
        alive = (made.birth <= event) & (made.death > event)
        assert made.requested_bytes[alive].sum() <= made.in_use_bytes[event]
    assert (np.diff(made.time_ns) >= 0).all()


def categories(buffers: Sequence[XlaBuffer], **known: Any) -> list[tuple[str, str]]:
    """Owner and category of some buffers."""
    made = rows(opened(BEFORE, replace(RUN, module=module(tuple(buffers))), **known))
    return [(owner, category) for _, _, _, owner, category, _ in made[4:]]


def test_a_gradient_is_as_large_as_its_variable_and_read_by_the_update() -> None:
    plain = buffer("gradient_tape/m/a/MatMul_1", 300, 3, 4, used_by=("adam/mul",))
    by_size = replace(KERNEL, ops=())
    for known in (KERNEL, by_size):
        assert categories([plain], gradients=[known]) == [("a", "gradients")]
        assert categories([replace(plain, bytes=304)], gradients=[known]) == [("a", "temporaries")]
        assert categories([replace(plain, used_by=("m/a/MatMul",))], gradients=[known]) == [("a", "temporaries")]
    assert categories([plain]) == [("a", "temporaries")]
    sparse = replace(KERNEL, bytes=None)
    assert categories([replace(plain, bytes=304)], gradients=[sparse]) == [("a", "gradients")]
    # What adds up the squares of its parts, to clip it, has its name from it.
    assert categories([replace(plain, bytes=8, op_from="operand")], gradients=[sparse]) == [("a", "temporaries")]


def test_an_operand_in_another_layout_has_the_gradients_name_and_is_none() -> None:
    name = "gradient_tape/m/a/MatMul_1"
    ahead = buffer(name, 5000, 1, 4, op_from="user", used_by=(name,))
    late = replace(ahead, first=3)
    assert categories([ahead, late], gradients=[KERNEL]) == [("a", "activations"), ("a", "temporaries")]
    # Also where it is as large as the gradient.
    same = replace(late, bytes=KERNEL.bytes)
    gradient = buffer(name, 300, 4, 5, used_by=("adam/mul",))
    assert categories([same, gradient], gradients=[KERNEL]) == [("a", "temporaries"), ("a", "gradients")]


def test_a_variable_has_one_gradient_at_a_time() -> None:
    part = buffer("gradient_tape/m/a/MatMul_1", 300, 3, 5, used_by=("adam/mul",))
    other = replace(part, first=4, offset=300)
    assert categories([other, part], gradients=[KERNEL]) == [("a", "temporaries"), ("a", "gradients")]
    # A second variable of that size has the second, and one after the other is the same gradient in another place.
    second = replace(KERNEL, key=2, ops=())
    assert categories([other, part], gradients=[KERNEL, second]) == [("a", "gradients")] * 2
    assert categories([replace(part, last=3), other], gradients=[KERNEL]) == [("a", "gradients")] * 2


def test_the_update_tells_whose_gradient_it_reads() -> None:
    shared = buffer("gradient_tape/m/a/MatMul_1", 300, 3, 4, used_by=("adam/mul",))
    of_b = replace(KERNEL, owner="b", key=2, ops=())
    moment = KnownBuffer("b", "Dense", "optimizer", 300)
    assert categories([shared], gradients=[of_b], assigned={"adam/mul": moment}) == [("b", "gradients")]
    assert categories([shared], gradients=[of_b]) == [("a", "temporaries")]


def test_a_gradient_in_the_place_of_another_variable_is_counted_and_no_row() -> None:
    placed = buffer("gradient_tape/m/a/MatMul_1", 300, 3, 4, used_by=("adam/mul",), allocation_index=0, in_parameter=0)
    found = XlaCategories(OWNERS, [KERNEL, replace(KERNEL, key=2, ops=())], {})
    made = expand(BEFORE, [replace(RUN, module=module((placed,)))] * 2, OWNERS, found)
    assert "gradients" not in {row[4] for row in rows(made)}
    # Each variable's once, however often the program runs.
    assert found.gradient_bytes == {"a": 300}


def test_a_sum_of_gradients_reads_activations_too() -> None:
    # What a tape adds up has no name of the backward pass.
    value = buffer("m/a/MatMul", 600, 0, 4, used_by=("m/a/MatMul", "AddN"))
    assert categories([value]) == [("a", "activations")]
    assert categories([replace(value, used_by=("m/a/MatMul",))]) == [("a", "temporaries")]


@pytest.mark.parametrize(("first", "category"), [(1, "activations"), (4, "temporaries")])
def test_a_value_that_backward_does_not_find_is_a_temporary(first: int, category: str) -> None:
    run = replace(RUN, module=module((buffer("m/a/MatMul", 8, first, 5),)))
    assert rows(opened(BEFORE, run))[-1][4] == category


def test_a_copy_of_a_weight_is_a_temporary() -> None:
    run = replace(RUN, module=module((buffer("m/a/MatMul", 400, 0, 5, copy_of=0),)))
    assert rows(opened(BEFORE, run))[-1][3:5] == ("a", "temporaries")


def test_without_backward_pass_nothing_is_an_activation() -> None:
    run = replace(RUN, module=module(backward_from=None))
    assert "activations" not in {row[4] for row in rows(opened(BEFORE, run))}


def test_two_runs_of_one_program_stand_one_after_the_other() -> None:
    block = ("x", "other", "forward", "")
    before = timeline([(1000, 0, 1, *block), (7, 2, 5, "a", "other", "forward", ""), (1000, 3, 4, *block)], 5)
    runs = [CompiledRun(module(), {BLOCK: 2}, 3, 4), CompiledRun(module(), {BLOCK: 0}, 0, 1)]
    made = opened(before, *runs)
    assert made.num_events == 5 + 12
    assert [(row[1], row[2]) for row in rows(made)[:3]] == [(0, 7), (8, 17), (9, 16)]
    assert [row[1:3] for row in rows(made) if row[0] == 600] == [(1, 5), (10, 14)]


def test_events_without_runs_stay_as_they_are() -> None:
    made = expand(BEFORE, [], OWNERS, XlaCategories(OWNERS, [], {}))
    assert rows(made) == rows(BEFORE)
    assert made.in_use_bytes.tolist() == BEFORE.in_use_bytes.tolist()


def runs_of(*runs: XlaRun) -> list[CompiledRun]:
    """The rows of runs among an output of 64 bytes, what others asked for meanwhile, and a block."""
    others = ("unattributed", "other", "forward", "")
    before = timeline([(64, 1, 6, *others), (64, 2, 5, *others), (1000, 3, 4, *others), (9, -1, 0, *others)], 6)
    return compiled_runs(before, runs, {7: module()})


def test_the_rows_of_a_run_are_those_of_its_births() -> None:
    [run] = runs_of(XlaRun(7, {OUTPUT: 1, BLOCK: 3}))
    assert (run.rows, run.event, run.end) == ({OUTPUT: 0, BLOCK: 2}, 3, 4)


def test_a_run_of_a_program_that_cannot_be_opened_is_left_alone() -> None:
    assert runs_of(XlaRun(8, {OUTPUT: 1})) == []


def test_a_program_that_a_layer_called_is_one_of_its_operations() -> None:
    lines = [(64, 1, 6, "a", "activations", "forward", ""), (1000, 2, 3, "a", "temporaries", "forward", "")]
    before = timeline(lines, 6)
    assert compiled_runs(before, [XlaRun(7, {OUTPUT: 1, BLOCK: 2})], {7: module()}) == []
