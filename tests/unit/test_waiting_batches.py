"""Batches that wait, and what a call needs besides, are told from growth; growth beneath them is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kerasmemwatch.leaks.verdicts.interval import slope
from kerasmemwatch.leaks.verdicts.judge import judge
from kerasmemwatch.leaks.verdicts.judged_rows import judged_rows, with_full_pipeline
from kerasmemwatch.leaks.verdicts.jumps import without_shifts
from kerasmemwatch.leaks.verdicts.series import Series
from kerasmemwatch.leaks.verdicts.within_epochs import rises_alike
from kerasmemwatch.records.growth import Growth
from kerasmemwatch.units import KIB, MIB


def looked_at(series: Series) -> list[Growth]:
    """What is said after every 20 rows."""
    fields = {name: getattr(series, name) for name in ("steps", "values", "epochs", "calls")}
    return [
        judge(replace(series, **{name: None if all_ is None else all_[:rows] for name, all_ in fields.items()}))
        for rows in range(20, len(series.steps) + 1, 20)
    ]


def in_epochs(values: np.ndarray, per_epoch: int, per_call: int | None = None) -> Series:
    steps = np.arange(len(values))
    calls = None if per_call is None else steps // per_call + 1.0
    return Series(steps + 1, values, epochs=(steps // per_epoch).astype(float), calls=calls)


def waiting(rows: int, seed: int, size: int = 200 * KIB) -> np.ndarray:
    """A third of the rows have one more batch that waits."""
    return 10.0 * MIB + size * (np.random.default_rng(seed).random(rows) < 1 / 3)


def filling(rows: int, seed: int) -> np.ndarray:
    """A deep buffer that fills, by fits and starts, for some 300 steps: most of them leave it as it was."""
    random, held = np.random.default_rng(seed), [0]
    for _ in range(rows - 1):
        change = int(random.choice([-1, 0, 0, 0, 1])) + int(random.random() < 16 / 300)
        held.append(min(16, max(0, held[-1] + change)))
    return 100.0 * MIB + 40.0 * KIB * np.array(held)


# -- what is no growth ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_what_a_second_fit_needs_besides_is_no_growth(seed: int) -> None:
    """A head is trained first, then all: another optimizer has slots, and more batches wait from some epochs on."""
    full = 8.3 * MIB + np.repeat([0.0, 0.0, 50.0, 52.0, 77.0, 128.0], 87) * KIB
    values = full + 60 * KIB * (np.random.default_rng(seed).random(522) < 1 / 3)
    values[86::87] = 8.05 * MIB + np.array([0.0, 12.5, 12.5, 65.0, 83.0, 83.0]) * KIB
    assert not [found for found in looked_at(in_epochs(values, 87, per_call=261)) if found.is_growing]


@pytest.mark.parametrize("seed", range(5))
def test_another_number_of_batches_that_wait_in_each_epoch_is_no_growth(seed: int) -> None:
    levels = np.repeat([0.0, 0.0, 200.0, 245.0, 365.0, 310.0], 200) * KIB
    levels[np.arange(1200) % 200 >= 190] = 0  # where epochs end, none waits
    noise = np.random.default_rng(seed).normal(0, KIB, 1200)
    assert not [found for found in looked_at(in_epochs(40 * MIB + levels + noise, 200)) if found.is_growing]


@pytest.mark.parametrize("seed", range(10))
def test_more_batches_that_wait_in_one_of_two_epochs_are_no_growth(seed: int) -> None:
    """A parallel map whose buffer fills for the whole of each epoch, and further in the newer one."""
    fill = np.concatenate([np.linspace(430, 530, 50), np.linspace(410, 540, 50), np.linspace(530, 690, 38)]) * KIB
    values = 8 * MIB + fill + 60 * KIB * np.random.default_rng(seed).random(138)
    values[[48, 49, 98, 99]] = 8 * MIB
    assert not [found for found in looked_at(in_epochs(values, 50)) if found.is_growing]


@pytest.mark.parametrize(("rises", "expected"), [([5, 11.5, 4.5], False), ([12.8, 12.8, 12.8], True)])
def test_a_few_ends_of_epochs_have_to_rise_by_more(rises: list[float], expected: bool) -> None:
    levels = np.concatenate([[0.0], np.cumsum(rises)]) * KIB
    values = 8 * MIB + 200 * KIB + 20 * KIB * np.random.default_rng(0).random(225)
    values += np.append(levels, levels[-1]).repeat(50)[:225]
    values[49::50] = 8 * MIB + levels
    assert judge(in_epochs(values, 50)).is_growing is expected


@pytest.mark.parametrize(
    ("rises", "scatter", "expected"),
    [([21.5, 10.5, 18.75], 70, False), ([17, 17, 17], 70, True), ([21.5, 10.5, 18.75], 10, True)],
)
def test_four_ends_of_epochs_rise_by_chance(rises: list[float], scatter: int, expected: bool) -> None:
    """Batches that wait at the ends, too: four ends tell if they rise alike, or by more than the rows scatter."""
    levels = np.concatenate([[0.0], np.cumsum(rises)]) * KIB
    values = 8 * MIB + 200 * KIB + scatter * KIB * np.random.default_rng(0).random(340)
    values += np.append(levels, levels[-1]).repeat(78)[:340]
    values[77:312:78] = 8 * MIB + levels
    assert judge(in_epochs(values, 78)).is_growing is expected


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("ends", "expected"), [([13, 45, 19, 63, 121], False), ([13, 30, 47, 64, 81], True)])
def test_rows_that_rise_are_growth_if_the_ends_of_epochs_surely_rise(
    ends: list[float], expected: bool, seed: int
) -> None:
    """The medians of rows rise where more batches wait from epoch to epoch; fewer wait at the ends."""
    rows = np.arange(445)
    noise = np.random.default_rng(seed).normal(0, 12, 445)
    values = 8 * MIB + KIB * (60 + 0.44 * np.maximum(0, rows - 220) + noise - 40 * (rows % 21 == 20))
    values[41::42] = 8 * MIB + KIB * np.array([30.0, 10, 30, 10, 25, *ends])
    assert judge(in_epochs(values, 42, per_call=84)).is_growing is expected


@pytest.mark.parametrize("seed", [163, 188, 211, 222])
def test_rss_whose_floor_rises_faster_than_its_rate_is_no_growth(seed: int) -> None:
    """RSS rises by chance, ever less: its floor by more than the least rate, but its slope is below that."""
    random, rows = np.random.default_rng(seed), np.arange(477)
    values = 500.0 * MIB + 8 * MIB * (rows >= 53)
    for begin in np.sort(random.integers(55, 477, 40)):
        values[begin:] += random.exponential(0.28) * MIB / (1 + (begin - 55) / 250)
    assert not judge(replace(in_epochs(values, 53), kind="host")).is_growing


def test_a_deep_buffer_that_fills_without_epochs_is_hardly_ever_growth() -> None:
    found = [looked_at(Series(np.arange(400) + 1, filling(400, seed))) for seed in range(50)]
    assert sum(any(one.is_growing for one in looks) for looks in found) <= 3
    # What may be one asks for a cause.
    told = [one for looks in found for one in looks if one.since_step is not None and not one.is_growing]
    assert told and {one.verdict for one in told} == {"too short to tell"}
    assert all("in jumps that training without a leak may have, too" in one.explanation for one in told)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [([0, 42.25, 20, 26.5, 59.75, 44.75, 56, 85, 51.5], False), ([0, 8, 14, 20, 30, 34, 41, 50, 55], True)],
    ids=["of a clean run", "a leak"],
)
def test_most_of_the_rate_at_many_ends_has_to_be_certain(ends: list[float], expected: bool) -> None:
    """More or fewer batches wait at the end of each epoch, and by chance ever more do for nine epochs."""
    values = 8 * MIB + KIB * (100 + 40 * np.random.default_rng(0).random(198))
    values[21::22] = 8 * MIB + KIB * np.array(ends)
    assert judge(in_epochs(values, 22)).is_growing is expected


@pytest.mark.parametrize("kind", ["slow", "fast"])
def test_slow_growth_of_a_device_has_to_last(kind: str) -> None:
    """Batches that wait look like slow growth for some rows; what is fast is told at once."""
    rows = np.arange(300)
    leak = in_epochs(10 * MIB + (600.0 if kind == "slow" else 40.0 * KIB) * rows, 50)
    first = next(num_rows for num_rows in range(20, 300) if judge(leak.until(num_rows)).is_growing)
    fallen = replace(leak.until(first + 60), values=np.append(leak.values[:first], np.full(60, leak.values[0])))
    looks = [judge(fallen.until(num_rows)) for num_rows in range(first - 20, first + 60)]
    assert any(look.is_growing for look in looks)
    risen = np.flatnonzero([look.since_step is not None for look in looks])
    assert (looks[risen[0]].verdict == "too short to tell") is (kind == "slow")
    assert ("for too few steps to tell it from batches that wait" in looks[risen[0]].explanation) is (kind == "slow")


# -- what is growth ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_growth_of_each_step_is_found_without_epochs(seed: int) -> None:
    rows = np.arange(400)
    found = looked_at(Series(rows + 1, waiting(400, seed, 40 * KIB) + 4.0 * KIB * rows))
    assert next(one for one in found if one.is_growing).num_samples < 240


@pytest.mark.parametrize("seed", range(10))
def test_a_kilobyte_a_step_is_found_beneath_batches_that_wait_and_are_drained(seed: int) -> None:
    rows = np.arange(273)
    is_drained = rows % 50 >= 42
    values = waiting(273, seed, MIB) - 600 * KIB * is_drained
    clean, leaking = in_epochs(values, 50), in_epochs(values + KIB * rows, 50)
    assert not [found for found in looked_at(clean) if found.is_growing]
    newest = looked_at(leaking)[-1]
    assert newest.is_growing and newest.interval is not None
    assert newest.bytes_per_step == pytest.approx(KIB, rel=0.1)
    assert newest.interval[1] - newest.interval[0] < KIB


def test_a_leak_across_two_fits_is_found() -> None:
    rows = np.arange(400)
    values = waiting(400, 0, 60 * KIB) + 2 * MIB * (rows >= 200) + 2.0 * KIB * rows
    found = judge(in_epochs(values, 50, per_call=200))
    assert found.is_growing and found.bytes_per_step == pytest.approx(2 * KIB, rel=0.1)


# -- the parts -----------------------------------------------------------------------------------------------------


def test_shifts_between_few_calls_are_taken_away_and_falls_stay() -> None:
    levels = np.repeat([5.0, 9.0, 2.0], 50)
    calls = np.repeat([0, 1, 2], 50)
    assert list(np.unique(without_shifts(levels, calls))) == [-2.0, 5.0]
    # Of many calls, or of short ones, it is looked at whether each adds something.
    many, short = np.repeat(np.arange(5), 30), np.repeat([0, 1, 2], [10, 130, 10])
    assert without_shifts(levels, many) is levels and np.array_equal(without_shifts(levels, short), levels)
    assert without_shifts(levels, None) is levels


def test_the_pipeline_is_full_between_the_ends_of_epochs() -> None:
    rows = judged_rows(in_epochs(np.zeros(250), 100))
    full = with_full_pipeline(rows, np.arange(90, 250))
    assert list(full) == [*range(105, 175), *range(205, 250)]
    first = judged_rows(in_epochs(np.zeros(90), 100))
    assert list(with_full_pipeline(first, np.arange(90))) == list(range(90))


@pytest.mark.parametrize("seed", range(5))
def test_the_slope_is_that_of_the_floor_where_the_floor_is_far_stiller(seed: int) -> None:
    x = np.arange(200.0)
    rate, low, high = slope(x, 3 * x + waiting(200, seed, MIB))
    assert low <= 3 <= high and high - low < 5 and rate == pytest.approx(3, abs=2)


def test_a_few_ends_that_rise_alike_tell_if_the_rows_between_rise_so_too() -> None:
    rows, at = np.arange(300), np.arange(70, 300)

    def rises(values: np.ndarray, least_rate: float = 512.0) -> bool:
        return rises_alike(judged_rows(in_epochs(values, 60)), at, least_rate) is not None

    is_end = rows % 60 == 59
    values = np.where(is_end, 9.0 * MIB, waiting(300, 0, 100 * KIB)) + KIB * rows
    assert rises(values) and not rises(values, 2.0 * KIB)
    # One end in three that rises otherwise, or rows that don't rise.
    assert not rises(values + 30 * KIB * (rows == 179))
    assert not rises(np.where(is_end, values, waiting(300, 0, 100 * KIB)))
    # Two ends are one rise.
    assert rises_alike(judged_rows(in_epochs(values, 60)), at[:120], 512.0) is None
    drained = values - 4 * MIB * (rows % 60 > 50) * ~is_end
    found = rises_alike(judged_rows(in_epochs(drained, 60)), at, 512.0)
    assert found is not None and len(found) < len(at) and rises(drained)


@pytest.mark.parametrize("per_epoch", [1, 2, 3])
def test_epochs_of_few_rows(per_epoch: int) -> None:
    rows = np.arange(300)
    is_end = rows % per_epoch == per_epoch - 1
    noise = np.where(is_end, 0.0, np.random.default_rng(0).normal(0, 50 * MIB, 300))
    series = in_epochs(500.0 * MIB + KIB * rows + noise, per_epoch)
    # Of epochs of three rows, one of those with a full pipeline is noisy.
    assert (rises_alike(judged_rows(series), np.arange(100, 300), 512.0) is None) is (per_epoch == 3)
    assert rises_alike(judged_rows(series), np.arange(100, 130), 512.0) is None
