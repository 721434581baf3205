"""Trials of algorithms, programs' blocks and copies to a device have an owner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from captures import COMPUTE, events

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.host_spans import AUTOTUNING, COPY, RUN, Span
from kerasmemwatch.attribution.events.pairing import pair
from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.owners.allocation_owners import row_frames
from kerasmemwatch.attribution.owners.device_owners import autotuned, device_frames
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.scratch import ops_at_work
from kerasmemwatch.records.owners import Frame

CONV = Frame("conv", "Conv2D", "forward")
OWNERS = OpOwners({"model/conv/Conv2D": [CONV], "Shape": [Frame("metrics", "", "update")]})
SPANS = (Span(AUTOTUNING, "", 0), Span(RUN, "step.1", 1), Span(COPY, "IteratorGetNext", 2), Span(COPY, "", 3))
TRIAL, BLOCK, FETCHED, COPIED, NOTHING = 0, 1, 2, 3, -1
BATCH = [BatchPart(48, per_row=True), BatchPart(64, per_row=False)]


def made(lines: Sequence[Any], spans: Sequence[int] = (), by_library: Sequence[int] = ()) -> AllocationEvents:
    """A GPU's events, with what the host was doing at each, and which a library beneath a kernel asked for."""
    of_kernel = np.ones(len(lines), bool)
    of_kernel[list(by_library)] = False
    return replace(
        events(lines),
        allocator="GPU_0_bfc",
        span=np.array([*spans, *[NOTHING] * (len(lines) - len(spans))], np.int64),
        spans=SPANS,
        of_kernel=of_kernel,
    )


def owners(found: AllocationEvents, batch: Sequence[BatchPart] = BATCH) -> dict[int, str]:
    return {event: frame.owner for event, frame in sorted(device_frames(found, OWNERS, batch).items())}


def test_whatever_is_made_while_a_program_is_compiled_is_a_trial() -> None:
    lines = [(256, 1000), (256, -1000), (256, 64, "model/conv/Conv2D"), (512, 100)]
    assert owners(made(lines, [TRIAL, TRIAL, TRIAL])) == {0: "autotuning", 2: "autotuning"}


def test_a_kernel_whose_library_takes_workspaces_tries_algorithms() -> None:
    conv = "model/conv/Conv2D"
    lines = [
        (256, 10, conv), (512, 900, conv), (1024, 700, conv), (1024, -700), (1024, 800, conv), (1024, -800),
        (512, -900), (1024, 300, conv), (1024, -300),
    ]  # fmt: skip
    found = made(lines, by_library=[1, 2, 4])
    assert owners(found) == dict.fromkeys((1, 2, 4), "autotuning")
    assert owners(replace(found, allocator="cpu")) == {}


@pytest.mark.parametrize(
    ("lines", "by_library"),
    [
        pytest.param([(256, 10, "Mul"), (512, 10, "Mul")], [0, 1], id="a generated kernel's results"),
        pytest.param([(256, 10, "Conv2D"), (512, 10, "Conv2D")], [1], id="one workspace"),
        pytest.param([(256, 10, "C"), (512, 9, "C", COMPUTE, 2), (768, 9, "C", COMPUTE, 3)], [1, 2], id="other runs"),
        pytest.param([(256, 10), (512, 10), (1024, 10)], [1, 2], id="nobody's"),
    ],
)
def test_what_kernels_take_is_no_trial(lines: list[Any], by_library: list[int]) -> None:
    assert not autotuned(made(lines, by_library=by_library)).any()


def test_a_programs_blocks_are_functions_and_no_operations_scratch_memory() -> None:
    lines = [(256, 64, "SameWorkerRecvDone"), (512, 176), (1024, 4096), (2048, 8)]
    found = made(lines, [FETCHED, BLOCK, BLOCK])
    assert owners(found) == {0: "input pipeline", 1: "functions", 2: "functions"}
    assert ops_at_work(found, pair(found)).tolist() == [1, 0, 0, 0]


def test_a_copy_belongs_to_whoever_made_what_is_copied() -> None:
    shape = Span(COPY, "call/Shape", 4)
    lines = [(256, 999, "SameWorkerRecvDone"), (512, 8, "SameWorkerRecvDone")]
    found = replace(made(lines, [FETCHED, 4]), spans=(*SPANS, shape))
    assert owners(found) == {0: "input pipeline", 1: "metrics"}


def test_a_fetch_in_a_loop_over_steps_is_an_input_wherever_it_stands() -> None:
    noted = OpOwners({"while/IteratorGetNextAsOptional": [Frame("metrics", "", "update")]})
    span = Span(COPY, "body/_1/while/IteratorGetNextAsOptional", 4)
    found = replace(made([(256, 999, "SameWorkerRecvDone")], [4]), spans=(*SPANS, span))
    assert device_frames(found, noted, ()) == {0: Frame("input pipeline", "", "input")}


def test_a_copy_from_nobody_known_is_an_input_if_it_is_as_large() -> None:
    # Rows of 48 bytes: the first, and another that died here, say that there are 4.
    lines = [
        (256, 192, "SameWorkerRecvDone"),
        (512, 64, "SameWorkerRecvDone"),
        (1024, 96, "SameWorkerRecvDone"),
        (256, -192),
    ]
    assert owners(made(lines)) == {0: "input pipeline", 1: "input pipeline"}
    eager = [(256, 192, "Conv2D"), (512, 64, "Conv2D"), (256, -192)]
    assert owners(made(eager, [COPIED])) == {0: "input pipeline"}


def test_what_is_told_comes_before_names_and_the_stack() -> None:
    found = made([(256, 64, "model/conv/Conv2D"), (512, 64, "model/conv/Conv2D")], [TRIAL])
    rows = pair(found)
    frames, which = row_frames(found, rows, ops_at_work(found, rows), OWNERS, told=device_frames(found, OWNERS, BATCH))
    assert [frames[code].owner for code in which.tolist()] == ["autotuning", "conv"]


def test_without_spans_nothing_is_told() -> None:
    assert device_frames(events([(256, 64, "model/conv/Conv2D"), (512, 8)]), OWNERS, BATCH) == {}
