"""Batches that wait on a device are counted where a step shows that it took one from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from captures import events
from timelines import timeline

from kerasmemwatch.attribution.events.pairing import pair
from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.owners.batches_ahead import ahead_note, batch_ahead
from kerasmemwatch.attribution.owners.preexisting import baseline_parts

BATCH = [BatchPart(1024, per_row=False), BatchPart(256, per_row=False)]
USED = [(4096, -1024), (8192, -256)]
RECEIVED = "SameWorkerRecvDone"


def ahead(lines: Sequence[Any], allocator: str = "GPU_0_bfc", batch: Sequence[BatchPart] = BATCH) -> list[int]:
    made = replace(events(lines), allocator=allocator)
    return batch_ahead(made, pair(made), batch)


@pytest.mark.parametrize(
    ("lines", "sizes"),
    [
        pytest.param(USED, [1024, 256], id="was there before"),
        pytest.param([*USED, (256, 1024, RECEIVED)], [1024, 256], id="another comes meanwhile"),
        pytest.param([(256, 1024, RECEIVED), *USED, (256, -1024)], [], id="copied in the step"),
        pytest.param(USED[:1], [], id="in part"),
        pytest.param([(256, 1024), (256, -1024)], [], id="something else"),
    ],
)
def test_a_batch_that_was_there_shows_that_others_wait(lines: list[Any], sizes: list[int]) -> None:
    assert ahead(lines) == sizes


def test_host_memory_has_an_account_of_its_own() -> None:
    assert ahead(USED, "cpu") == []
    assert ahead(USED, batch=[]) == []


def test_as_many_batches_wait_as_nothing_else_explains() -> None:
    # In use before: the batch that is used, two more, and the rounding of one.
    made = replace(events(USED, before=1280 + 2 * 1280 + 512), allocator="GPU_0_bfc")
    found = [part.buffer for part in baseline_parts(made, pair(made), (), {}, BATCH) if part.row < 0]
    assert [(buffer.owner, buffer.category, buffer.bytes) for buffer in found] == [("input pipeline", "inputs", 2560)]


def test_the_estimate_says_that_it_is_one() -> None:
    lines = [(2560, -1, 1, "input pipeline", "inputs", "between", "")]
    waiting = timeline(lines, 1, device="GPU:0", address=np.zeros(1, np.uint64))
    assert ahead_note(replace(waiting, device="CPU:0")) == ""
    assert "2.5 KiB on GPU:0 are taken for batches" in ahead_note(waiting)
    assert ahead_note(replace(waiting, owners=("dense",) * len(waiting.owners))) == ""
