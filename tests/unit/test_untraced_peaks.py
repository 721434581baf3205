"""Which step or gap goes above all that was traced, and is to be traced the next time one of its kind comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.records.samples import Column
from kerasmemwatch.tracing.recent_rows import Windows, recent_peaks, windows
from kerasmemwatch.tracing.untraced_peaks import Chance, UntracedPeaks

MIB = 1 << 20
NAN = float("nan")
LAYOUT = (
    Column("step", 1),
    Column("train_step", 1),
    Column("epoch", 1),
    Column("stage", 1),
    Column("device_in_use_bytes", 2),
    Column("device_peak_bytes", 2),
    Column("device_between_peak_bytes", 2),
)
# step, stage, epoch, peak within, peak before; in MiB
Row = tuple[int, int, float, float, float]
TRAINED: list[Row] = [(1, 0, 0, 500, 10), (2, 0, 0, 100, 50), (3, 0, 0, 100, 50)]


def seen(rows: Sequence[Row], traced: set[float], **known: set[int]) -> UntracedPeaks:
    found = UntracedPeaks()
    found.see(made(rows), traced, **{"firsts": {0}, "fits": {0}, **known})
    return found


def made(rows: Sequence[Row]) -> Windows:
    step, stage, epoch, within, between = np.array(rows, float).T
    return Windows(step.astype(int), stage.astype(int), epoch, within * MIB, between * MIB)


def wanted(found: UntracedPeaks) -> dict[tuple[str, str], str]:
    chances = [Chance(begins, stage) for begins in ("step", "batch", "loop", "begin") for stage in ("train", "test")]
    return {tuple(chance): found.reason(chance) for chance in chances if found.reason(chance)}


def test_what_is_as_high_as_what_was_traced_is_not_wanted() -> None:
    assert wanted(seen(TRAINED, {2})) == {}
    assert wanted(seen([*TRAINED, (4, 0, 0, 109, 109)], {2})) == {}


def test_the_first_step_of_a_stage_never_comes_again() -> None:
    assert wanted(seen(TRAINED, {2}, firsts=set())) == {
        ("step", "train"): "step 1 had peaked at 500.0 MiB, above the traced peak of 100.0 MiB"
    }
    assert wanted(seen(TRAINED, {2})) == {}


@pytest.mark.parametrize(
    ("row", "chance", "words"),
    [
        ((4, 0, 0, 112, 50), ("step", "train"), "step 4 had"),
        ((4, 0, 0, 100, 112), ("batch", "train"), "the gap before step 4 had"),
        ((4, 0, 1, 100, 112), ("loop", "train"), "the gap before step 4 had"),
        ((4, 1, 0, 100, 112), ("loop", "train"), "the gap before step 4 had"),
        ((4, 1, 0, 112, 50), ("step", "test"), "step 4 had"),
    ],
)
def test_a_step_or_a_gap_that_is_higher_is_wanted(row: Row, chance: tuple[str, str], words: str) -> None:
    [(found, reason)] = wanted(seen([*TRAINED, row], {2})).items()
    assert found == chance and reason.startswith(words)


def test_a_gap_after_a_validation_is_the_validations() -> None:
    rows = [*TRAINED, (4, 1, 0, 90, 50), (5, 1, 0, 90, 50), (6, 0, 1, 100, 150)]
    assert list(wanted(seen(rows, {2}))) == [("loop", "test")]


def test_a_gap_before_a_fit_is_a_kind_of_its_own() -> None:
    high = [(1, 0, 0, 100, 300), *TRAINED[1:]]
    assert list(wanted(seen(high, {2}))) == [("begin", "train")]
    again = [*TRAINED, (4, 0, 0, 90, 300)]
    assert list(wanted(seen(again, {2}, fits={0, 3}))) == [("begin", "train")]


def test_outside_of_training_there_are_no_epochs() -> None:
    rows = [(1, 1, NAN, 100, 50), (2, 1, NAN, 100, 50), (3, 1, NAN, 100, 200)]
    assert list(wanted(seen(rows, {2}))) == [("batch", "test")]


def test_only_the_highest_of_all_is_wanted() -> None:
    rows = [*TRAINED, (4, 0, 0, 150, 50), (5, 0, 1, 150, 200)]
    found = seen(rows, {2})
    assert list(wanted(found)) == [("loop", "train")]
    found.take(Chance("loop", "train"))
    assert list(wanted(found)) == [("step", "train")]


def test_a_trace_that_is_as_high_settles_it() -> None:
    found = seen([*TRAINED, (4, 0, 0, 100, 200)], {2})
    found.see(made([(4, 0, 0, 100, 200), (5, 0, 0, 100, 195)]), {2, 4.5}, set(), set())
    assert wanted(found) == {}
    assert found.traced_bytes == 195 * MIB


def test_what_was_seen_is_not_wanted_again() -> None:
    rows = [*TRAINED, (4, 0, 0, 150, 50)]
    found = seen(rows, {2})
    found.take(Chance("step", "train"))
    found.see(made(rows), {2}, {0}, {0})
    assert wanted(found) == {}
    found.see(made([(5, 0, 0, 150, 50)]), {2}, {0}, {0})
    assert list(wanted(found)) == [("step", "train")]


def test_nothing_is_wanted_before_something_was_traced_and_nothing_is_forgotten() -> None:
    found = seen([(1, 0, 0, 90, 10), (2, 0, 0, 100, 300)], set())
    assert wanted(found) == {}
    found.see(made([(3, 0, 0, 100, 50)]), {3}, set(), set())
    assert list(wanted(found)) == [("batch", "train")]


def test_what_is_unknown_is_not_wanted() -> None:
    assert wanted(seen([*TRAINED, (4, 0, 0, NAN, NAN)], {2})) == {}
    unknown = [(1, 0, 0, NAN, NAN), (2, 0, 0, NAN, NAN)]
    assert wanted(seen(unknown, {2})) == {}


def test_executions_of_several_steps() -> None:
    rows = [(4, 0, 0, 500, 10), (8, 0, 0, 100, 50), (12, 0, 0, 200, 50)]
    assert list(wanted(seen(rows, {8}))) == [("step", "train")]
    assert wanted(seen(rows, {8, 12})) == {}


def test_a_small_difference_of_a_small_model_is_rounding() -> None:
    rows = [(1, 0, 0, 0.03, 0), (2, 0, 0, 0.03, 0), (3, 0, 0, 0.06, 0.05)]
    assert wanted(seen(rows, {2})) == {}


# -- the rows they are made of -------------------------------------------------------------------------------------


def test_of_several_devices_the_highest_counts() -> None:
    rows = np.array([[7, 7, 1, 0, 10, 20, 50, 30, 5, NAN], [8, 8, 1, 1, 10, 20, NAN, 90, NAN, NAN]])
    found = windows(LAYOUT, rows)
    assert found is not None
    assert (found.step.tolist(), found.stage.tolist(), found.epoch.tolist()) == ([7, 8], [0, 1], [1, 1])
    assert found.within.tolist() == [50, 90]
    assert found.between[0] == 5 and np.isnan(found.between[1])
    assert recent_peaks(LAYOUT, rows) == [(50, 40), (90, 70)]


@pytest.mark.parametrize("layout", [(), LAYOUT[:4], (*LAYOUT[:4], Column("device_peak_bytes", 0))])
def test_without_a_device_there_is_nothing(layout: Any) -> None:
    rows = np.zeros((2, sum(column.size for column in layout)))
    assert windows(layout, rows) is None
    assert recent_peaks(layout, rows) == []
