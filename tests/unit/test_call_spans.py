"""What a compiled program asks for within a layer's call is the layer's."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from captures import COMPUTE, PIPELINE, PYTHON, THREADS, events

from kerasmemwatch.attribution.owners.call_spans import CallSpan, call_spans, named_by_calls
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.records.owners import AFTER_LAYERS, Frame

A, B = Frame("a", "Conv2D", "forward"), Frame("b", "Conv2D", "forward")
CALL_A, CALL_B, STEP = "m/a/PartitionedCall", "m/b/PartitionedCall", "StatefulPartitionedCall"
OWNERS = OpOwners({CALL_A: [A], CALL_B: [B], "own/StatefulPartitionedCall": [AFTER_LAYERS]})
# Both layers call the same function.
PROGRAM, FUNCTION = "a_inference_run_12__.7", "__inference_run_12"
CALLS = {CALL_A: FUNCTION, CALL_B: FUNCTION, "other": "__inference_run_123"}


def span(op: str, first: int, last: int, thread: int = COMPUTE) -> CallSpan:
    """A call around some events: `captures.events` puts one on each tenth nanosecond, 100 ns after the begin."""
    return CallSpan(f"{STEP}/{op}", THREADS[thread], 95 + 10 * first, 105 + 10 * last)


def named(lines: Sequence[Any], *spans: CallSpan, runs: Sequence[Sequence[int]] = ()) -> list[str]:
    found = named_by_calls(events(lines), spans, OWNERS, [(PROGRAM, births) for births in runs], CALLS)
    return [found.ops[code].removeprefix(f"{STEP}/") for code in found.op.tolist()]


def test_what_has_no_name_has_that_of_the_call() -> None:
    lines = [(256, 8), (512, 8), (768, 8, "Relu"), (512, -8), (512, 8), (1024, 8)]
    assert named(lines, span(CALL_A, 1, 3), span(CALL_B, 4, 4)) == ["", CALL_A, "Relu", "", CALL_B, ""]


def test_other_threads_do_something_else_meanwhile() -> None:
    lines = [(256, 8, "", PYTHON), (512, 8, "", PIPELINE), (768, 8)]
    assert named(lines, span(CALL_A, 0, 2)) == ["", "", CALL_A]
    assert named(lines, span(CALL_A, 0, 2, PIPELINE)) == [""] * 3


def test_of_calls_within_one_another_the_innermost_counts() -> None:
    lines = [(256, 8), (512, 8), (768, 8)]
    assert named(lines, span(CALL_B, 1, 1), span(CALL_A, 0, 2)) == [CALL_A, CALL_B, CALL_A]


def test_a_call_of_no_layers_is_left_alone() -> None:
    assert named([(256, 8)], span("own/StatefulPartitionedCall", 0, 0)) == [""]
    assert named([(256, 8)], span("elsewhere/PartitionedCall", 0, 0)) == [""]


def test_a_call_that_outlives_the_capture_is_the_one_that_is_left() -> None:
    lines = [(256, 8), (512, 8), (768, 8)]
    assert named(lines, span(CALL_A, 0, 0), runs=[[0], [1, 2]]) == [CALL_A, CALL_B, CALL_B]
    # Two are left: nothing tells which made the only run.
    assert named(lines, runs=[[1, 2]]) == [""] * 3
    # A function that nobody calls here.
    assert named(lines, span(CALL_A, 0, 0), span(CALL_B, 1, 1), runs=[[2]]) == [CALL_A, CALL_B, ""]


def test_calls_that_outlive_the_capture_made_their_runs_in_the_order_of_the_graph() -> None:
    lines = [(256, 8), (512, 8), (768, 8), (1024, 8)]
    assert named(lines, runs=[[2, 3], [0, 1]]) == [CALL_A, CALL_A, CALL_B, CALL_B]
    # With a third run, one of the two ran twice.
    assert named(lines, runs=[[0], [1], [2, 3]]) == [""] * 4


def test_calls_are_read_from_a_capture() -> None:
    def stat(key: int, **value: Any) -> Any:
        return SimpleNamespace(metadata_id=key, **{"str_value": "", "ref_value": 0, **value})

    def event(kind: int, begin_ns: int, *stats: Any) -> Any:
        return SimpleNamespace(metadata_id=kind, offset_ps=1000 * begin_ns, duration_ps=5000, stats=stats)

    kinds = {1: "ExecutorState::ProcessAsync::Start", 2: "ExecutorState::Process"}
    stats = {1: "kernel_type", 2: "name", 3: CALL_B}
    line = SimpleNamespace(
        name="tf_Compute/7",
        timestamp_ns=100,
        events=[
            event(1, 10, stat(1, str_value="PartitionedCall"), stat(2, str_value=CALL_A)),
            event(2, 12, stat(2, str_value="Relu")),
            event(1, 20, stat(2, ref_value=3)),
        ],
    )
    plane = SimpleNamespace(
        name="/host:CPU",
        event_metadata={key: SimpleNamespace(name=name) for key, name in kinds.items()},
        stat_metadata={key: SimpleNamespace(name=name) for key, name in stats.items()},
        lines=[line],
    )
    other = SimpleNamespace(**{**vars(plane), "name": "/host:metadata"})
    found = list(call_spans(SimpleNamespace(planes=[other, plane])))
    assert found == [CallSpan(CALL_A, "tf_Compute/7", 110, 115), CallSpan(CALL_B, "tf_Compute/7", 120, 125)]
