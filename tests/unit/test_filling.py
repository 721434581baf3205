"""What is known to fill: it explains a rise only while it rises itself, and by as much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.leaks.verdicts.filling import CacheReadings, Shuffle, kept_results
from kerasmemwatch.leaks.verdicts.find import find_growth
from kerasmemwatch.leaks.verdicts.judge import judge
from kerasmemwatch.leaks.verdicts.series import Series
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.units import KIB, MIB

STEPS = np.arange(1, 601)
FULL = 400
CACHE = 100 * KIB * np.minimum(STEPS, FULL)
READINGS = [(step, 100 * KIB * min(step, FULL)) for step in range(0, 601, 50)]


def fit(values: Any, num_rows: int = 600, *, per_epoch: int | None = 50, sizes: Any = (FULL * 100 * KIB,)) -> Series:
    """Rows of a fit whose cache is read at the ends of epochs, as far as it has come."""
    steps = STEPS[:num_rows]
    filling = CacheReadings(sizes, [one for one in READINGS if one[0] <= num_rows]).filling(steps)
    epochs = None if per_epoch is None else (steps - 1.0) // per_epoch
    return Series(steps, np.asarray(values, float)[:num_rows], epochs=epochs, filling=filling, caches=tuple(sizes))


def test_rss_may_rise_by_more_than_what_fills() -> None:
    filling = fit(CACHE).filling
    assert filling is not None
    held = float(filling.held[400] - filling.held[0])
    told = [filling.explains(share * held, 0, 400, is_device=True) for share in (0.4, 1.2, 1.4, 1.6)]
    assert told == [False, True, False, False]
    told = [filling.explains(share * held, 0, 400, is_device=False) for share in (0.4, 1.2, 1.4, 1.6)]
    assert told == [True, True, True, False]


@pytest.mark.parametrize("kind", ["device", "host"])
@pytest.mark.parametrize("per_epoch", [50, None])
def test_a_cache_that_fills_for_several_epochs_is_no_growth(kind: Any, per_epoch: int | None) -> None:
    said = {}
    for num_rows in range(20, 601, 20):
        found = judge(replace(fit(10 * MIB + CACHE, num_rows, per_epoch=per_epoch), kind=kind))
        said[num_rows] = found.verdict
        assert found.verdict != "growing" and found.met_at is None and found.since_step is None, num_rows
    assert {said[num_rows] for num_rows in range(200, FULL, 20)} == {"filling"} and said[600] == "settling"
    assert judge(replace(fit(10 * MIB + CACHE, 300), filling=None)).verdict == "growing"


def test_it_says_how_full_it_is() -> None:
    found = judge(fit(10 * MIB + CACHE, 300))
    assert found.explanation.endswith("as the dataset's cache fills: it holds 29.3 MiB of 39.1 MiB")
    assert judge(fit(10 * MIB + CACHE, 300, sizes=(None,))).explanation.endswith("it holds 29.3 MiB so far")


@pytest.mark.parametrize("rate", [400, 4 * KIB])
def test_a_leak_is_found_once_the_cache_is_full(rate: int) -> None:
    steps = np.arange(1, 1001)
    values = 10 * MIB + 100 * KIB * np.minimum(steps, 50) + rate * steps
    filling = CacheReadings((50 * 100 * KIB,), [(0, 0), (50, 50 * 100 * KIB), (500, 50 * 100 * KIB)]).filling(steps)
    found = judge(Series(steps, values.astype(float), epochs=(steps - 1.0) // 50, filling=filling))
    assert found.verdict == "growing" and found.rate == pytest.approx(rate, rel=0.01)


def test_a_leak_beside_it_is_found_if_it_is_as_large() -> None:
    assert judge(fit(10 * MIB + CACHE + 100 * KIB * STEPS, 300)).verdict == "growing"


def test_a_device_that_does_not_count_the_cache_may_leak_meanwhile() -> None:
    leak = fit(10 * MIB + 8 * KIB * STEPS, 300)
    assert judge(leak).verdict == "growing"
    assert judge(replace(leak, kind="host")).verdict != "growing"  # RSS takes what was free before


def test_between_readings_it_rises_evenly_and_afterwards_for_a_while() -> None:
    read = CacheReadings((1000,), [(0, 0), (100, 400)]).filling(np.array([50, 100, 150, 300]))
    assert read is not None and read.held.tolist() == [200, 400, 600, 800] and read.full_bytes == 1000
    full = CacheReadings((500,), [(0, 0), (100, 400)]).filling(np.array([300]))
    still = CacheReadings((None,), [(0, 0), (100, 400), (200, 400)]).filling(np.array([300]))
    assert full is not None and full.held.tolist() == [500]
    assert still is not None and still.held.tolist() == [400] and still.full_bytes is None
    assert CacheReadings((1000,), [(0, 0)]).filling(STEPS) is None
    assert CacheReadings((1000,), [(0, 0), (100, 400)]).filling(np.empty(0)) is None


def test_it_is_read_ever_more_seldom_and_not_for_ever() -> None:
    caches = CacheReadings()
    assert not caches.is_due(10**9)  # no caches
    caches.begin(0, (None,))
    read = []
    for step in range(10_000):
        if caches.is_due(step):
            caches.add(step, 1 + step)
            read.append(step)
    assert read[:3] == [20, 40, 60] and len(read) < 70
    for fits in range(1000):
        caches.begin(10_000 + 50 * fits, (None,))
        caches.add(10_020 + 50 * fits, 7)
    assert len(caches.readings) <= 100
    caches.begin(10**6, ())
    assert not caches.is_due(10**9)


def test_fits_too_short_for_a_reading_leave_the_newest_begin() -> None:
    caches = CacheReadings()
    for step in range(0, 100, 10):
        caches.begin(step, (1,))
    assert caches.readings == [(90, 0)]


@pytest.mark.parametrize("caches", [(20 * MIB,), (None,), ()])
def test_the_cache_of_a_second_fit_fills_in_its_first_epoch(caches: Any) -> None:
    """It is read at the end of that."""
    rows = np.arange(400)
    values = 10 * MIB + 100.0 * KIB * np.maximum(0, rows - 200)
    one = Series(rows + 1, values, epochs=np.where(rows < 200, rows // 50, 0.0), calls=1.0 + (rows >= 200))
    found = judge(replace(one, caches=caches))
    assert found.verdict == ("filling" if caches else "growing")
    # Where each of many fits has one epoch, what is left by all of them is none of a cache.
    many = replace(one, values=10 * MIB + 4.0 * KIB * rows, epochs=0.0 * rows, calls=1.0 + rows // 20)
    assert judge(replace(many, caches=caches)).verdict == "growing"


# -- results of a predict ----------------------------------------------------------------------------------------


def one_call(stage: str, rate: float, **changed: Any) -> Series:
    values = 10 * MIB + rate * STEPS
    return Series(
        STEPS,
        values,
        stages=np.full(len(STEPS), stage),
        train_steps=0 * STEPS,
        calls=np.ones(len(STEPS)),
        **{"caches": (), **changed},
    )


def test_what_a_predict_keeps_is_told_from_a_leak() -> None:
    results = kept_results(STEPS, None, 4.0 * KIB)
    found = judge(one_call("predict", 4 * KIB, filling=results))
    assert found.verdict == "filling"
    assert found.explanation.endswith("as this predict keeps its results until it ends: 2.3 MiB so far")
    assert judge(one_call("predict", 8 * KIB)).verdict == "too short to tell"  # its results are unknown


def test_each_predict_keeps_its_own_results_only() -> None:
    steps = np.arange(1, 7)
    resumed = np.array([1.0, 1.0, 2.0, 2.0, 1.0, 1.0])
    for calls, held in ((resumed, [0, 8, 0, 8, 0, 8]), (0 * resumed + np.nan, [0, 8, 16, 24, 32, 40])):
        found = kept_results(steps, calls, 8.0)
        assert found is not None and found.held.tolist() == held
    assert kept_results(steps[:0], None, 8.0) is None


def test_what_many_predicts_leave_is_none_of_their_results() -> None:
    calls = 1.0 + STEPS // 4
    one = replace(one_call("predict", 4 * KIB, filling=kept_results(STEPS, calls, 4.0 * KIB)), calls=calls)
    assert judge(one).verdict == "growing"


@pytest.mark.parametrize("caches", [(), (MIB,), (None,), None])
@pytest.mark.parametrize("stage", ["test", "predict"])
def test_one_call_by_itself_is_never_growing(stage: str, caches: tuple[int | None, ...] | None) -> None:
    # Its prefetch buffer may fill for hundreds of rows, and a single call has no second pass to tell.
    assert judge(one_call(stage, 4 * KIB, caches=caches)).verdict != "growing"
    assert judge(one_call(stage, 8 * KIB, filling=kept_results(STEPS, None, 4.0 * KIB))).verdict != "growing"


# -- from a recording --------------------------------------------------------------------------------------------


def recorded(stage: str, devices: tuple[str, ...], values: Any, **configuration: Any) -> dict[str, str]:
    """The verdicts on rows of one fit or predict."""
    rows = len(STEPS)
    trained = STEPS if stage == "train" else 0 * STEPS
    samples = Samples(
        {
            "step": STEPS,
            "train_step": trained,
            "epoch": (STEPS - 1.0) // 50 if stage == "train" else np.full(rows, np.nan),
            "stage": np.full(rows, stage),
            "call": np.ones(rows),
            "device_in_use_bytes": np.column_stack([values] * len(devices)),
            "host_rss_bytes": values,
        }
    )
    run = RunInfo("run", 0.0, devices=tuple(map(DeviceInfo, devices)), configuration=configuration)
    return {growth.series: growth.verdict for growth in find_growth(run, samples)}


def test_datasets_fill_the_hosts_memory() -> None:
    rises = 10.0 * MIB + 100 * KIB * STEPS
    steps, held = zip(*((step, 100 * KIB * step) for step in range(0, 601, 50)), strict=True)
    facts = {"dataset_caches_bytes": [None], "dataset_caches_read_steps": steps, "dataset_caches_held_bytes": held}
    found = recorded("train", ("CPU:0", "GPU:0"), rises, **facts)
    assert found.pop("device_in_use_bytes GPU:0") == "growing"
    assert set(found.values()) == {"filling"} and len(found) == 2
    assert "filling" not in recorded("train", ("CPU:0",), rises).values()


def test_results_fill_the_device_that_computes() -> None:
    rises = 10.0 * MIB + 100 * KIB * STEPS
    facts = {"dataset_caches_bytes": [], "predict_results_bytes": 100 * KIB}
    assert set(recorded("predict", ("CPU:0",), rises, **facts).values()) == {"filling"}
    found = recorded("predict", ("CPU:0", "GPU:0"), rises, **facts)
    assert found.pop("device_in_use_bytes GPU:0") == "filling" and "filling" not in found.values()


def shuffled(num_rows: int, leak: float = 0.0, *, per_epoch: int = 50) -> Series:
    """A buffer of 12 MiB that 190 steps replace, whose elements take up to a fifth more: as measured, without noise."""
    steps = np.arange(1, num_rows + 1)
    values = 12 * MIB * (1 + 0.2 * (1 - np.exp(-steps / 190))) + leak * steps
    return Series(steps, values, epochs=(steps - 1.0) // per_epoch, shuffle=Shuffle(12 * MIB, 190.0, 0))


def test_elements_that_replace_each_other_in_a_shuffle_buffer_are_no_growth() -> None:
    said = {num_rows: judge(shuffled(num_rows)) for num_rows in range(100, 1001, 20)}
    assert {found.verdict for found in said.values()} <= {"too short to tell", "settling", "steady"}
    assert any(judge(replace(shuffled(num_rows), shuffle=None)).is_growing for num_rows in said)
    text = said[200].explanation
    assert text.endswith("as it may while elements replace each other in the dataset's shuffle buffer of 12.0 MiB")
    assert said[200].since_step is not None  # so that causes are looked for


@pytest.mark.parametrize("rate", [8 * KIB, 16 * KIB])
def test_a_leak_beside_a_shuffle_buffer_is_found_once_its_elements_are_replaced(rate: int) -> None:
    assert judge(shuffled(700, rate)).is_growing
    fast = 10 * rate
    assert judge(shuffled(200, fast)).is_growing


def test_only_a_pass_that_lasts_for_epochs_explains_their_growth() -> None:
    other = replace(shuffled(300), shuffle=Shuffle(12 * MIB, 190.0, 240))
    assert judge(other).is_growing == judge(replace(other, shuffle=None)).is_growing
    assert not Shuffle(12 * MIB, 190.0, 240).explains(1.0, 50, 300) and Shuffle(12 * MIB, 190.0, 0).explains(
        1.0, 50, 300
    )


def test_a_shuffle_buffer_is_in_the_hosts_memory() -> None:
    def found(device: str, **facts: Any) -> Any:
        run = RunInfo("run", "id", devices=(DeviceInfo(device),), configuration=facts)
        rows = shuffled(200)
        samples = Samples({"step": rows.steps, "epoch": rows.epochs, "device_in_use_bytes": rows.values[:, None]})
        return next(each for each in find_growth(run, samples) if each.series.startswith("device"))

    facts = {"dataset_shuffle_bytes": 12 * MIB, "dataset_shuffle_steps": 190.0, "dataset_shuffle_since_step": 0}
    assert found("CPU:0", **facts).verdict == "too short to tell"
    assert found("CPU:0", **{**facts, "dataset_shuffle_bytes": None}).is_growing
    assert found("GPU:0", **facts).is_growing
