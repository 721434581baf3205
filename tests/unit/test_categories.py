"""What an allocation is for, by its life."""

from __future__ import annotations

import numpy as np
import pytest

from kerasmemwatch.attribution.owners.categories import PHASE_CODES, by_life
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import PHASES

# Phase, birth, death.
Life = tuple[str, int, int]


def categories(*lives: Life, metric: int | None = None, loss: int | None = None) -> list[str]:
    count = np.arange(len(lives))
    found = by_life(
        np.array([PHASE_CODES[phase] for phase, _, _ in lives], np.int8),
        np.array([birth for _, birth, _ in lives], np.int64),
        np.array([death for _, _, death in lives], np.int64),
        is_metric=count == metric,
        is_scalar_loss=count == loss,
    )
    return [CATEGORIES[code] for code in found]


def test_what_the_backward_pass_finds_alive_is_an_activation() -> None:
    assert categories(("forward", 0, 6), ("forward", 1, 2), ("backward", 4, 5)) == [
        "activations",
        "temporaries",
        "temporaries",
    ]


def test_what_dies_as_the_backward_pass_begins_is_a_temporary() -> None:
    assert categories(("forward", 0, 4), ("backward", 4, 5))[0] == "temporaries"
    assert categories(("forward", 0, 5), ("backward", 4, 5))[0] == "activations"


def test_without_backward_pass_nothing_is_an_activation() -> None:
    assert categories(("forward", 0, 9), ("forward", 1, 2)) == ["temporaries", "temporaries"]


def test_in_a_gan_each_value_waits_for_the_next_backward_pass() -> None:
    lives: list[Life] = [
        ("forward", 0, 4),  # alive when the discriminator's pass begins
        ("backward", 3, 4),
        ("forward", 5, 6),  # made after that, gone before the generator's
        ("forward", 7, 10),
        ("backward", 9, 10),
        ("forward", 11, 20),  # after all
    ]
    assert categories(*lives) == [
        "activations", "temporaries", "temporaries", "activations", "temporaries", "temporaries",
    ]  # fmt: skip


def test_inputs_metrics_and_the_loss_are_none_of_both() -> None:
    lives: list[Life] = [("input", 0, 9), ("forward", 1, 9), ("forward", 2, 9), ("backward", 5, 6), ("update", 7, 8)]
    assert categories(*lives, metric=1, loss=2) == ["inputs", "other", "other", "temporaries", "temporaries"]


def test_no_allocation_has_no_category() -> None:
    assert categories() == []


@pytest.mark.parametrize("seed", range(20))
def test_the_rule_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lives: list[Life] = [(str(rng.choice(PHASES[1:])), birth, birth + int(rng.integers(1, 30))) for birth in range(40)]
    for (phase, birth, death), found in zip(lives, categories(*lives), strict=True):
        later = [other for kind, other, _ in lives if kind == "backward" and other > birth]
        if phase == "forward":
            assert found == ("activations" if later and death > later[0] else "temporaries")
        else:
            assert found == ("inputs" if phase == "input" else "temporaries")
