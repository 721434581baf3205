"""Whether memory grows from call to call of a process, from values, and how a call is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.analysis.growth_words import brief, with_calls
from kerasmemwatch.leaks.verdicts.calls import Call, call_growth, call_samples
from kerasmemwatch.records.growth import Growth
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.storage.codecs.run_codec import decode_run, encode_run
from kerasmemwatch.units import KIB, MIB
from kerasmemwatch.watch.search import process_calls
from kerasmemwatch.watch.search.process_calls import ProcessCalls

RUN = RunInfo("mine", 0.0, devices=(DeviceInfo("CPU:0"),))
SUSPICIOUS = ("growing", "waits for the collector")


def calls(
    in_use: Sequence[float],
    *,
    stages: Sequence[str] = ("train",),
    larger: Sequence[bool] = (False,),
    new_models: bool = False,
    collections: Sequence[float] = (),
    rss: Sequence[float] = (),
) -> list[Call]:
    """Calls of 5 steps each; stages take turns."""
    return [
        Call(
            number,
            stages[number % len(stages)],
            5,
            5 * number,
            number if new_models else 1,
            larger[number % len(larger)],
            (float(value),),
            rss[number - 1] if len(rss) else 500.0 * MIB,
            (collections[number - 1] if len(collections) else 3.0, 100.0, 10.0, 1.0),
        )
        for number, value in enumerate(in_use, 1)
    ]


def judged(found: Sequence[Call], **more: Any) -> Growth:
    return call_growth(RUN, found, **more)[0]


def jitter(count: int = 40, seed: int = 0) -> np.ndarray:
    return 10 * MIB + 64 * KIB * np.random.default_rng(seed).random(count)


LEAK = jitter() + MIB * np.arange(40)


@pytest.mark.parametrize(("new_models", "unit"), [(False, "fit"), (True, "model")])
def test_what_each_fit_leaves_is_told_by_the_fit_or_the_model(new_models: bool, unit: str) -> None:
    found = judged(calls(LEAK, new_models=new_models))
    assert (found.verdict, found.unit, found.since_step, found.num_samples) == ("growing", unit, None, 38)
    assert found.rate == pytest.approx(MIB, rel=0.05) and found.bytes_per_step == pytest.approx(MIB / 5, rel=0.05)
    assert found.explanation.startswith(f"Growing: CPU:0 in use grows by 1.0 MiB a {unit} (95 % interval ")
    assert found.explanation.endswith("over 38 fits of this process")
    assert brief(found) == "from one call of this process to the next, 38 of them"


@pytest.mark.parametrize(("stage", "unit"), [("test", "evaluate"), ("predict", "predict")])
def test_so_is_what_an_evaluate_or_predict_leaves(stage: str, unit: str) -> None:
    found = judged(calls(LEAK, stages=[stage]))
    assert (found.verdict, found.unit) == ("growing", unit)


def test_of_calls_that_take_turns_it_is_the_one_that_leaves_it() -> None:
    # Number 2, 5, 8, ... is a predict, after which more is in use.
    in_use = jitter(60) + MIB * ((np.arange(1, 61) + 1) // 3)
    found = judged(calls(in_use, stages=["train", "test", "predict"]))
    assert (found.verdict, found.unit) == ("growing", "predict") and found.rate == pytest.approx(MIB, rel=0.1)


def test_a_few_calls_are_too_few_to_tell() -> None:
    assert call_growth(RUN, calls(LEAK[:11])) == ()
    assert judged(calls(LEAK[:12])).verdict == "growing"


@pytest.mark.parametrize("seed", range(10))
def test_calls_that_leave_nothing_do_not_grow(seed: int) -> None:
    for count in range(12, 60, 5):
        found = call_growth(RUN, calls(jitter(count, seed)))
        assert not any(each.verdict in SUSPICIOUS for each in found), count


@pytest.mark.parametrize("rss_only", [False, True])
def test_ever_larger_calls_tell_nothing(rss_only: bool) -> None:
    rising = 300 * MIB + 3 * MIB * np.arange(40.0)
    values = {"in_use": jitter(), "rss": rising} if rss_only else {"in_use": rising}
    found = call_growth(RUN, calls(**values, larger=[True]), is_larger_next=True)
    assert not any(each.verdict in SUSPICIOUS for each in found)
    # A leak beside a few larger calls shows.
    larger = [number in (4, 5, 9, 17, 31) for number in range(41)]
    assert judged(calls(LEAK + 5 * MIB * np.cumsum(larger[1:]), larger=larger)).rate == pytest.approx(MIB, rel=0.3)


def test_what_a_larger_call_adds_is_left_out_but_not_what_it_frees() -> None:
    samples = call_samples(calls([0, 1, 2, 10, 11, 5, 6], larger=[number == 4 for number in range(8)]))
    # From the third on; that before the larger one may hold what was prepared for it.
    assert samples["device_in_use_bytes"][:, 0].tolist() == [2, 2, 3, -3, -2]


def test_what_collections_give_back_waits_for_them() -> None:
    numbers = np.arange(150)
    found = judged(calls(jitter(150) + MIB * (numbers % 60), collections=3.0 + numbers // 60))
    assert found.verdict == "waits for the collector"
    assert found.explanation.startswith("Waits for the collector: CPU:0 in use rises by ")


def test_what_is_unknown_is_not_judged() -> None:
    assert [each.series for each in call_growth(RUN, calls([math.nan] * 20))] == ["host_rss_bytes"]
    assert call_growth(RUN, ()) == ()


def test_a_runs_own_growth_comes_before_that_of_its_process() -> None:
    [of_calls, rss] = call_growth(RUN, calls(LEAK))
    short = replace(of_calls, verdict="too short to tell")
    own = replace(of_calls, since_step=20)
    assert with_calls([short, rss], [of_calls]) == (of_calls, rss)
    assert with_calls([own, rss], [of_calls]) == (own, rss)


def test_it_is_stored_with_the_run() -> None:
    run = replace(RUN, call_growth=call_growth(RUN, calls(LEAK)))
    assert decode_run(encode_run(run, ()))[0].call_growth == run.call_growth


class Model:
    """As much of a model as is read: one variable on the CPU."""

    built = True

    def __init__(self, size: int) -> None:
        self.variables = [SimpleNamespace(shape=(size,), dtype="float32", device="/job:localhost/device:CPU:0")]


@pytest.fixture
def in_use(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    found = {"CPU:0": 1000}
    monkeypatch.setattr(process_calls, "in_use_bytes", lambda devices: {name: found[name] for name in devices})
    monkeypatch.setattr(process_calls, "rss_bytes", lambda: 5000)
    monkeypatch.setattr(process_calls, "own_rss_bytes", lambda: 2000)
    return found


def recorder(steps: int) -> Any:
    return SimpleNamespace(step=steps, started=True, run=RUN, newest=lambda: ((), []))


def test_a_call_is_measured_as_the_next_one_begins(in_use: dict[str, int]) -> None:
    seen, models = ProcessCalls(), [Model(10), Model(10), Model(20)]
    for number, model in enumerate(models):
        in_use["CPU:0"] = 1000 * (number + 1)
        seen.begin("train", model, recorder(0))
        assert seen.end(recorder(3))
    assert (seen.ended, seen.is_larger) == (3, True)
    first, second = seen.calls
    # Before the first one ended, nobody knew the devices. The variables of the model that is to run are no growth.
    assert (first.device_bytes, second.device_bytes) == ((2000 - 40,), (3000 - 80,))
    assert (second.rss_bytes, second.steps, second.step, second.model) == (3000, 3, 6, 2)
    assert (first.is_larger, second.is_larger) == (True, False)


def test_a_call_that_an_exception_left_is_none(in_use: dict[str, int]) -> None:
    seen, model = ProcessCalls(), Model(10)
    assert not seen.end(recorder(1))
    for number in range(4):
        seen.begin("train", model, recorder(0))
        assert number == 1 or seen.end(recorder(1))
    assert seen.ended == 3 and [call.number for call in seen.calls] == [1, 2]


def test_few_calls_are_kept(in_use: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen, model = ProcessCalls(), Model(10)
    for _ in range(process_calls._MAX_CALLS + 9):
        seen.begin("predict", model, recorder(0))
        seen.end(recorder(1))
    assert len(seen.calls) == process_calls._MAX_CALLS and seen.calls[-1].step == process_calls._MAX_CALLS + 8
