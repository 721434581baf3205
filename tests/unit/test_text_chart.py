"""Charts of characters: every peak shows, and nothing is drawn where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from kerasmemwatch.reports.text.text_chart import BLOCKS, PLAIN, chart

NAN = float("nan")


def heights(lines: list[str], ramp: str = BLOCKS) -> list[int]:
    """The level of each column, from 0 (nothing) to rows times steps a row."""
    return [sum(ramp.index(line[column]) for line in lines) for column in range(len(lines[0]))]


def draw(values: list[float], steps: list[float] | None = None, **options: object) -> list[str]:
    at = np.arange(float(len(values))) if steps is None else np.array(steps, float)
    return chart(at, np.array(values, float), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [1, 2, 3, 59, 60, 61, 10_000])
@pytest.mark.parametrize(("width", "height"), [(60, 4), (1, 1), (200, 3)])
@pytest.mark.parametrize("ramp", [BLOCKS, PLAIN])
def test_has_the_size_that_was_asked_for(length: int, width: int, height: int, ramp: str) -> None:
    lines = draw(list(range(length)), width=width, height=height, ramp=ramp)
    assert [len(line) for line in lines] == [width] * height
    assert set("".join(lines)) <= set(ramp)


def test_rising_values_make_rising_columns() -> None:
    found = heights(draw(list(range(60)), height=4))
    assert found == sorted(found) and found[0] >= 1 and found[-1] == 4 * 8


def test_a_peak_among_many_samples_shows() -> None:
    values = [1.0] * 100_000
    values[54_321] = 2.0
    found = heights(draw(values))
    assert found.index(max(found)) == int(54_321 / 99_999 * 60) and found.count(max(found)) == 1
    assert max(found) == 32 and min(found) == 1


def test_columns_lie_where_their_steps_are() -> None:
    found = heights(draw([1, 5, 1], steps=[0, 90, 100], width=10))
    assert found[9] == max(found) and found[0] == min(found)


def test_equal_values_fill_the_chart_from_zero() -> None:
    assert set(heights(draw([7.0] * 100))) == {32}


@pytest.mark.parametrize("values", [[NAN] * 5, [], [NAN]])
def test_nothing_known_is_empty(values: list[float]) -> None:
    assert set("".join(draw(values))) <= {" "}


def test_gaps_stay_empty_where_there_are_samples_enough() -> None:
    values = [1.0] * 40 + [NAN] * 40 + [2.0] * 40
    found = heights(draw(values, width=60))
    assert set(found[21:39]) == {0} and 0 not in found[:20] and 0 not in found[40:]


@pytest.mark.parametrize("values", [[0.0, 0.0], [-5.0, 5.0], [1e18, 1e18 + 1e3], [5e-324, 1e-300]])
def test_odd_values_draw_something(values: list[float]) -> None:
    assert draw(values) and max(heights(draw(values))) <= 32
