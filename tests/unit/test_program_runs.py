"""Runs of compiled programs are found by what they ask the allocator for, whatever else a capture tells of them."""

from __future__ import annotations

import lzma
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from captures import COMPUTE, PIPELINE, PYTHON, events

from kerasmemwatch.attribution.events.host_spans import AUTOTUNING, RUN, Span
from kerasmemwatch.attribution.xla.program_memory import XlaAllocation
from kerasmemwatch.attribution.xla.program_runs import Programs, XlaRun, find_runs

DATA = Path(__file__).parents[1] / "data"
STEP, TWIN, OTHER = 5, 6, 7
PARAMETERS = 2
BLOCK = (512, 1000)
ASKED = [(256, 64), BLOCK]
# `captures.events` puts an event on each tenth nanosecond, 100 ns after the capture began.
FIRST_NS, EVENT_NS = 100, 10


def program(*sizes: int) -> list[XlaAllocation]:
    """What a program asks for: results, then the block that it works in."""
    kinds = ["output"] * (len(sizes) - 1) + ["temp"]
    return [
        XlaAllocation(PARAMETERS + number, size, kind, None, kind == "output")
        for number, (size, kind) in enumerate(zip(sizes, kinds, strict=True))
    ]


PROGRAMS = {STEP: program(64, 1000)}


def after(event: int) -> int:
    """A time between an event and the next."""
    return FIRST_NS + EVENT_NS * event + EVENT_NS // 2


def space(instructions: Sequence[tuple[int, int]] = (), protos: Mapping[int, bytes] | None = None) -> Any:
    """A capture's other parts.

    Args:
        instructions: When one began, and the program that it is of.
        protos: Programs by id.
    """
    keys = {1: "hlo_op", 2: "program_id", 3: "Hlo Proto"}
    stat_metadata = {key: SimpleNamespace(name=name) for key, name in keys.items()}

    def stat(key: int, value: int = 0, data: bytes = b"") -> Any:
        return SimpleNamespace(metadata_id=key, uint64_value=value, int64_value=0, bytes_value=data)

    begins_ns = 50
    named = [
        SimpleNamespace(metadata_id=1, offset_ps=1000 * (time_ns - begins_ns), stats=[stat(1), stat(2, program_id)])
        for time_ns, program_id in instructions
    ]
    ends = [SimpleNamespace(metadata_id=2, offset_ps=0, stats=[])]
    host = SimpleNamespace(
        name="/host:CPU",
        stat_metadata=stat_metadata,
        lines=[
            SimpleNamespace(timestamp_ns=begins_ns, events=ends),
            SimpleNamespace(timestamp_ns=begins_ns, events=ends + named[::-1]),
        ],
    )
    metadata = SimpleNamespace(
        name="/host:metadata",
        stat_metadata=stat_metadata,
        event_metadata={
            key: SimpleNamespace(name=f"a_step_{key}__.2({key})", stats=[stat(3, data=data)])
            for key, data in (protos or {}).items()
        },
    )
    return SimpleNamespace(planes=[host, metadata])


def test_a_run_is_found_where_nothing_says_that_it_begins() -> None:
    found = find_runs(space([(after(1), STEP)]), events(ASKED), PROGRAMS)
    assert found == [XlaRun(STEP, {2: 0, 3: 1})]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([(256, 64), (512, 1000, "", PYTHON)], id="on two threads"),
        pytest.param([(256, 64), (1024, 8), BLOCK], id="with something between"),
        pytest.param([(512, 1000), (256, 64)], id="in another order"),
        pytest.param([(256, 64), (512, 1001)], id="of another size"),
        pytest.param([(256, 64, "Relu"), (512, 1000, "Relu")], id="by an operation"),
        pytest.param([(256, 64, "", PIPELINE), (512, 1000, "", PIPELINE)], id="by the input pipeline"),
        pytest.param([(256, 64), (512, -1000)], id="given back"),
        pytest.param([(256, 64)], id="in part"),
    ],
)
def test_what_others_ask_for_is_no_run(lines: list[Any]) -> None:
    assert find_runs(space([(after(3), STEP)]), events(lines), PROGRAMS) == []


def test_what_others_do_meanwhile_hides_no_run() -> None:
    lines = [(256, 64), (4096, 8, "Relu", PYTHON), (2048, -8), (8192, 16, "Relu"), BLOCK, (1024, 4)]
    found = find_runs(space([(after(4), STEP)]), events(lines), PROGRAMS)
    assert found == [XlaRun(STEP, {2: 0, 3: 4})]


def on_gpu(lines: Sequence[Any], spans: Sequence[Span], at: Sequence[int]) -> Any:
    """A GPU's events, with what the host was doing at each."""
    return replace(events(lines), allocator="GPU_0_bfc", spans=tuple(spans), span=np.array(at, np.int64))


