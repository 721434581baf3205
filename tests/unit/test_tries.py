"""Tries of one process with several watches."""

from __future__ import annotations

import pytest

from kerasmemwatch.analysis.death_words import asked_beyond, death_lines
from kerasmemwatch.out_of_memory.tries import Kind, Tries, kind_of
from kerasmemwatch.records.death import Death, Request
from kerasmemwatch.records.layer_memory import LayerMemory

DENSE = LayerMemory("model/dense", "Dense", weights_bytes=400)
KIND = Kind("logs", "train", (1, 400))


def test_a_model_that_is_made_anew_is_of_the_same_kind() -> None:
    anew = LayerMemory("model_1/dense_1", "Dense", weights_bytes=400)
    assert kind_of("logs", "train", [DENSE]) == kind_of("logs", "train", [anew]) == KIND


@pytest.mark.parametrize(
    ("log_dir", "stage", "layers"),
    [
        ("other", "train", [DENSE]),
        ("logs", "test", [DENSE]),
        ("logs", "train", [DENSE, DENSE]),
        ("logs", "train", [LayerMemory("model/dense", "Dense", weights_bytes=404)]),
        ("logs", "train", []),
    ],
)
def test_what_differs_is_of_another_kind(log_dir: str, stage: str, layers: list[LayerMemory]) -> None:
    assert kind_of(log_dir, stage, layers) != KIND


def test_tries_are_of_others_until_one_fits() -> None:
    tries, other = Tries(), Kind("logs", "test", (1, 400))
    assert not tries
    tries.add(KIND, "a", Death(1, "train", batch=64))
    tries.add(other, "a", Death(2, "test"))
    tries.add(KIND, "b", Death(1, "train", batch=32))
    assert [(death.run, death.batch) for death in tries.of_others(KIND, "c")] == [("a", 64), ("b", 32)]
    assert [death.run for death in tries.of_others(KIND, "b")] == ["a"]
    tries.settle(KIND)
    assert tries.of_others(KIND, "c") == () and len(tries.of_others(other, "c")) == 1


def test_no_more_are_kept_than_anyone_reads() -> None:
    tries = Tries()
    for step in range(100):
        tries.add(KIND, "a", Death(step, "train"))
    assert [death.step for death in tries.of_others(KIND, "b")] == list(range(68, 100))


def test_a_run_whose_own_step_died_tells_of_that_first() -> None:
    before = Death(1, "train", batch=64, run="a")
    headline, *_, last = death_lines([before, Death(3, "train", batch=32)])
    assert headline.startswith("Step 3 ran out of memory") and last.startswith("  Before: Step 1 of run a ran out")


def test_what_another_run_asked_for_is_not_said_of_this_ones_device() -> None:
    there = Death(7, "train", request=Request("op", 1024, device="GPU:0"), run="a")
    assert asked_beyond([there], "GPU:0") == ""
