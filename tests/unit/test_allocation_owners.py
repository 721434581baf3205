"""Who made each allocation: by its operation, else by its time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from captures import COMPUTE, PIPELINE, PYTHON, events

from kerasmemwatch.attribution.events.pairing import pair
from kerasmemwatch.attribution.owners.allocation_owners import row_frames
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.scratch import ops_at_work
from kerasmemwatch.records.owners import AFTER_LAYERS, BASE, FUNCTIONS, OPTIMIZER, Frame

A, B = Frame("a", "Dense", "forward"), Frame("b", "Dense", "forward")
UPDATE = Frame(OPTIMIZER, "", "update")
STEP = "StatefulPartitionedCall"


def owners(
    lines: Sequence[Any],
    ops: dict[str, Sequence[Frame]] | None = None,
    log: Sequence[tuple[int, Frame]] = (),
    **more: Any,
) -> list[str]:
    """Owner and phase of each row."""
    found = events(lines, **more)
    rows = pair(found)
    frames, which = row_frames(found, rows, ops_at_work(found, rows), OpOwners(ops or {}), log)
    return [f"{frames[code].owner} {frames[code].phase}" for code in which.tolist()]


def test_by_the_operation() -> None:
    assert owners([(256, 1, f"{STEP}/m/a/MatMul")], {"m/a/MatMul": [A]}) == ["a forward"]


def test_nobody_is_known_to_have_made_the_others() -> None:
    assert owners([(256, 1, f"{STEP}/x/b/MatMul"), (512, 1)], {"m/a/MatMul": [A]}) == ["unattributed between"] * 2


def test_the_input_pipelines_threads_work_for_it() -> None:
    assert (
        owners([(256, 1, "m/a/MatMul", PIPELINE), (512, 1, "", PIPELINE)], {"m/a/MatMul": [A]})
        == ["input pipeline input"] * 2
    )


def test_a_run_of_the_input_pipeline_is_its_own_on_other_threads_too() -> None:
    lines = [(256, 1, "map/mul", PIPELINE, 77), (512, 1, "map/add", COMPUTE, 77), (768, 1, "add", COMPUTE, 78)]
    assert owners(lines) == ["input pipeline input", "input pipeline input", "unattributed between"]


def test_in_eager_mode_by_the_time() -> None:
    log = [(1_000, BASE), (1_010, A), (1_020, B), (1_030, AFTER_LAYERS), (1_040, UPDATE)]
    lines = [(256 * row, 1, "MatMul", PYTHON, 0) for row in range(1, 6)]
    found = ["input pipeline input", "a forward", "b forward", "loss forward", "optimizer update"]
    assert owners(lines, log=log) == found
    # Whatever the process is called.
    assert owners(lines, log=log, threads=("train.sh", "tf_Compute/1", "tf_data/2")) == found


def test_before_the_first_note_nothing_is_known() -> None:
    assert owners([(256, 1, "MatMul", PYTHON)], log=[(1_001, A)]) == ["unattributed between"]


def test_an_eager_operations_name_is_its_kind_only() -> None:
    assert owners([(256, 1, "MatMul", PYTHON)], {"MatMul": [A]}, [(0, B)]) == ["b forward"]


def test_a_function_that_runs_within_a_layer_works_for_it() -> None:
    lines = [(256, 1, "d/MatMul", COMPUTE), (512, 1, "d/MatMul", COMPUTE), (4096, -1), (768, 1, "", COMPUTE)]
    ops = {"d/MatMul": [Frame("b/d", "Dense", "forward"), Frame("a/d", "Dense", "forward")]}
    log = [(0, A), (1_010, B), (1_020, AFTER_LAYERS)]
    nobody = ["unattributed between"] * 2
    assert owners(lines, ops, log) == ["a/d forward", "b/d forward", *nobody]
    assert owners(lines, {}, log) == ["a forward", "b forward", *nobody]


def test_scratch_memory_is_the_layers_whose_operation_is_at_work() -> None:
    lines = [(256, 1, "m/a/MatMul", COMPUTE), (512, 9, "", COMPUTE), (512, -9, "", COMPUTE)]
    assert owners(lines, {"m/a/MatMul": [A]}) == ["a forward", "a forward"]


def test_what_only_dies_has_no_maker_here() -> None:
    assert owners([(256, -1, "m/a/MatMul", PYTHON)], {"m/a/MatMul": [A]}, [(0, A)]) == ["unattributed between"]


def test_a_phase_without_owner_is_kept() -> None:
    assert owners([(256, 1, "Mul", PYTHON)], log=[(0, Frame("", "", "backward"))]) == ["unattributed backward"]


def test_no_events_have_no_owners() -> None:
    assert owners([]) == owners([], log=[(0, A)]) == []


def test_a_function_that_a_layer_calls_is_the_layers() -> None:
    log = [(1_000, BASE), (1_010, A._replace(phase="backward"))]
    lines = [(256, 1, "__inference_step_12", PYTHON, 0), (512, 1, "__inference___backward_run_3_4", PYTHON, 0)]
    assert owners(lines, log=log) == ["functions update", "a backward"]


def test_a_gpus_program_that_a_layer_calls_is_the_layers() -> None:
    lines = [(256, 1, "m/a/PartitionedCall"), (512, 1, "", PYTHON)]
    found = events(lines)
    rows = pair(found)
    told = dict.fromkeys([0, 1], Frame(FUNCTIONS, "", "update"))
    makers = OpOwners({"m/a/PartitionedCall": [A]})
    frames, which = row_frames(found, rows, ops_at_work(found, rows), makers, told=told)
    assert [frames[code].owner for code in which.tolist()] == ["a", "functions"]