def test_the_host_says_which_of_two_programs_that_ask_for_the_same_runs() -> None:
    programs = {STEP: program(64, 1000), TWIN: program(64, 1000)}
    lines = [(256, 64), (512, 1000), (256, -64), (512, -1000), (256, 64), (512, 1000)]
    spans = [Span(RUN, f"a_step_{TWIN}__.2", 0), Span(RUN, f"a_step_{STEP}__.2", 1)]
    made = on_gpu(lines, spans, [0, 0, -1, -1, 1, 1])
    found = find_runs(space(protos={STEP: b"", TWIN: b""}), made, programs)
    assert found == [XlaRun(TWIN, {2: 0, 3: 1}), XlaRun(STEP, {2: 4, 3: 5})]


def test_a_program_without_a_temp_block_is_found_by_its_results() -> None:
    program_of_results = [replace(each, kind="output") for each in program(64, 1000)]
    made = on_gpu([(256, 64), (512, 1000)], [Span(RUN, "", 0)], [0, 0])
    assert find_runs(space(), made, {OTHER: program_of_results}) == [XlaRun(OTHER, {2: 0, 3: 1})]


def test_a_run_is_within_its_span_alone() -> None:
    # The block of one and the first piece of the next look like a run.
    made = on_gpu(
        [(256, 64), (512, 1000), (1024, 64), (2048, 1000)], [Span(RUN, "", 0), Span(RUN, "", 1)], [0, 1, 1, 1]
    )
    assert find_runs(space(), made, PROGRAMS) == []


def test_a_run_that_the_host_says_nothing_of_is_found_by_its_plan() -> None:
    assert find_runs(space(), on_gpu(ASKED, [], [-1, -1]), PROGRAMS) == [XlaRun(STEP, {2: 0, 3: 1})]


def test_a_trial_of_algorithms_is_no_run() -> None:
    assert find_runs(space(), on_gpu(ASKED, [Span(AUTOTUNING, "", 0)], [0, 0]), PROGRAMS) == []


@pytest.mark.parametrize("name", ["__inference_step_12", "__forward_step_12"])
def test_a_function_that_eager_code_calls_is_one(name: str) -> None:
    lines = [(*line, name, COMPUTE) for line in ASKED]
    assert len(find_runs(space(), events(lines), PROGRAMS)) == 1


def test_a_program_runs_several_times() -> None:
    lines = [*ASKED, (512, -1000), *ASKED]
    found = find_runs(space([(after(1), STEP), (after(4), STEP)]), events(lines), PROGRAMS)
    assert [run.births for run in found] == [{2: 0, 3: 1}, {2: 3, 3: 4}]


def test_programs_that_ask_for_the_same_are_told_apart_by_their_instructions() -> None:
    programs = {**PROGRAMS, TWIN: program(64, 1000)}
    instructions = [(after(1), TWIN), (after(4), STEP), (after(7), TWIN)]
    lines = [*ASKED, (512, -1000)] * 3
    found = find_runs(space(instructions), events(lines), programs)
    assert [run.program_id for run in found] == [TWIN, STEP, TWIN]
    # No instruction, as on a GPU: then nothing tells which.
    assert find_runs(space(), events(lines), programs) == []
    assert len(find_runs(space(), events(lines), PROGRAMS)) == 3


def test_a_program_that_is_merely_loaded_did_not_run() -> None:
    assert find_runs(space([(after(1), OTHER)]), events(ASKED), PROGRAMS) == []
    assert find_runs(space([(after(0), STEP)]), events(ASKED), PROGRAMS) == []


def test_the_longer_of_two_programs_is_meant() -> None:
    programs = {STEP: program(64, 1000), OTHER: program(64, 1000, 32)}
    found = find_runs(space(), events([*ASKED, (2048, 32)]), programs)
    assert found == [XlaRun(OTHER, {2: 0, 3: 1, 4: 2})]


def test_what_is_not_asked_for_or_not_told_is_not_waited_for() -> None:
    assert find_runs(space(), events(ASKED), {STEP: program(64, 0, 1000)}) == [XlaRun(STEP, {2: 0, 4: 1})]
    assert find_runs(space(), events([BLOCK]), PROGRAMS, least_bytes=65) == [XlaRun(STEP, {3: 0})]
    # Of a program that asks for little nothing is seen.
    assert find_runs(space(), events([BLOCK]), PROGRAMS, least_bytes=1001) == []


def test_a_program_is_parsed_once_and_opened_if_it_ran() -> None:
    data = lzma.decompress((DATA / "cond.hlo.xz").read_bytes())
    programs = Programs()
    programs.read(space(protos={STEP: data, OTHER: b""}))
    assert not programs.requests[OTHER]
    module = programs.opened([STEP, OTHER])[STEP]
    assert (module.program_id, module.requests) == (STEP, programs.requests[STEP])
    # The next capture may lack it.
    programs.read(space())
    assert programs.opened([STEP]) == {STEP: module}
