"""Whether a series of memory grows, on series made up for it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmemwatch.analysis.findings import Findings, make_findings
from kerasmemwatch.leaks.verdicts.collector import room_is_used_again
from kerasmemwatch.leaks.verdicts.find import find_growth
from kerasmemwatch.leaks.verdicts.floor import is_rising
from kerasmemwatch.leaks.verdicts.judge import judge
from kerasmemwatch.leaks.verdicts.judged_rows import judged_rows
from kerasmemwatch.leaks.verdicts.series import Series
from kerasmemwatch.leaks.verdicts.sure_rise import adds_each_time, rises_surely
from kerasmemwatch.records.growth import UNITS, VERDICTS, Growth, OwnRise
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.units import KIB, MIB, format_bytes

STEPS = np.arange(500)


def series(values: Any, *, per_epoch: int | None = 50, **changed: Any) -> Series:
    """Rows of training, an epoch every so many of them."""
    steps = np.arange(1, len(values) + 1)
    epochs = None if per_epoch is None else (steps - 1.0) // per_epoch
    return Series(steps, np.asarray(values, float), epochs=epochs, **changed)


def jitter(num_rows: int = 500, seed: int = 0) -> np.ndarray:
    """Bytes in use of a steady training: two batches are waiting, or three."""
    return 10.0 * MIB + 200.0 * KIB * np.random.default_rng(seed).integers(0, 2, num_rows)


def fits(values: Any, steps: int = 2, **changed: Any) -> Series:
    """Rows of one fit after the other, each of one epoch and so many steps."""
    calls = np.arange(len(values)) // steps + 1.0
    stages = np.full(len(values), "train")
    return Series(
        np.arange(1, len(values) + 1),
        np.asarray(values, float),
        epochs=np.zeros(len(values)),
        **{"calls": calls, "stages": stages, **changed},
    )


# -- growing ---------------------------------------------------------------------------------------------------


def test_a_leak_grows_by_what_it_leaks() -> None:
    found = judge(series(jitter() + 4 * KIB * STEPS, limit=20 * MIB))
    assert found.verdict == "growing" and found.unit == "step"
    assert found.rate == found.bytes_per_step == pytest.approx(4 * KIB, rel=0.05) and found.interval is not None
    assert found.interval[0] < 4 * KIB < found.interval[1]
    assert found.met_at is not None and abs(found.met_at - 2560) < 150
    assert found.explanation.startswith("Growing: memory grows by 4.0 KiB a step since step ")
    assert "it meets its limit of 20.0 MiB at step 2," in found.explanation


@pytest.mark.parametrize("seed", range(10))
def test_a_slow_leak_is_found_in_noise(seed: int) -> None:
    assert judge(series(jitter(250, seed) + KIB * STEPS[:250])).verdict == "growing"


def test_a_leak_is_found_after_the_level_fell() -> None:
    found = judge(series(jitter(800) + 4.0 * KIB * np.arange(800) + 50 * MIB * (np.arange(800) < 500)))
    assert found.verdict == "growing" and found.since_step is not None and found.since_step > 500


def test_a_small_rate_shows_at_the_ends_of_epochs() -> None:
    wild = 10.0 * MIB + 2 * MIB * np.random.default_rng(0).random(500)
    drained = np.where(STEPS % 50 == 49, 10 * MIB, wild) + 256.0 * STEPS
    found = judge(series(drained))
    assert found.verdict == "growing" and found.bytes_per_step == pytest.approx(256, rel=0.01)
    assert judge(replace(series(drained), epochs=None)).verdict != "growing"


def test_the_limit_is_met_in_steps_of_every_stage() -> None:
    stages = np.tile(["train", "test"], 500)
    values = np.where(stages == "train", 4.0 * KIB * (np.arange(1000) // 2), np.nan)
    found = judge(
        Series(np.arange(1, 1001), values, stages=stages, train_steps=np.arange(1000) // 2 + 1, limit=4 * MIB)
    )
    assert found.bytes_per_step == pytest.approx(4 * KIB) and found.met_at is not None
    assert abs(found.met_at - 2 * 1024) <= 2


def test_a_row_may_stand_for_many_steps() -> None:
    steps = np.arange(1, 401) * 10
    found = judge(Series(steps, 4096.0 * steps, epochs=np.arange(400) // 50 + 0.0))
    assert found.verdict == "growing" and found.rate == pytest.approx(4096)


def test_at_the_limit_already() -> None:
    found = judge(series(4.0 * KIB * STEPS, limit=MIB))
    assert found.met_at == 500 and found.explanation.endswith("it is at its limit of 1.0 MiB")


def test_unknown_and_unended_rows_are_left_out() -> None:
    values = 4.0 * KIB * STEPS
    values[::7] = np.nan
    values[5::7] = 1e12
    ended = np.arange(500) % 7 != 5
    found = judge(series(values, ended=ended))
    assert found.verdict == "growing" and found.rate == pytest.approx(4096)


# -- the unit that explains it -----------------------------------------------------------------------------------


def test_what_each_fit_leaves_is_told_by_the_fit() -> None:
    found = judge(fits(862_000 * (np.arange(120) // 2)))
    assert (found.verdict, found.unit) == ("growing", "fit")
    assert found.rate == pytest.approx(862_000) and found.bytes_per_step == pytest.approx(431_000)
    assert found.low == pytest.approx(431_000) and "841.8 KiB a fit" in found.explanation


def test_a_few_fits_are_enough_if_each_leaves_much() -> None:
    found = judge(fits(20 * MIB * (np.arange(10) // 2), limit=200 * MIB))
    assert (found.verdict, found.unit) == ("growing", "fit")
    assert judge(fits(20 * MIB * (np.arange(6) // 2), limit=200 * MIB)).verdict == "too short to tell"


def test_noise_does_not_hide_that_it_is_the_fit() -> None:
    walk = 50 * KIB * np.cumsum(np.random.default_rng(0).standard_normal(200))
    found = judge(fits(np.repeat(walk + MIB * np.arange(200), 4), steps=4))
    assert found.unit == "fit" and found.rate == pytest.approx(MIB, rel=0.1)


def test_a_model_for_each_fit_says_more() -> None:
    models = np.arange(120) // 2 + 1.0
    assert judge(fits(862_000 * (np.arange(120) // 2), models=models)).unit == "model"


def test_an_epoch_that_leaves_something() -> None:
    found = judge(series(jitter() + 900 * KIB * (STEPS // 50)))
    assert found.unit == "epoch" and found.rate == pytest.approx(900 * KIB, rel=0.05)
    assert "KiB an epoch" in found.explanation


def test_steps_within_fits_that_leak_are_told_by_the_step() -> None:
    found = judge(fits(jitter(400) + 4 * KIB * np.arange(400), steps=40))
    assert found.unit == "step" and found.rate == pytest.approx(4 * KIB, rel=0.1)


@pytest.mark.parametrize("evaluates", [1, 2])
def test_of_calls_that_take_turns_it_is_the_one_that_leaves_it(evaluates: int) -> None:
    kinds = np.tile(["train", *["test"] * evaluates], 60)
    calls = np.repeat(np.arange(len(kinds)) + 1.0, 2)
    stages = np.repeat(kinds, 2)
    values = np.repeat(500.0 * KIB * np.cumsum(kinds == "test"), 2)
    trained = np.cumsum(stages == "train")
    epochs = np.where(stages == "train", 0.0, np.nan)
    steps = np.arange(1, len(values) + 1)
    found = judge(Series(steps, values, stages=stages, train_steps=trained, epochs=epochs, calls=calls))
    assert found.unit == "evaluate" and found.rate == pytest.approx(500 * KIB, rel=0.01)
    assert found.bytes_per_step == pytest.approx(evaluates * 250 * KIB, rel=0.01)


def test_a_predict_keeps_its_results_until_it_ends() -> None:
    rows = np.arange(600)
    one = Series(rows + 1, 10 * MIB + 7.0 * KIB * rows, stages=np.full(600, "predict"), train_steps=0 * rows)
    for calls in (None, np.ones(600)):
        found = judge(replace(one, calls=calls))
        assert found.verdict == "too short to tell" and "keeps its results until it ends" in found.explanation
    assert judge(replace(one, calls=np.zeros(600))).verdict == "growing"  # a loop of the user's own
    for count in range(20, 601, 20):
        some, stages = rows[:count], np.full(count, "predict")
        many = Series(some, 10 * MIB + 7.0 * KIB * (some % 100), stages=stages, calls=some // 100 + 1.0)
        assert judge(many).verdict != "growing", count


def test_without_training_steps_of_any_stage_count() -> None:
    rows = np.arange(300)
    found = judge(
        Series(rows + 1, 100.0 * KIB * rows, stages=np.full(300, "predict"), train_steps=0 * rows, calls=rows + 1.0)
    )
    assert (found.verdict, found.unit) == ("growing", "predict") and found.rate == pytest.approx(100 * KIB)


# -- steady, settling, too short ---------------------------------------------------------------------------------


def test_steady_training_is_steady() -> None:
    found = judge(series(jitter()))
    assert found.verdict == "steady" and found.since_step is None and found.met_at is None
    moved = "its floor moved by less than 64 B a step over 450 steps"
    assert found.explanation == f"Steady: memory doesn't grow ({moved})"


@pytest.mark.parametrize(
    "values",
    [
        10 * MIB + np.minimum(STEPS, 50) * 300 * KIB,  # a cache that fills in the first epoch
        10 * MIB + 20 * MIB * (STEPS > 50),  # one of validation
        10 * MIB + 20 * MIB * (STEPS > 300),  # a second model
        40 * MIB - 30 * MIB * (1 - np.exp(-STEPS / 100)),
        np.zeros(500),
        10 * MIB + 200 * KIB * (STEPS % 2),  # prefetch alternates
        10 * MIB + 16 * KIB * (STEPS % 50),  # a buffer fills in each epoch
    ],
)
@pytest.mark.parametrize("kind", ["device", "host"])
def test_what_does_not_grow_is_steady(values: Any, kind: Any) -> None:
    for num_rows in range(20, 501, 20):
        assert judge(series(values[:num_rows], kind=kind)).verdict != "growing", num_rows
    assert judge(series(values, kind=kind)).verdict == "steady"


def test_a_deep_buffer_that_fills_without_epochs_is_no_growth() -> None:
    values = jitter() + 800 * KIB * np.clip((STEPS - 250) / 200, 0, 1)
    for num_rows in range(200, 501, 20):
        assert judge(series(values[:num_rows], per_epoch=None)).verdict != "growing", num_rows


@pytest.mark.parametrize("seed", range(10))
def test_what_may_as_well_not_grow_is_not_called_growing(seed: int) -> None:
    walk = np.cumsum(np.random.default_rng(seed).standard_normal(500))
    found = judge(series(10 * MIB + 60 * KIB * walk))
    assert found.verdict != "growing" or (found.interval is not None and found.interval[0] > 0)


def test_one_jump_is_told_with_its_step() -> None:
    found = judge(series(jitter() + 20 * MIB * (STEPS >= 300)))
    assert "it rose once, by 20." in found.explanation and "at step 301" in found.explanation
    assert judge(series(jitter() + 20 * MIB * (STEPS >= 480))).verdict in ("steady", "too short to tell")


def test_a_late_jump_is_told_with_what_is_too_short() -> None:
    found = judge(series(10 * MIB + MIB * (STEPS[:140] >= 107)))
    assert found.verdict == "too short to tell"
    assert "rose by 1.0 MiB at step" in found.explanation and "33 steps since then are too few" in found.explanation


def test_what_rises_ever_more_slowly_settles() -> None:
    found = judge(series(10 * MIB + 30 * MIB * (1 - np.exp(-STEPS / 100))))
    assert found.verdict == "settling" and "hardly in the last quarter" in found.explanation
    later = np.arange(1500)
    assert judge(series(10 * MIB + 30 * MIB * (1 - np.exp(-later / 100)))).verdict in ("settling", "steady")


@pytest.mark.parametrize(("num_rows", "per_epoch"), [(13, 13), (400, 400), (30, 30), (199, None)])
def test_nothing_grows_before_an_epoch_has_ended(num_rows: int, per_epoch: int | None) -> None:
    values = 10.0 * MIB + 18.8 * MIB * np.arange(num_rows)
    for kind in ("device", "host"):
        found = judge(series(values, per_epoch=per_epoch, kind=kind))
        assert found.verdict == "too short to tell"
        assert found.since_step is None and found.met_at is None


def test_in_the_first_epoch_it_says_what_fills_then() -> None:
    found = judge(series(300.0 * KIB * STEPS, per_epoch=1000))
    assert "of the first epoch, in which caches and shuffle buffers fill" in found.explanation
    assert judge(series(jitter(), per_epoch=1000)).verdict == "steady"


def test_a_cache_fills_in_the_first_epoch() -> None:
    values = 10 * MIB + 100.0 * KIB * STEPS
    found = judge(series(values, per_epoch=1000, caches=(100 * MIB,)))
    assert found.verdict == "filling" and "cache of 100.0 MiB fills" in found.explanation
    assert judge(series(values, per_epoch=1000, caches=(None,))).verdict == "filling"
    assert judge(series(values, per_epoch=1000, caches=(10 * MIB,))).verdict == "too short to tell"
    assert judge(series(values, per_epoch=100, caches=(100 * MIB,))).verdict == "growing"
    assert judge(series(jitter(), per_epoch=1000, caches=(100 * MIB,))).verdict == "steady"


def test_without_rows_it_is_too_short() -> None:
    assert judge(series([])).verdict == "too short to tell"
    assert judge(series([np.nan] * 300)).num_samples == 0
    assert judge(series([1.0])).rate is None


def test_short_epochs_are_judged_by_their_ends() -> None:
    found = judge(series(np.full(20, 5.0 * MIB), per_epoch=4))
    assert found.verdict == "steady" and "over 5 epochs" in found.explanation
    assert judge(series(5.0 * MIB + 100 * KIB * np.arange(20), per_epoch=4)).verdict == "growing"


@pytest.mark.parametrize("per_epoch", [40, None])
@pytest.mark.parametrize(("rising", "still"), [(240, 40), (240, 120), (400, 100), (400, 200)])
def test_what_is_full_does_not_grow(rising: int, still: int, per_epoch: int | None) -> None:
    rows = np.arange(rising + still)
    found = judge(series(10 * MIB + 80 * KIB * np.minimum(rows, rising), per_epoch=per_epoch))
    assert found.verdict == "settling" and found.met_at is None
    told = re.search(r"but hardly in the last (\d+) of them", found.explanation)
    assert told is not None and still <= int(told[1]) <= still + rising / 16 + 1
    assert judge(series(10 * MIB + 80 * KIB * rows, per_epoch=per_epoch)).is_growing


@pytest.mark.parametrize(
    ("jumps", "how"), [((10, 10), "not steadily enough to tell"), ((10, 15), "most of it near the end")]
)
def test_what_rises_in_two_jumps_is_not_told_from_a_leak(jumps: tuple[int, int], how: str) -> None:
    rows = np.arange(360)
    values = 500 * MIB + MIB * (jumps[0] * (rows >= 150) + jumps[1] * (rows >= 275))
    found = judge(series(values, per_epoch=40, kind="host"))
    total = format_bytes(MIB * sum(jumps))
    assert found.explanation == f"Too short to tell: memory rose by {total} over 320 steps, {how}"


@pytest.mark.parametrize("every", [10, 30, 50])
def test_a_leak_that_comes_every_few_steps_is_not_full_between_them(every: int) -> None:
    said = [judge(series(10 * MIB + MIB * (np.arange(num) // every))).verdict for num in range(400, 800, 10)]
    assert "settling" not in said and "growing" in said


# -- the collector -----------------------------------------------------------------------------------------------


def test_garbage_that_collections_give_back_waits_for_them() -> None:
    rows = np.arange(1000)
    found = judge(series(10 * MIB + 4 * KIB * (rows % 300), collections=rows // 300 + 5.0))
    assert found.verdict == "waits for the collector" and found.rate == pytest.approx(4 * KIB)
    assert found.met_at is None and "until Python frees its garbage" in found.explanation


@pytest.mark.parametrize("kind", ["device", "host"])
def test_jitter_beside_collections_is_no_garbage(kind: Any) -> None:
    for seed in range(5):
        values = 50 * jitter(1000, seed)
        assert judge(series(values, kind=kind, collections=np.arange(1000) // 150 + 5.0)).verdict == "steady"


def test_a_leak_that_collections_do_not_give_back_grows() -> None:
    rows = np.arange(1000)
    assert judge(series(10 * MIB + 4 * KIB * rows, collections=rows // 300 + 5.0)).verdict == "growing"
    half = 4 * KIB * rows + 4 * KIB * (rows % 300)  # as much again is garbage
    assert judge(series(10 * MIB + half, collections=rows // 300 + 5.0)).verdict == "growing"


@pytest.mark.parametrize("seed", range(3))
def test_room_that_a_collection_makes_is_used_again(seed: int) -> None:
    rows = np.arange(460)
    grown = 40 * KIB * np.minimum(rows, 400) - MIB * (rows >= 400) * (rows < 430)
    found = judge(series(rss(460, seed) + grown, kind="host", collections=rows // 400 + 5.0))
    assert found.verdict == "waits for the collector"
    still = judge(series(rss(460, seed) + 40 * KIB * rows, kind="host", collections=rows // 400 + 5.0))
    assert still.verdict == "growing"


def test_a_device_that_stays_as_high_after_a_collection_holds_no_garbage() -> None:
    rows = np.arange(360)
    values = 10 * MIB + 80 * KIB * np.minimum(rows, 240)
    assert judge(series(values, collections=rows // 250 + 5.0)).verdict == "settling"
    fell = 10 * MIB + 80 * KIB * np.where(rows < 300, rows, rows - 240)
    assert judge(series(fell, collections=rows // 300 + 5.0)).verdict == "waits for the collector"


@pytest.mark.parametrize(("every", "expected"), [(4, False), (40, True)])
def test_frequent_collections_leave_too_little_garbage_to_explain_growth(every: int, expected: bool) -> None:
    """A jump that most of a rise came with, and rows of which most stand still."""
    rows = np.arange(160)
    series_of_it = series(500 * MIB + 15 * MIB * (rows >= 30), kind="host", collections=rows // every + 5.0)
    growth = Growth("host_rss_bytes", "growing", 150 * KIB, "step", None, None, None, None, 150 * KIB, "", 160)
    assert room_is_used_again(growth, series_of_it, judged_rows(series_of_it), 20) == expected


def test_little_by_the_call_may_be_garbage_until_a_collection_has_run() -> None:
    values, none = 300 * MIB + 100 * KIB * (np.arange(1000) // 5), np.zeros(1000)
    found = judge(fits(values, steps=5, kind="host", collections=none))
    assert found.verdict == "waits for the collector" and found.unit == "fit"
    assert "it may be garbage that Python has not freed yet: gc.collect() would tell" in found.explanation
    assert judge(fits(values, steps=5, kind="host", collections=np.arange(1000) // 100)).verdict == "growing"
    assert judge(fits(values, steps=5, kind="host")).verdict == "growing"
    much = judge(fits(10 * values, steps=5, kind="host", collections=none))
    assert much.verdict == "growing" and "some of it may be garbage that Python has not freed yet" in much.explanation


def test_little_by_the_step_of_short_calls_may_be_garbage_too() -> None:
    values = 10 * MIB + 400.0 * np.arange(600)
    found = judge(fits(values, steps=2, collections=np.zeros(600)))
    assert found.verdict == "waits for the collector"
    assert judge(fits(values, steps=100, collections=np.zeros(600))).verdict == "growing"
    assert judge(fits(10 * values, steps=2, collections=np.zeros(600))).verdict == "growing"


@pytest.mark.parametrize("seed", range(10))
def test_what_may_as_well_not_grow_in_its_unit_is_not_called_growing(seed: int) -> None:
    """Fits of two rows, whose buffers hold a batch more or less."""
    found = judge(fits(jitter(160, seed) + 400.0 * np.arange(160), steps=2))
    assert found.verdict != "growing" or (found.interval is not None and found.interval[0] > 0)


# -- what noise hides --------------------------------------------------------------------------------------------


def drained(num_rows: int, seed: int, size: int = 300 * KIB) -> np.ndarray:
    """Bytes in use with up to three batches waiting, for a while each."""
    waiting = np.cumsum(np.random.default_rng(seed).integers(-1, 2, num_rows))
    return 10.0 * MIB + size * (np.abs(waiting) % 4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("per_epoch", [50, None])
def test_what_each_step_keeps_is_found_in_large_noise(seed: int, per_epoch: int | None) -> None:
    rows = np.arange(500)
    assert judge(series(drained(500, seed) + 8 * KIB * rows, per_epoch=per_epoch)).verdict == "growing"
    for num_rows in range(20, 501, 20):
        assert judge(series(drained(num_rows, seed), per_epoch=per_epoch)).verdict != "growing", num_rows


def test_what_each_step_keeps_is_told_from_what_is_given_back() -> None:
    rows = np.arange(400.0)
    still, sawtooth = 10.0 * MIB + 4 * KIB * rows, 10.0 * MIB + 4 * KIB * (rows % 40)
    assert adds_each_time(rows, still, 1024) and not adds_each_time(rows, sawtooth, 1024)
    assert not adds_each_time(rows, still, 5000) and not adds_each_time(rows, -still, 1024)
    assert not adds_each_time(rows, np.full(400, 1.0), 0.0)
    assert not adds_each_time(rows, np.where(rows % 2 == 1, 4.0 * KIB, 0.0), 1024)
    assert not adds_each_time(rows, 10.0 * MIB + 4 * KIB * np.maximum(0, rows - 200), 1024)  # it begins late
    for num_rows in range(20, 401, 20):
        assert judge(series(sawtooth[:num_rows])).verdict != "growing", num_rows


@pytest.mark.parametrize("noise", [0.0, 64 * KIB])
@pytest.mark.parametrize("epoch", [20, 50, 64, None])
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("period", [5, 13, 20, 40, 50, 77, 130])
def test_a_sawtooth_of_any_period_is_no_growth(period: int, phase: float, epoch: int | None, noise: float) -> None:
    rows = np.arange(max(400, 3 * period))
    y = 10 * MIB + 4 * KIB * ((rows + int(phase * period)) % period)
    y = y + noise * np.random.default_rng(0).integers(0, 2, len(rows))
    for num_rows in range(max(20, 20 * math.ceil(2.2 * period / 20)), len(rows) + 1, 20):
        epochs = None if epoch is None else (rows[:num_rows] // epoch).astype(float)
        assert judge(Series(rows[:num_rows] + 1, y[:num_rows], epochs=epochs)).verdict != "growing", num_rows


def test_rss_that_may_as_well_grow_is_not_called_steady() -> None:
    rows, noise = np.arange(240), np.random.default_rng(0)
    for scale, verdict in ((0.2, "steady"), (12.0, "too short to tell")):
        y = 500 * MIB + scale * MIB * noise.normal(0, 1, 12).repeat(20)
        found = judge(Series(rows + 1, y, label="host RSS", kind="host", epochs=(rows // 20).astype(float)))
        assert found.verdict == verdict, scale
    assert found.interval is not None and found.interval[0] < 0
    fastest = format_bytes(found.interval[1])
    words = f"host RSS varies too much to tell: it may grow by up to {fastest} a step, or not at all (over 216 steps)"
    assert found.explanation == f"Too short to tell: {words}"


@pytest.mark.parametrize("seed", [18, 97, 106])
def test_a_rate_of_rss_of_which_little_is_certain_is_no_growth(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, noise = np.arange(96), np.random.RandomState(seed)
    fits = rows // 12
    levels = np.cumsum(noise.exponential(8 * MIB, 8) - noise.exponential(3 * MIB, 8))
    rss = Series(rows + 1, 500 * MIB + levels[fits], kind="host", epochs=fits + 0.0, calls=fits + 1.0)
    assert judge(rss).verdict != "growing"
    monkeypatch.setattr("kerasmemwatch.leaks.verdicts.judge._SURE_OF_HOST", 0.0)
    assert judge(rss).verdict == "growing"  # its floor rises


@pytest.mark.parametrize("seed", [6, 37, 59])
def test_what_most_steps_add_alike_is_found_though_the_floor_is_noisy(seed: int) -> None:
    rows, noise = np.arange(250), np.random.RandomState(seed)
    waiting = np.clip(np.cumsum(noise.choice([-1, 0, 0, 0, 0, 1], 250)), 0, 6)
    noisy = Series(rows + 1, 10 * MIB + KIB * rows + 64.0 * KIB * waiting, epochs=rows // 50 + 0.0)
    assert not is_rising(noisy.steps[50:], noisy.values[50:], 100) and judge(noisy).verdict == "growing"


@pytest.mark.parametrize("seed", [7, 10, 12])
def test_a_rate_that_is_known_well_is_found_though_a_few_rows_fall_far(seed: int) -> None:
    rows, noise = np.arange(250), np.random.RandomState(seed)
    values = 10 * MIB + KIB * rows + noise.randint(0, 64, 250) * 256.0 - 128 * KIB * (noise.rand(250) < 0.02)
    falls = Series(rows + 1, values, epochs=rows // 50 + 0.0)
    assert not is_rising(rows[50:] + 1.0, values[50:], 100) and judge(falls).verdict == "growing"


def test_a_narrow_slope_needs_no_still_floor() -> None:
    rows = np.arange(120.0)
    rise = 900.0 * rows + 8 * KIB * np.random.default_rng(0).standard_normal(120)
    assert rises_surely(rows, rise, 768) and not rises_surely(rows, rise, 1000)
    assert not rises_surely(rows, rise + 500 * KIB * (rows > 60), 768)  # a jump
    assert not rises_surely(rows, 120 * KIB * (1 - np.exp(-rows / 30)), 100)  # it settles
    assert not rises_surely(rows, rise + 100 * KIB * np.random.default_rng(1).standard_normal(120), 768)


@pytest.mark.parametrize("seed", [2, 4, 7, 8, 12])
def test_dips_where_epochs_end_do_not_hide_what_most_rows_do(seed: int) -> None:
    noise = np.random.default_rng(seed)
    clean = 10 * MIB + 16.0 * KIB * noise.integers(0, 4, 260) - 240 * KIB * (noise.random(260) < 0.05)
    clean = np.append(clean, clean[-20:])  # slow growth is told once it has lasted
    assert judge(series(clean, per_epoch=65)).verdict != "growing"
    leak = series(clean + KIB * np.arange(280), per_epoch=65)
    assert not is_rising(leak.steps[65:260], leak.values[65:260], 500) and judge(leak).verdict == "growing"


def test_what_the_second_epoch_adds_does_not_hide_growth_at_the_ends() -> None:
    rows = np.arange(48)  # seven steps each
    values = 10.0 * MIB + 2 * MIB * (rows >= 8) + MIB * np.random.default_rng(0).random(48)
    ends = np.where(rows % 8 == 7, 10.0 * MIB + 2 * MIB * (rows >= 8), values)
    steps = 7 * (rows + 1)
    still = Series(steps, ends, epochs=rows // 8 + 0.0)
    assert judge(replace(still, values=ends + 4.0 * KIB * steps)).verdict == "growing"
    assert judge(still).verdict != "growing"
    assert judge(replace(still, values=ends + 4.0 * KIB * steps, kind="host")).verdict != "growing"


# -- RSS ---------------------------------------------------------------------------------------------------------


def rss(num_rows: int, seed: int = 0) -> np.ndarray:
    """What a process holds: it only rises, ever more slowly."""
    steps = np.arange(num_rows)
    pages = np.random.default_rng(seed).exponential(1, num_rows) * (300 * np.exp(-steps / 40) + 1)
    return 300.0 * MIB + 4 * KIB * np.round(np.cumsum(pages * KIB) / (4 * KIB))


@pytest.mark.parametrize("seed", range(10))
def test_rss_has_a_floor_of_its_own(seed: int) -> None:
    for num_rows in range(60, 401, 20):
        assert judge(series(rss(400, seed)[:num_rows], kind="host")).verdict != "growing", num_rows
    assert judge(series(rss(250, seed) + 64 * KIB * np.arange(250), kind="host")).verdict == "growing"
    assert judge(series(rss(250, seed) + 8 * KIB * np.arange(250), kind="host")).verdict != "growing"
    assert judge(series(jitter(250, seed) + 8 * KIB * np.arange(250))).verdict == "growing"


def test_rss_that_rises_in_a_few_jumps_is_no_growth() -> None:
    jumps = 3.5 * MIB * np.searchsorted([110, 260, 410], STEPS)
    for num_rows in range(60, 501, 20):
        assert judge(series(300 * MIB + jumps[:num_rows], kind="host")).verdict != "growing", num_rows
    assert judge(series(rss(500) + jumps + 64 * KIB * STEPS, kind="host")).verdict == "growing"


@pytest.mark.parametrize("seed", range(10))
def test_rss_that_rises_by_the_same_jump_now_and_then_is_no_growth(seed: int) -> None:
    """The heap's top rises by what one step needs, and is given back now and then."""
    at = np.cumsum(np.random.default_rng(seed).exponential(70, 20)).astype(int)
    rises = np.bincount(at[at < 500], minlength=500) * 2732.0 * KIB
    held = 300 * MIB + np.maximum.accumulate(np.cumsum(rises) - 8 * MIB * np.searchsorted([170, 330], STEPS))
    for num_rows in range(60, 501, 20):
        assert judge(series(held[:num_rows], kind="host")).verdict != "growing", num_rows
    assert judge(series(held + 64 * KIB * STEPS, kind="host")).verdict == "growing"


