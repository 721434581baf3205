"""Intervals of slopes hold the true one as often as they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kerasmemwatch.leaks.verdicts.interval import slope

Noise = Callable[[np.random.Generator, int], np.ndarray]


def correlated(correlation: float) -> Noise:
    def noise(random: np.random.Generator, count: int) -> np.ndarray:
        values = np.zeros(count + 200)
        shocks = random.standard_normal(count + 200)
        for row in range(1, len(values)):
            values[row] = correlation * values[row - 1] + shocks[row]
        return values[200:]

    return noise


def alternating(random: np.random.Generator, count: int) -> np.ndarray:
    return 3.0 * (np.arange(count) % 3 == 0) + correlated(0.8)(random, count)


def two_states(random: np.random.Generator, count: int) -> np.ndarray:
    return np.cumsum(random.random(count) < 0.1) % 2


def test_holds_the_truth_ninety_five_times_of_a_hundred() -> None:
    random, held = np.random.default_rng(0), []
    for noise in (correlated(0), correlated(0.5), correlated(0.9), alternating, two_states):
        for num_rows in (150, 400):
            x = np.arange(float(num_rows))
            for _ in range(200):
                rate, low, high = slope(x, 0.3 * x + noise(random, num_rows))
                assert low <= rate <= high
                held.append(low <= 0.3 <= high)
            assert np.mean(held[-200:]) > 0.87, (noise, num_rows)
    assert 0.93 <= np.mean(held) <= 0.97


def test_a_line_is_certain() -> None:
    x = np.arange(10.0, 100, 10)
    assert slope(x, 5 + 2 * x) == pytest.approx((2, 2, 2))
    assert slope(x, np.full(len(x), 7.0)) == (0, 0, 0)


def test_of_three_values_little_is_certain() -> None:
    rate, low, high = slope(np.arange(3.0), np.array([0.0, 2.0, 3.0]))
    assert low < 0 < rate < high


def test_neither_level_nor_unit_matters() -> None:
    random = np.random.default_rng(1)
    x, y = np.arange(200.0), random.standard_normal(200)
    one, other = slope(x, y), slope(x + 1e6, 4096 * y + 1e10)
    assert np.array(one) * 4096 == pytest.approx(np.array(other), rel=1e-4)
