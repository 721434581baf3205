"""When a limit will be met."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest

from kerasmemwatch.analysis.limit_forecast import Ahead, LimitForecast
from kerasmemwatch.units import MIB


def after(limit: int, values: Iterable[float], per_epoch: int = 0) -> Ahead | None:
    """What lies ahead after steps of one fit, in epochs of so many steps if that is not 0."""
    return followed(limit, values, per_epoch).ahead


def followed(limit: int, values: Iterable[float], per_epoch: int = 0) -> LimitForecast:
    forecast = LimitForecast(limit_bytes=limit)
    forecast.begin_call()
    for step, value in enumerate(values):
        forecast.add(value, value, epoch=step // per_epoch if per_epoch else 0)
        if per_epoch and step % per_epoch == per_epoch - 1:
            forecast.end_unit()
    forecast.end_unit()
    return forecast


def fits(limit: int, used_by_fit: Iterable[float]) -> list[Ahead | None]:
    """What lies ahead in the first step of each fit; each has two steps."""
    forecast, found = LimitForecast(limit_bytes=limit), []
    for used in used_by_fit:
        forecast.begin_call()
        forecast.add(used, used, epoch=0)
        found.append(forecast.ahead)
        forecast.add(used, used, epoch=0)
        forecast.end_unit()
    return found


def test_knows_nothing_at_first() -> None:
    assert LimitForecast(limit_bytes=100).ahead is None
    forecast = LimitForecast(limit_bytes=100)
    forecast.add(math.nan, math.nan)
    assert forecast.ahead is None


def test_within_the_first_epoch_only_what_two_more_steps_meet_counts() -> None:
    values = range(1000, 2700, 100)
    for far in (2900, 3500, 10_000):
        assert after(far, values) is None
    assert after(2800, values) == Ahead(2, rate=100)
    assert after(2601, values) == Ahead(1, rate=100)


def test_a_long_first_epoch_is_never_called_growing() -> None:
    assert after(100 * MIB, (MIB + 4096 * step for step in range(2000))) is None


def test_growth_after_the_first_epoch_tells_when_the_limit_is_met() -> None:
    jitter = random.Random(0)
    found = after(64 * MIB, (MIB + 4096 * step + jitter.choice([0, 65536]) for step in range(400)), per_epoch=50)
    assert found is not None and found.is_growth and not found.is_near and found.unit == "step"
    assert found.rate == pytest.approx(4096, rel=0.1)
    assert found.count == pytest.approx((64 * MIB - MIB) / 4096 - 400, rel=0.1)


def test_growth_of_a_long_run_is_found_with_few_rows_kept() -> None:
    forecast = followed(200 * MIB, (MIB + 4096 * step for step in range(20_000)), per_epoch=100)
    found = forecast.ahead
    assert found is not None and found.is_growth and found.rate == pytest.approx(4096, rel=0.05)
    assert len(forecast._rows) < 6 * 6000


def test_growth_from_fit_to_fit_ends_before_the_limit() -> None:
    used = [size * MIB for size in (32, 64, 84, 104, 128, 148, 168, 188)]
    found = fits(200 * MIB, used)
    assert found[:4] == [None] * 4
    warned = [ahead for ahead in found[:-1] if ahead is not None]
    assert warned and all(ahead.is_growth and ahead.unit == "fit" and not ahead.is_near for ahead in warned)
    assert found[-1] is not None and found[-1].is_near and found[-1].count == 1
    assert found[-1].rate == pytest.approx(20 * MIB, rel=0.2)


def test_growth_from_fit_to_fit_that_has_ended_is_no_reason_to_end() -> None:
    used = [size * MIB for size in (32, 64, 84, 104, 128, 148, 168, *[188] * 20)]
    assert fits(200 * MIB, used)[-1] is None


def test_near_the_limit_four_steps_are_enough() -> None:
    assert after(1600, [1000, 1100, 1200, 1300]) is None
    assert after(1600, [1000, 1100, 1200, 1300, 1400]) == Ahead(2, rate=100)
    assert after(1600, [10, 1100, 1200, 1300, 1400]) == Ahead(2, rate=100)  # the first jump is no measure of growth
    assert after(1600, [1000, 1100, 1100, 1300, 1400]) is None


@pytest.mark.parametrize("values", [[500] * 100, [500, 499] * 50, list(range(1000, 0, -10))])
@pytest.mark.parametrize("per_epoch", [0, 10])
def test_what_does_not_grow_never_meets_it(values: list[int], per_epoch: int) -> None:
    assert after(10**6, values, per_epoch) is None


def test_jitter_is_no_growth() -> None:
    chance = random.Random(0)
    values = [1000 * chance.uniform(0.8, 1.0) for _ in range(500)]
    assert after(1500, values, 20) is None


def test_one_jump_is_no_growth() -> None:
    assert after(10_000, [100] * 20 + [5000] * 3) is None
    assert after(MIB, [100 * 1024] * 200 + [512 * 1024] * 200, 20) is None


def test_a_cache_that_fills_is_no_growth() -> None:
    filled = [*(MIB + 205 * 1024 * step for step in range(200)), *[41 * MIB] * 200]
    forecast = LimitForecast(limit_bytes=64 * MIB)
    for step, used in enumerate(filled):
        forecast.add(used, used, epoch=step // 200)
        assert forecast.ahead is None
        if step % 200 == 199:
            forecast.end_unit()
            assert forecast.ahead is None


@pytest.mark.parametrize("is_known", [True, False])
def test_a_cache_that_is_known_to_fill_for_several_epochs_is_no_growth(is_known: bool) -> None:
    forecast = LimitForecast(limit_bytes=200 * MIB)
    forecast.caches.begin(0, (40 * MIB,))
    warned = False
    for step in range(1, 401):
        forecast.add(MIB + 100 * 1024 * step, MIB + 100 * 1024 * step, epoch=(step - 1) // 50)
        if step % 50 == 0:
            if is_known and forecast.caches.is_due(forecast.steps):
                forecast.caches.add(forecast.steps, 100 * 1024 * step)
            forecast.end_unit()
        warned |= forecast.ahead is not None
    assert warned != is_known


@pytest.mark.parametrize("used", [100, 101, 10**9])
def test_a_step_that_meets_the_limit_is_told(used: int) -> None:
    forecast = LimitForecast(limit_bytes=100)
    for value in (50, used):
        forecast.add(50, value)
    assert forecast.ahead == Ahead(0)
    forecast.begin_call()  # what another fit needed says nothing of this one
    forecast.add(50, 50)
    assert forecast.ahead is None
