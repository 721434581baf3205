"""A timeline is put together from events and from what the hooks and Python know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from captures import PIPELINE, PYTHON, events, random_lines

from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.timeline_assembly import Evidence, assemble, in_order
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.owners import AFTER_LAYERS, BASE, LOSS, METRICS, OPTIMIZER, Frame
from kerasmemwatch.records.timeline import PHASES, Timeline

STEP = "StatefulPartitionedCall"
A = Frame("a", "Dense", "forward")
OPS = {
    "m/a/MatMul": [A],
    "gradient_tape/m/a/MatMul": [A._replace(phase="backward")],
    "gradient_tape/m/a/MatMul_1": [A._replace(phase="backward")],
    "loss/Mean": [Frame(LOSS, "", "forward")],
    "metrics/add": [Frame(METRICS, "", "forward")],
    "adam/mul": [Frame(OPTIMIZER, "", "update")],
}
KERNEL = KnownBuffer("a", "Dense", "weights", 400, address=65_536, key=1, trainable=True)


def described(made: Timeline) -> list[tuple[str, str, str]]:
    """Owner, category and phase of each row."""
    return [
        (made.owners[owner], CATEGORIES[category], PHASES[phase])
        for owner, category, phase in zip(made.owner, made.category, made.phase, strict=True)
    ]


def put_together(lines: Sequence[Any], *, before: int = 400, **known: Any) -> tuple[Timeline, dict[str, int]]:
    return assemble(events(lines, before=before), Evidence("CPU:0", 900, OpOwners(known.pop("ops", {})), **known))


def test_scratch_memory_is_told_by_the_operation_at_work() -> None:
    lines = [(512, 16, f"{STEP}/m/a/MatMul"), (1024, 4096, ""), (1024, -4096), (512, -16)]
    made, _ = put_together(lines, ops=OPS, before=0)
    assert [made.ops[op] for op in made.op] == [f"{STEP}/m/a/MatMul"] * 2


def test_a_step_of_a_graph() -> None:
    lines = [
        (256, 96, "", PIPELINE, 0),
        (512, 1600, f"{STEP}/m/a/MatMul"),
        (2560, 4, f"{STEP}/loss/Mean"),
        (2816, 8, f"{STEP}/metrics/add"),
        (4096, 400, f"{STEP}/gradient_tape/m/a/MatMul_1"),
        (512, -1600),
        (512, 400, f"{STEP}/adam/mul"),
        (256, -96),
        (9984, 12, f"{STEP}/x/y"),
    ]
    gradient = GradientBuffer("a", "Dense", 400, 1, ops=("gradient_tape/m/a/MatMul_1",))
    made, gradients = put_together(lines, ops=OPS, known=[KERNEL], gradients=[gradient], before=512)
    assert described(made) == [
        ("input pipeline", "inputs", "input"),
        ("a", "activations", "forward"),
        ("loss", "other", "forward"),
        ("metrics", "other", "forward"),
        ("a", "gradients", "backward"),
        ("optimizer", "temporaries", "update"),
        ("unattributed", "unattributed", "between"),
        ("a", "weights", "between"),
    ]
    assert gradients == {"a": 400}
    assert made.birth.tolist() == [0, 1, 2, 3, 4, 6, 8, -1]
    assert made.death.tolist() == [7, 5, 9, 9, 9, 9, 9, 9]
    assert [made.ops[code] for code in made.op][:2] == ["", f"{STEP}/m/a/MatMul"]
    assert made.time_ns.tolist() == [100 + 10 * event for event in range(9)]
    assert (made.device, made.in_use_before_bytes) == ("CPU:0", 512)


def test_an_eager_step() -> None:
    backward = A._replace(phase="backward")
    log = [(1_000, BASE), (1_010, A), (1_020, AFTER_LAYERS), (1_030, backward), (1_040, Frame(OPTIMIZER, "", "update"))]
    lines = [(256 * (4 * row + 1), size, "Op", PYTHON, 0) for row, size in enumerate((40, 800, 4, 400, 400))]
    gradient = GradientBuffer("a", "Dense", 400, 1, address=lines[3][0], time_ns=1_035)
    made, gradients = put_together(lines, log=log, gradients=[gradient], before=0)
    assert described(made) == [
        ("input pipeline", "inputs", "input"),
        ("a", "activations", "forward"),
        ("loss", "other", "forward"),
        ("a", "gradients", "backward"),
        ("optimizer", "temporaries", "update"),
    ]
    assert gradients == {"a": 400}


def test_a_loss_of_more_than_a_number_is_a_value_like_others() -> None:
    made, _ = put_together([(256, 64, f"{STEP}/loss/Mean")], ops=OPS)
    assert described(made)[0] == ("loss", "temporaries", "forward")


def test_what_was_there_before_is_between_steps() -> None:
    made, _ = put_together([(256, -77, f"{STEP}/m/a/MatMul")], ops=OPS)
    assert described(made)[0] == ("unattributed", "unattributed", "between")
    # Which operation made it is not known: the one named freed it.
    assert made.ops[made.op[0]] == ""


def test_a_variable_that_moved_is_a_weight_all_along_and_once() -> None:
    made, _ = put_together([(65_536, 400, f"{STEP}/adam/mul"), (512, -400)], ops=OPS, known=[KERNEL], before=512)
    assert described(made) == [
        ("optimizer", "temporaries", "update"),
        ("a", "weights", "between"),
        ("a", "weights", "update"),
    ]
    assert made.birth.tolist() == [0, -1, 1]
    assert made.death.tolist() == [1, 1, 2]
    assert made.reserved_bytes.tolist() == [512, 512, 512]


def test_nothing_happened() -> None:
    made, gradients = put_together([], known=[KERNEL])
    assert (made.num_allocations, made.num_events, gradients) == (0, 0, {})


def test_owners_stand_in_the_models_order() -> None:
    ops = {f"m/{name}/x": [Frame(name, "Dense", "forward")] for name in "cba"}
    made, _ = put_together([(256 * i, 1, f"m/{name}/x") for i, name in enumerate("cba", 1)], ops=ops, before=0)
    ordered = in_order(made, ["a", "absent", "b"])
    assert [owner for owner in ordered.owners if owner in "abc"] == ["a", "b", "c"]
    assert described(ordered) == described(made)


@pytest.mark.parametrize("seed", range(20))
def test_sums_hold_whatever_happens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = [
        Frame(owner, class_name, phase)
        for owner, class_name in (("a", "Dense"), ("b", "Dense"), (LOSS, ""), (METRICS, ""), ("", ""))
        for phase in PHASES[1:]
    ]
    ops = {f"op_{index}": [frames[rng.integers(len(frames))]] for index in range(5)}
    known = [
        KnownBuffer(f"w_{key}", "Dense", "weights", int(rng.integers(1, 4000)), int(rng.integers(1, 60)) * 256, key)
        for key in range(1, 12)
    ]
    gradients = [
        GradientBuffer("a", "Dense", int(rng.integers(1, 5000)), key, (f"op_{rng.integers(6)}",)) for key in range(9)
    ]
    log = [(int(time), frames[rng.integers(len(frames))]) for time in np.sort(rng.integers(900, 5000, 30))]
    source = events(random_lines(rng, 300), before=100_000)
    made, _ = assemble(source, Evidence("CPU:0", 900, OpOwners(ops), log, {"op_1": known[0]}, gradients, known))
    assert set(made.category.tolist()) <= set(range(len(CATEGORIES)))
    assert (made.birth < made.death).all()
    assert (made.phase[made.birth < 0] == PHASES.index("between")).all()
    for event in range(-1, made.num_events):
        alive = (made.birth <= event) & (made.death > event)
        in_use = int(made.in_use_bytes[event]) if event >= 0 else made.in_use_before_bytes
        # The rest is rounding.
        assert int(made.requested_bytes[alive].sum()) <= in_use
    # Chunks that come and go are what the allocator's total changes by.
    reserved = np.zeros(made.num_events + 1, np.int64)
    born = made.birth >= 0
    np.add.at(reserved, made.birth[born], made.reserved_bytes[born])
    np.subtract.at(reserved, made.death, made.reserved_bytes)
    totals = made.in_use_before_bytes + np.cumsum(reserved[:-1])
    np.testing.assert_array_equal(totals, made.in_use_bytes)
