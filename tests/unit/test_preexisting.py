"""What was alive before a step has a name where it can be known, and is counted where it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from captures import PIPELINE, chunk, events, random_lines

from kerasmemwatch.attribution.events.pairing import pair
from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer, Sighting
from kerasmemwatch.attribution.owners.preexisting import baseline_parts
from kerasmemwatch.attribution.owners.variable_parts import Part

KERNEL = KnownBuffer("a", "Dense", "weights", 1024, address=4096, key=1, trainable=True)
TENSOR = KnownBuffer("eager tensors", "", "other", 512, address=8192)


def baseline(
    lines: Sequence[Any],
    known: Sequence[KnownBuffer] = (),
    assigned: dict[str, KnownBuffer] | None = None,
    batch: Sequence[BatchPart] = (),
    *,
    before: int,
    held: dict[str, int] | None = None,
    sightings: Sequence[Sighting] = (),
    earlier: Sequence[KnownBuffer] = (),
) -> tuple[Part, ...]:
    made = events(lines, before=before)
    return baseline_parts(made, pair(made), known, assigned or {}, batch, held, sightings, earlier)


def owners(found: Sequence[Part]) -> dict[int, str]:
    return {part.row: part.buffer.owner for part in sorted(found, key=lambda part: part.row) if part.row >= 0}


def lives(found: Sequence[Part], row: int) -> list[tuple[int, int, str]]:
    """From when until when an allocation is what, where that is not what made it."""
    parts = sorted((part for part in found if part.row == row), key=lambda part: part.begin)
    return [(part.begin, part.end, part.buffer.owner) for part in parts]


def extra(found: Sequence[Part]) -> list[tuple[str, int]]:
    return [(part.buffer.owner, part.buffer.bytes) for part in found if part.row < 0]


SOME = [(256, 10), (256, -10)]


def test_a_variable_that_stays_is_alive_all_the_time() -> None:
    found = baseline(SOME, [KERNEL], before=1024)
    assert lives(found, -1) == [(-1, 2, "a")]
    assert owners(found) == {}


def test_a_variable_that_moved_is_known_by_its_new_place_and_its_old_ones_size() -> None:
    lines = [(4096, 1024, "Assign"), (512, -1024), (768, -100)]
    found = baseline(lines, [KERNEL], before=1024 + 256)
    assert (lives(found, 0), lives(found, 1)) == ([(1, 3, "a")], [(-1, 1, "a")])
    assert extra(found) == []


def test_on_a_device_whose_addresses_are_unknown_the_assignment_tells_it() -> None:
    kernel = replace(KERNEL, address=0)
    lines = [(4096, 1024, "StatefulPartitionedCall/adam/AssignSubVariableOp"), (512, -1024)]
    found = baseline(lines, [kernel], {"adam/AssignSubVariableOp": kernel}, before=1024)
    assert owners(found) == {0: "a", 1: "a"}
    assert extra(found) == []


def test_the_longest_name_of_an_assignment_counts() -> None:
    kernel, other = replace(KERNEL, address=0), replace(KERNEL, owner="b", address=0, key=2)
    lines = [(4096, 1024, "call/adam/Assign")]
    found = baseline(lines, [kernel, other], {"adam/Assign": kernel, "Assign": other}, before=1024)
    assert owners(found) == {0: "a"}
    assert extra(found) == [("b", 1024)]


def test_each_of_two_variables_of_one_size_has_one_old_place() -> None:
    other = replace(KERNEL, owner="b", address=8192, key=2)
    lines = [(4096, 1024), (512, -1024), (8192, 1024), (2048, -1024)]
    found = baseline(lines, [KERNEL, other], before=2048)
    assert owners(found) == {0: "a", 1: "b", 2: "a", 3: "b"}


def test_a_tensor_that_the_step_made_belongs_to_who_made_it() -> None:
    found = baseline([(8192, 512, "Relu")], [TENSOR], before=0)
    assert found == ()


def test_a_tensor_in_a_part_of_what_the_step_made_is_not_counted_again() -> None:
    found = baseline([(8192, 4096, "Relu")], [TENSOR], before=10_000)
    assert extra(found) == [("unattributed", 10_000)]


@pytest.mark.parametrize(("size", "owner"), [(4000, "input pipeline"), (4001, None), (400, "input pipeline")])
def test_what_died_and_is_as_large_as_a_batch_was_one(size: int, owner: str | None) -> None:
    found = baseline([(256, -size)], batch=[BatchPart(400, True), BatchPart(77, False)], before=chunk(size))
    assert owners(found).get(0) == owner


def test_what_died_and_is_as_large_as_what_the_pipeline_makes_was_its_own() -> None:
    found = baseline([(256, -77), (512, 77, "", PIPELINE)], before=256)
    assert owners(found) == {1: "input pipeline"}


def test_rounding_is_none_of_the_unknown() -> None:
    # A chunk may be up to twice the request, less its smallest part.
    assert extra(baseline(SOME, [KERNEL], before=1024 + 768)) == [("a", 1024)]
    assert extra(baseline(SOME, [KERNEL], before=1024 + 769)) == [("a", 1024), ("unattributed", 769)]


def test_what_nobody_knows_is_counted() -> None:
    assert extra(baseline(SOME, before=5000)) == [("unattributed", 5000)]
    assert extra(baseline(SOME, before=0)) == []


def test_what_does_not_fit_is_not_in_this_allocator() -> None:
    # A variable comes first: a tensor may lie in an array of NumPy's.
    assert extra(baseline(SOME, [TENSOR, KERNEL], before=1024)) == [("a", 1024)]
    assert extra(baseline(SOME, [TENSOR, KERNEL], before=1536)) == [("a", 1024), ("eager tensors", 512)]


@pytest.mark.parametrize("seed", range(20))
def test_named_or_not_it_never_adds_up_to_more_than_was_in_use(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = random_lines(rng, 200)
    known = [
        KnownBuffer(f"a_{index}", "Dense", "weights", int(rng.integers(1, 3000)), int(rng.integers(1, 50)) * 256, index)
        for index in range(30)
    ]
    made = events(lines, before=int(rng.integers(40_000, 90_000)))
    rows = pair(made)
    found = baseline_parts(made, rows, known, {}, [BatchPart(8, True)])
    lasting = [part.buffer for part in found if part.row < 0]
    died = int(made.reserved_bytes[rows.event][rows.birth < 0].sum())
    kept = sum(chunk(buffer.bytes) for buffer in lasting if buffer.owner != "unattributed")
    rest = sum(buffer.bytes for buffer in lasting if buffer.owner == "unattributed")
    assert died + kept + rest <= made.in_use_before_bytes
    # Beyond what may be rounding, all of it is accounted for.
    slack = made.in_use_before_bytes - died - kept - rest
    assert slack <= sum(chunk(buffer.bytes) - 256 for buffer in lasting if buffer.owner != "unattributed")


def test_waiting_batches_are_among_what_nothing_else_explains() -> None:
    found = baseline(SOME, [KERNEL], before=1024 + 1024 + 2048, held={"input pipeline": 1024})
    assert extra(found) == [("a", 1024), ("input pipeline", 1024), ("unattributed", 2048)]
    assert [part.buffer.category for part in found] == ["weights", "inputs", "unattributed"]


def test_what_constants_of_earlier_models_may_take_is_theirs_and_no_more() -> None:
    found = baseline(SOME, [KERNEL], before=1024 + 768 + 2048, held={"earlier models": 1024})
    assert extra(found) == [("a", 1024), ("earlier models", 1024), ("unattributed", 1024 + 768)]
    found = baseline(SOME, [KERNEL], before=1024 + 768 + 512, held={"earlier models": 1024})
    assert extra(found) == [("a", 1024), ("earlier models", 512)]


def test_a_batch_that_the_step_used_up_waits_no_longer() -> None:
    found = baseline([(256, -512)], before=512 + 512, batch=[BatchPart(512, False)], held={"input pipeline": 1024})
    assert owners(found) == {0: "input pipeline"}
    assert extra(found) == [("input pipeline", 512)]


def test_what_tapes_hold_is_known_by_how_much_it_is() -> None:
    found = baseline([(256, -700), (4096, -5000)], before=768 + 5120 + 512, held={"kept tapes": 1200})
    assert owners(found) == {0: "kept tapes"}  # 5,000 bytes are more than they hold
    assert extra(found) == [("kept tapes", 500), ("unattributed", 12)]


def test_never_more_is_held_than_is_in_use() -> None:
    found = baseline(SOME, [KERNEL], before=1024 + 768 + 256, held={"kept tapes": 1 << 40})
    assert extra(found) == [("a", 1024), ("kept tapes", 1024)]
    # Up to 768 bytes more may be the rounding of the kernel's chunk; the allocator told of tapes, the pipeline of this.
    found = baseline(SOME, [KERNEL], before=1024 + 768 + 256, held={"input pipeline": 1 << 40})
    assert extra(found) == [("a", 1024), ("input pipeline", 256)]


def test_what_tapes_hold_comes_before_the_tensors_it_may_be_among() -> None:
    batch = KnownBuffer("input pipeline", "", "inputs", 256, address=1 << 40)
    tensors = [TENSOR, replace(TENSOR, bytes=2048, address=16384), batch]
    found = baseline(SOME, [*tensors, KERNEL], before=1024 + 700 + 256 + 2048, held={"kept tapes": 700})
    # The largest of them is sure to be another's.
    assert extra(found) == [("a", 1024), ("kept tapes", 700), ("input pipeline", 256), ("eager tensors", 2048)]


def test_a_chunk_ends_where_the_next_one_begins() -> None:
    # The kernel's chunk may take up to 768 bytes more, but for a tensor that begins 256 bytes behind it.
    beside = replace(TENSOR, bytes=256, address=KERNEL.address + 1024 + 256)
    assert extra(baseline(SOME, [KERNEL, beside], before=1024 + 256 + 256)) == [("a", 1024), ("eager tensors", 256)]
    found = baseline(SOME, [KERNEL, beside], before=1024 + 256 + 257)
    assert extra(found)[2:] == [("unattributed", 1)]


def test_handles_and_constants_come_before_tensors_that_may_lie_elsewhere() -> None:
    others = [
        KnownBuffer("variable handles", "", "other", 200),
        KnownBuffer("functions", "", "other", 4, 4096, constant=True),
    ]
    elsewhere = replace(TENSOR, address=1 << 40)
    found = baseline(SOME, [elsewhere, *others], before=512 + 256)
    assert extra(found) == [("variable handles", 200), ("functions", 4), ("unattributed", 256)]


def test_a_tensor_that_no_chunk_could_begin_with_comes_last() -> None:
    numpys = replace(TENSOR, owner="other variables", address=8192 + 64)
    constant = KnownBuffer("functions", "", "other", 4, 4096, constant=True)
    assert extra(baseline(SOME, [numpys, constant, TENSOR], before=512 + 256)) == [
        ("eager tensors", 512),
        ("functions", 4),
    ]
    assert extra(baseline(SOME, [numpys], before=512)) == [("other variables", 512)]


def test_an_array_that_a_pipeline_keeps_counts_once_also_if_it_dies_in_the_step() -> None:
    array = KnownBuffer("input pipeline", "", "inputs", 1000)
    assert extra(baseline(SOME, [array, KERNEL], before=1024 + 1024)) == [("a", 1024), ("input pipeline", 1000)]
    died = [(256, -1000), (8192, 10)]
    found = baseline(died, [array, KERNEL], batch=[BatchPart(100, True)], before=1024 + 1024 + 2048)
    assert owners(found) == {1: "input pipeline"}
    assert extra(found) == [("a", 1024), ("unattributed", 2048)]


def test_the_chunk_of_an_array_may_be_known() -> None:
    array = KnownBuffer("input pipeline", "", "inputs", 1000)
    assert extra(baseline(SOME, [array], before=1536 + 512)) == [("input pipeline", 1000), ("unattributed", 1024)]
    exact = replace(array, reserved=1536)
    assert extra(baseline(SOME, [exact], before=1536)) == [("input pipeline", 1000)]
    assert extra(baseline(SOME, [exact], before=1536 + 512)) == [("input pipeline", 1000), ("unattributed", 512)]


def test_an_array_of_numpys_is_not_what_earlier_models_hold() -> None:
    elsewhere = KnownBuffer("input pipeline", "", "inputs", 4096, 1 << 40)
    held = {"earlier models": 4096}
    assert extra(baseline(SOME, [KERNEL, elsewhere], before=1024 + 768 + 4096, held=held)) == [
        ("a", 1024),
        ("earlier models", 4096),
    ]
    # With too little else to explain these bytes, it is the allocator's.
    held = {"earlier models": 1024}
    assert extra(baseline(SOME, [KERNEL, elsewhere], before=1024 + 768 + 4096, held=held)) == [
        ("a", 1024),
        ("input pipeline", 4096),
    ]
    near = replace(elsewhere, address=4096 + 4096)
    held = {"earlier models": 4096}
    assert extra(baseline(SOME, [KERNEL, near], before=1024 + 768 + 4096, held=held)) == [
        ("a", 1024),
        ("input pipeline", 4096),
    ]


def test_a_tensor_that_died_in_the_step_is_known_from_before_it() -> None:
    tensor = KnownBuffer("input pipeline", "", "inputs", 80, address=8192)
    died = [(256, 10), (8192, -80)]
    assert owners(baseline(died, earlier=[tensor], before=256)) == {1: "input pipeline"}
    others = [replace(tensor, address=8192 + 256), replace(tensor, bytes=88)]
    assert owners(baseline(died, earlier=others, before=256)) == {}
