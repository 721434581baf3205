"""When a limit will be met."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest

from kerasmemwatch.analysis.limit_forecast import Forecast

NAN = math.nan


def after(limit: int, values: Iterable[float]) -> Forecast:
    forecast = Forecast(limit)
    for value in values:
        forecast.add(value)
    return forecast


def test_knows_nothing_at_first() -> None:
    forecast = Forecast(100)
    assert (forecast.bytes_per_step, forecast.steps_left) == (0.0, None)
    assert math.isnan(forecast.used_bytes)


def test_steady_growth_meets_the_limit_when_it_should() -> None:
    forecast = after(10_000, range(1000, 2700, 100))
    assert forecast.bytes_per_step == 100
    assert forecast.steps_left == (10_000 - 2600) // 100
    steps, used = 0, 2600
    while used < 10_000:
        used += 100
        steps += 1
    assert steps == forecast.steps_left


def test_a_part_of_a_step_counts_as_one() -> None:
    assert after(2601, range(1000, 2700, 100)).steps_left == 1


def test_growth_needs_sixteen_steps() -> None:
    values = range(1000, 2700, 100)
    assert after(10_000, list(values)[:16]).steps_left is None
    assert after(10_000, list(values)[:17]).steps_left is not None


def test_near_the_limit_four_steps_are_enough() -> None:
    assert after(1600, [1000, 1100, 1200, 1300]).steps_left is None
    assert after(1600, [1000, 1100, 1200, 1300, 1400]).steps_left == 2
    assert after(1600, [10, 1100, 1200, 1300, 1400]).steps_left == 2  # the first jump is no measure of growth
    assert after(1600, [1000, 1100, 1100, 1300, 1400]).steps_left is None


@pytest.mark.parametrize("values", [[500] * 100, [500, 499] * 50, list(range(1000, 0, -10))])
def test_what_does_not_grow_never_meets_it(values: list[int]) -> None:
    assert after(10**6, values).steps_left is None


def test_jitter_is_no_growth() -> None:
    chance = random.Random(0)
    values = [1000 * chance.uniform(0.8, 1.0) for _ in range(500)]
    assert after(1500, values).steps_left is None


def test_one_jump_is_no_growth() -> None:
    assert after(10_000, [100] * 20 + [5000] * 3).steps_left is None


def test_growth_that_ended_is_forgotten() -> None:
    assert after(10**6, [*range(0, 5000, 100), *[5000] * 20]).steps_left is None


@pytest.mark.parametrize("used", [100, 101, 10**9])
def test_a_limit_that_was_met_once_is_met(used: int) -> None:
    forecast = after(100, [50, used, 50])
    assert forecast.steps_left == 0 and forecast.used_bytes == 50 and forecast.highest_bytes == used


def test_unknown_values_change_nothing() -> None:
    values = list(range(1000, 2700, 100))
    with_gaps = [item for value in values for item in (NAN, value, NAN)]
    assert after(10_000, with_gaps).steps_left == after(10_000, values).steps_left
    assert after(10_000, [NAN] * 50).steps_left is None
