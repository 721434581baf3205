"""Which allocations hold gradients of variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from captures import events

from kerasmemwatch.attribution.events.pairing import pair
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer, gradient_bytes, gradient_rows

KERNEL = GradientBuffer("a", "Dense", 400, 1)
BIAS = GradientBuffer("a", "Dense", 40, 2)


def found(
    lines: Sequence[Any], *gradients: GradientBuffer, owner: str = "a", backward: Sequence[bool] | None = None
) -> dict[int, GradientBuffer]:
    made = events(lines)
    rows = pair(made)
    count = len(rows.birth)
    flags = np.array([True] * count if backward is None else backward, bool)
    return gradient_rows(made, rows, gradients, [owner] * count, flags)


def test_by_the_operation_that_gives_it() -> None:
    kernel = replace(KERNEL, ops=("gradient_tape/a/MatMul_1",))
    lines = [(256, 400, "x"), (1024, 400, "StatefulPartitionedCall/gradient_tape/a/MatMul_1"), (2048, 400, "y")]
    assert found(lines, kernel) == {1: kernel}


def test_an_operation_that_took_a_buffer_over_names_the_one_before() -> None:
    kernel = replace(KERNEL, ops=("mul", "MatMul_1"))
    assert found([(256, 400, "MatMul_1"), (1024, 404, "mul")], kernel) == {0: kernel}


def test_two_gradients_of_one_operation_are_two() -> None:
    gamma, beta = (replace(BIAS, key=key, ops=("FusedBatchNormGradV3",)) for key in (1, 2))
    lines = [(256, 40, "FusedBatchNormGradV3"), (512, 40, "FusedBatchNormGradV3"), (768, 9, "FusedBatchNormGradV3")]
    assert found(lines, gamma, beta) == {0: gamma, 1: beta}


def test_a_sparse_one_may_have_any_size() -> None:
    sparse = replace(KERNEL, bytes=None, ops=("Reshape",))
    assert found([(256, 8, "Reshape"), (512, 96, "Reshape")], sparse) == {1: sparse}
    assert found([(256, 8, "other")], sparse) == {}


def test_a_sparse_one_in_a_buffer_of_the_forward_pass_is_in_the_one_that_lives_longest() -> None:
    sparse = replace(KERNEL, bytes=None, ops=("Reshape", "mul", "GatherV2"))
    lines = [(256, 96, "GatherV2"), (512, 96, "mul"), (512, -96), (1024, 8, "other")]
    assert found(lines, sparse, backward=[False, False, True]) == {0: sparse}
    # What the backward pass made itself goes before, and no buffer is two gradients.
    assert found([*lines, (2048, 96, "Reshape")], sparse, backward=[False, False, True, True]) == {3: sparse}
    other = replace(sparse, key=9)
    assert found(lines, sparse, other, backward=[False, False, True]) == {0: sparse, 1: other}


def test_an_operation_that_was_moved_has_the_name_of_what_it_was_made_as() -> None:
    cast = replace(KERNEL, ops=("e/Cast/Cast",))
    moved = "StatefulPartitionedCall/e/Cast/ArithmeticOptimizer/ReorderCastLikeAndValuePreserving_float_Cast"
    assert found([(256, 400, "x"), (1024, 400, moved)], cast) == {1: cast}


def test_by_its_place_at_the_time() -> None:
    # The same address thrice; the second was alive at 1,035.
    lines = [(256, 400), (256, -400), (256, 400), (1024, 1), (256, -400), (256, 400)]
    eager = replace(KERNEL, address=256, time_ns=1_035)
    assert found(lines, eager) == {1: eager}
    assert found(lines, replace(eager, address=512)) == {1: replace(eager, address=512)}  # by its size
    # What was there before the step is no gradient of it.
    assert found([(256, -400)], eager) == {}


def test_by_its_size_the_one_that_lives_longest() -> None:
    lines = [(256, 400), (256, -400), (1024, 400), (2048, 400), (2048, -400)]
    assert found(lines, KERNEL) == {1: KERNEL}
    other = replace(KERNEL, key=9)
    assert found(lines, KERNEL, other) == {1: KERNEL, 0: other}


@pytest.mark.parametrize(
    ("owner", "is_found"), [("a/b", True), ("a", True), ("a/b/c", False), ("b", False), ("", False)]
)
def test_by_its_size_also_of_a_layer_around(owner: str, is_found: bool) -> None:
    inner = replace(KERNEL, owner="a/b")
    assert bool(found([(256, 400)], inner, owner=owner)) == is_found


def test_forward_values_are_no_gradients() -> None:
    kernel = replace(KERNEL, ops=("MatMul",))
    assert found([(256, 400, "MatMul")], kernel, backward=[False]) == {}


def test_each_variable_counts_once() -> None:
    rows = {0: KERNEL, 1: BIAS, 2: replace(KERNEL, owner="b"), 3: KERNEL}
    assert gradient_bytes(rows, np.array([400, 40, 400, 300])) == {"a": 440, "b": 400}
    assert gradient_bytes({}, np.array([], np.int64)) == {}


@pytest.mark.parametrize("seed", range(10))
def test_no_row_is_two_variables(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = [(256 * (index + 1), int(rng.choice([4, 40, 400])), f"op_{rng.integers(4)}") for index in range(40)]
    gradients = [
        GradientBuffer("a", "Dense", int(rng.choice([4, 40, 400])), key, ops=(f"op_{rng.integers(6)}",))
        for key in range(30)
    ]
    rows = found(lines, *gradients)
    assert len({gradient.key for gradient in rows.values()}) == len(rows)
    assert all(lines[row][1] == gradient.bytes for row, gradient in rows.items())
