"""What a tape held: sizes of gradients, and what a traced step tells."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from timelines import Line, step, timeline

from kerasmemwatch.watch.tapes.tape_memory import TapeMemory, tensor_bytes, traced_memory


def sliced(values: Any, indices: Any) -> SimpleNamespace:
    return SimpleNamespace(values=values, indices=indices)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, 0),
        (np.zeros((3, 4), "float32"), 48),
        (np.zeros((0, 4), "float64"), 0),
        (np.float32(1), 4),
        (SimpleNamespace(shape=(2, 3), dtype=SimpleNamespace(size=2)), 12),
        (SimpleNamespace(shape=(2, None), dtype=SimpleNamespace(size=4)), None),
        (SimpleNamespace(shape=None, dtype=SimpleNamespace(size=4)), None),
        (SimpleNamespace(shape=(2,), dtype=object()), None),
        (object(), None),
        (sliced(np.zeros((5, 2), "float32"), np.zeros(5, "int64")), 80),
        (sliced(np.zeros((5, 2), "float32"), object()), None),
    ],
)
def test_bytes_of_a_gradient(value: Any, expected: int | None) -> None:
    assert tensor_bytes(value) == expected


# Weights, two activations, a gradient of each kind; the first event of the backward pass is the third.
LINES: list[Line] = [
    (100, -1, 6, "dense", "weights", "between", ""),
    (40, 0, 4, "dense", "activations", "forward", "MatMul"),
    (30, 1, 5, "dense", "activations", "forward", "Relu"),
    (25, 2, 6, "dense", "gradients", "backward", "MatMul_1"),
    (7, 3, 4, "loss", "temporaries", "backward", "Mul"),
]


def test_a_traced_step() -> None:
    made = timeline(LINES, 6)
    found = traced_memory([step(made, 3, gradient_bytes={"dense": 25, "head": 5})])
    assert found == TapeMemory("trace", 3, 70, 30, 202)
    # Without the bytes by layer: the most that was alive at one moment.
    assert traced_memory([step(made, 4)]) == TapeMemory("trace", 4, 70, 25, 202)


def test_what_earlier_tapes_hold_is_not_counted() -> None:
    earlier: Line = (50, -1, 6, "kept tapes", "activations", "between", "")
    assert traced_memory([step(timeline([earlier, *LINES], 6), 3)]) == TapeMemory("trace", 3, 70, 25, 252)


def test_what_has_no_owner_does_not_tell_when_the_backward_pass_begins() -> None:
    early: Line = (48, 0, 6, "unattributed", "unattributed", "backward", "train")
    found = traced_memory([step(timeline([early, *LINES], 6), 3)])
    assert found is not None and found.saved_for_backward_bytes == 70


def test_a_gradient_operation_that_runs_early_does_not_end_the_forward_pass() -> None:
    # That of a shape needs no gradient to begin with.
    early: Line = (8, 1, 6, "dense", "temporaries", "backward", "Shape")
    found = traced_memory([step(timeline([early, *LINES], 6), 3)])
    assert found is not None and found.saved_for_backward_bytes == 70


def test_the_newest_step_with_a_backward_pass_counts() -> None:
    made, forward = timeline(LINES, 6), timeline(LINES[:3], 6)
    assert traced_memory([]) is None
    assert traced_memory([step(forward, 2)]) is None
    assert traced_memory([step(made, 1, stage="test")]) is None
    found = traced_memory([step(made, 1), step(made, 2), step(made, 3, stage="predict"), step(forward, 4)])
    assert found is not None and found.step == 2


def test_what_is_unknown() -> None:
    memory = TapeMemory("allocator", None)
    assert (memory.saved_for_backward_bytes, memory.gradients_bytes, memory.peak_bytes) == (None, None, None)
