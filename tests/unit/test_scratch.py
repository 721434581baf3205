"""Whose scratch memory is that has no name."""

from __future__ import annotations

from typing import Any

import pytest
from captures import COMPUTE, PIPELINE, PYTHON, events

from kerasmemwatch.attribution.events.pairing import pair
from kerasmemwatch.attribution.owners.scratch import ops_at_work


def ops(*lines: Any) -> list[str]:
    made = events(lines)
    return [made.ops[code] for code in ops_at_work(made, pair(made)).tolist()]


MATMUL = (256, 400, "a/MatMul")


def test_it_is_the_operations_that_is_at_work() -> None:
    assert ops(MATMUL, (1024, 9000), (16384, 64), (1024, -9000), (2048, 80), (16384, -64)) == ["a/MatMul"] * 4


def test_an_operation_has_ended_when_what_it_read_is_freed() -> None:
    assert ops((8192, 40, "x"), MATMUL, (8192, -40), (1024, 9000), (1024, -9000)) == ["x", "a/MatMul", ""]


def test_the_next_operation_has_its_own() -> None:
    assert ops(MATMUL, (512, 40, "b/Mul"), (1024, 9000)) == ["a/MatMul", "b/Mul", "b/Mul"]


def test_without_an_operation_before_it_is_nobodys() -> None:
    assert ops((1024, 9000), MATMUL) == ["", "a/MatMul"]


@pytest.mark.parametrize("thread", [PYTHON, PIPELINE])
def test_only_threads_that_compute(thread: int) -> None:
    assert ops((256, 400, "a/MatMul", thread), (1024, 9000, "", thread)) == ["a/MatMul", ""]
    assert ops(MATMUL, (1024, 9000, "", thread), (2048, 90, "", COMPUTE)) == ["a/MatMul", "", "a/MatMul"]