def test_rss_that_has_stopped_rising_does_not_grow() -> None:
    rise = np.repeat([0, 3, 5, 6, 7, 8, 9, 11, 13, 14, 15, 16, 17, 18, 18, 18, 18, 18], 6) * MIB
    values = 300 * MIB + np.concatenate([np.zeros(150), rise])
    for num_rows in range(160, len(values) + 1):
        grows = judge(series(values[:num_rows], kind="host")).verdict == "growing"
        assert not grows or num_rows < 150 + 100, num_rows


def test_a_few_epochs_that_leave_some_rss_are_no_growth_and_many_or_much_is() -> None:
    for epochs, left, verdict in ((7, 4, "too short to tell"), (12, 4, "growing"), (5, 40, "growing")):
        values = 300.0 * MIB + left * MIB * np.arange(epochs).repeat(50)
        found = judge(series(values, kind="host", label="host RSS"))
        assert found.verdict == verdict and found.since_step in (50, 51), epochs
        assert found.explanation.endswith(", in jumps that training without a leak may have, too") == (epochs == 7)
    assert judge(series(rss(400), kind="host")).since_step is None


def test_much_that_comes_now_and_then_grows() -> None:
    values = 300 * MIB + 40 * MIB * (STEPS // 70)
    assert judge(series(values, kind="host", per_epoch=100)).verdict == "growing"


def test_a_few_ends_of_epochs_have_to_rise_surely() -> None:
    ends = np.array([0, 0, 17.5, 25.2, 50.8, 49.2, 54, 30]) * KIB  # as a clean run had them
    is_end = np.arange(400) % 50 == 49
    values = np.where(is_end, 10 * MIB + ends.repeat(50), jitter(400) + 200 * KIB)
    for num_rows in range(100, 401, 20):
        assert judge(series(values[:num_rows])).verdict != "growing", num_rows
    sure = np.where(is_end, 10 * MIB + 51.0 * KIB * np.arange(8).repeat(50), jitter(400) + 200 * KIB)
    assert judge(series(sure[:260])).verdict == "growing"


def test_the_heap_only_asks_for_a_cause() -> None:
    """It is exact, but what clean runs do to it is not known well."""
    steps = np.arange(1, 241)
    heap = np.where(steps % 7 == 0, 600 * MIB + 256 * KIB * ((steps - 1) // 40), np.nan)  # it is read now and then
    columns = {"step": steps, "stage": np.full(240, "train"), "epoch": (steps - 1.0) // 40, "host_malloc_bytes": heap}
    [found] = find_growth(RunInfo("run", 0.0), Samples(columns))
    assert (found.series, found.label, found.verdict) == ("host_malloc_bytes", "host heap", "too short to tell")
    assert found.unit == "epoch" and found.rate == pytest.approx(256 * KIB, rel=0.1) and found.since_step is not None
    # A thread's buffer that is made once hides nothing.
    [found] = find_growth(
        RunInfo("run", 0.0), Samples({**columns, "host_malloc_bytes": heap + 4 * MIB * (steps > 130)})
    )
    assert found.rate == pytest.approx(256 * KIB, rel=0.2)
    still = {**columns, "host_malloc_bytes": np.where(np.isnan(heap), heap, 600.0 * MIB)}
    assert find_growth(RunInfo("run", 0.0), Samples(still)) == ()


@pytest.mark.parametrize(("per_step", "is_told"), [(90 * KIB, True), (50 * KIB, False)])
def test_much_garbage_that_comes_and_goes_in_the_heap_is_told(per_step: int, is_told: bool) -> None:
    """RSS does not show it: the C library keeps what a collection freed."""
    steps, since = np.arange(1, 301), 161
    collections = (steps > 60) + 1.0 * (steps >= since)
    garbage = per_step * (steps - 1.0 - 60 * (steps > 60) - 100 * (steps >= since))
    columns = {"step": steps, "stage": np.full(300, "train"), "epoch": (steps - 1.0) // 50}
    columns |= {"host_malloc_bytes": 100 * MIB + garbage, "gc_full_collections": collections}
    found = find_growth(RunInfo("run", 0.0), Samples(columns))
    assert [(each.verdict, each.unit, each.since_step) for each in found] == (
        [("waits for the collector", "step", since)] if is_told else []
    )
    assert not found or found[0].rate == pytest.approx(per_step)
    rss = {**columns, "host_rss_bytes": 500.0 * MIB + np.zeros(300)}
    told = make_findings(Findings, RunInfo("run", 0.0), Samples(rss)).growth
    assert [each.verdict for each in told] == ["steady", *["waits for the collector"] * is_told]
    # Growth of RSS is told alone.
    grown = {**columns, "host_rss_bytes": 500 * MIB + 200 * KIB * steps}
    told = make_findings(Findings, RunInfo("run", 0.0), Samples(grown)).growth
    assert [(each.series, each.verdict) for each in told] == [("host_rss_bytes", "growing")]


@pytest.mark.parametrize("num_ends", range(4, 13))
def test_few_values_that_rise_evenly_do_not_seem_to_settle(num_ends: int) -> None:
    noise = np.random.default_rng(num_ends).normal(0, 0.02, num_ends)
    assert is_rising(np.arange(num_ends, dtype=float), np.arange(num_ends) + noise, 0.5)


def test_what_our_own_looks_add_to_rss_is_no_growth() -> None:
    steps = np.arange(1, 401)
    rises = tuple(OwnRise(int(step), 5 * MIB) for step in range(70, 400, 20))
    own = np.sum([rise.rss_bytes * (steps > rise.step) for rise in rises], axis=0)
    samples = Samples(
        {
            "step": steps,
            "train_step": steps,
            "stage": np.full(400, "train"),
            "epoch": (steps - 1) // 50,
            "host_rss_bytes": rss(400) + own,
        }
    )
    run = RunInfo("mine", 0.0)
    assert [each.verdict for each in find_growth(run, samples)] == ["growing"]
    [told] = find_growth(replace(run, own_rises=rises), samples)
    assert told == find_growth(run, Samples({**samples, "host_rss_bytes": rss(400)}))[0]
    assert told.verdict != "growing"


@pytest.mark.parametrize(("fall", "collections", "verdict"), [(0, 0, "growing"), (3, 0, "growing"), (3, 1, "steady")])
def test_what_our_own_look_gave_back_at_once_hides_no_growth(fall: int, collections: int, verdict: str) -> None:
    """RSS rose by 5 MiB in a look, which the C library gave back before the next row, and some of the program's."""
    steps = np.arange(1, 321)
    fallen = fall * MIB * (steps > 304)
    samples = Samples(
        {
            "step": steps,
            "train_step": steps,
            "stage": np.full(320, "train"),
            "epoch": (steps - 1) // 8,
            "host_rss_bytes": 500 * MIB + 32 * KIB * steps - fallen,
            "gc_full_collections": collections * (steps > 304),
        }
    )
    if collections:  # what a collection gave back is no part of the look's
        samples = Samples({**samples, "host_rss_bytes": samples["host_rss_bytes"] - 8 * MIB * (steps > 304)})
    [told] = find_growth(RunInfo("mine", 0.0, own_rises=(OwnRise(304, 5 * MIB),)), samples)
    assert (told.verdict == "growing") is (verdict == "growing")


@pytest.mark.parametrize("looks", [(304,), (160,), (104, 144, 200), (64, 96, 136, 192, 272)])
@pytest.mark.parametrize("collections", [0, 1])
def test_rss_that_falls_where_epochs_end_as_looks_are_taken_is_no_growth(
    looks: tuple[int, ...], collections: int
) -> None:
    steps = np.arange(1, 321)
    added = np.sum([steps > look for look in looks], axis=0)
    values = 500 * MIB + 20 * MIB * ((steps - 1) % 8) / 7 + np.random.default_rng(0).normal(0, 0.2 * MIB, 320)
    samples = Samples(
        {
            "step": steps,
            "train_step": steps,
            "stage": np.full(320, "train"),
            "epoch": (steps - 1) // 8,
            "host_rss_bytes": values + 5 * MIB * added,
            "gc_full_collections": collections * added,
        }
    )
    rises = tuple(OwnRise(look, 5 * MIB) for look in looks)
    [told] = find_growth(RunInfo("mine", 0.0, own_rises=rises), samples)
    assert told.verdict == "steady"


@pytest.mark.parametrize("every", [1, 5])
def test_growth_by_the_epoch_is_right_where_few_ends_of_epochs_are_read(every: int) -> None:
    steps = np.arange(1, 1201)
    epochs = (steps - 1) // 20
    read = (steps % 20 == 0) & (epochs % every == every - 1)
    values = np.where(read, 500.0 * MIB + MIB * epochs, np.nan)
    found = judge(Series(steps, values, kind="host", epochs=epochs.astype(float)))
    assert (found.verdict, found.unit) == ("growing", "epoch")
    assert found.rate == pytest.approx(MIB, rel=0.02) and found.steps_per_unit == pytest.approx(20)
    assert found.bytes_per_step == pytest.approx(MIB / 20, rel=0.02)
    assert "readings)" in found.explanation


def test_child_processes_are_judged_where_they_are() -> None:
    steps = np.arange(1, 401)
    at_ends = np.where(steps % 20 == 0, 30.0 * MIB + MIB * (steps // 20), np.nan)
    columns = {"step": steps, "train_step": steps, "stage": np.full(400, "train"), "epoch": (steps - 1) // 20}
    run = RunInfo("mine", 0.0)

    def told(children: Any) -> list[tuple[str, str, str]]:
        samples = Samples({**columns, "host_children_uss_bytes": children})
        return [(each.series, each.verdict, each.unit) for each in find_growth(run, samples)]

    assert told(at_ends) == [("host_children_uss_bytes", "growing", "epoch")]
    assert told(at_ends * 0) == told(np.where(steps <= 60, at_ends, np.nan)) == []


# -- whatever comes ----------------------------------------------------------------------------------------------


@given(
    values=st.lists(st.floats(0, 1e13) | st.just(float("nan")), max_size=120),
    per_epoch=st.none() | st.integers(1, 60),
    per_call=st.none() | st.integers(1, 60),
    kind=st.sampled_from(["device", "host"]),
    limit=st.none() | st.integers(1, 10**13),
)
@settings(max_examples=150, deadline=None)
def test_every_series_gets_a_verdict(
    values: list[float], per_epoch: int | None, per_call: int | None, kind: Any, limit: int | None
) -> None:
    calls = None if per_call is None else np.arange(len(values)) // per_call + 1.0
    found = judge(series(values, per_epoch=per_epoch, kind=kind, limit=limit, calls=calls, collections=calls))
    assert found.verdict in VERDICTS and found.unit in UNITS and found.explanation
    assert found.num_samples <= len(values)
    if found.interval is not None:
        assert found.rate is not None and found.interval[0] <= found.rate <= found.interval[1]
    if found.verdict == "growing":
        assert found.since_step is not None and (found.bytes_per_step or 0) > 0
        assert per_epoch is None or len(values) > per_epoch


@given(scale=st.floats(0.1, 10), offset=st.floats(0, 1e10), rate=st.floats(-1e5, 1e5))
@settings(max_examples=50, deadline=None)
def test_the_level_does_not_matter(scale: float, offset: float, rate: float) -> None:
    values = jitter(300) + rate * np.arange(300)
    one, other = judge(series(values)), judge(series(values + offset))
    assert (one.verdict, one.unit) == (other.verdict, other.unit)
    assert (one.rate or 0) == pytest.approx(other.rate or 0, rel=1e-6, abs=1e-3)
