"""Short fits, each with a watch of its own: growth from one to the next is told by a later one's watch."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasmemwatch as kmw
from kerasmemwatch.errors import MemoryGrowthError
from kerasmemwatch.watch.search import allowance, call_search
from kerasmemwatch.watch.search.call_search import CALL_SEARCH

pytestmark = pytest.mark.usefixtures("exact_counting")
X, Y = np.ones((4, 4), "float32"), np.ones((4, 1), "float32")


@pytest.fixture(autouse=True)
def _no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Verdicts are given and looks taken however slow this machine is and whatever other tests left.
    monkeypatch.setattr(call_search, "_VERDICT_SHARE", 1.0)
    monkeypatch.setattr(allowance, "_LOOK_S", 60.0)
    CALL_SEARCH.forget()


def net() -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def watch(log_dir: Path | None = None, **options: Any) -> kmw.MemoryWatch:
    return kmw.MemoryWatch(log_dir, trace=False, verbose=0, strict=True, **options)


def test_what_short_fits_leave_is_found_with_its_line(tmp_path: Path) -> None:
    model, kept = net(), []
    for number in range(20):
        kept.append(tf.ones((256, 512)) * number)
        newest = watch(tmp_path)
        model.fit(X, Y, batch_size=2, verbose=0, callbacks=[newest])
    report = newest.report
    [leak] = report.leaks
    assert leak.cause == "retained_tensors" and leak.where.endswith("kept.append(tf.ones((256, 512)) * number)")
    growth = next(each for each in report.growth if each.series.startswith("device"))
    assert (growth.verdict, growth.unit) == ("growing", "fit")
    assert growth.rate == pytest.approx(256 * 512 * 4, rel=0.2)
    assert "fits of this process" in " ".join(str(report).split())
    assert kmw.load(tmp_path).report.growth == report.growth


def test_so_is_what_short_predicts_leave_and_it_may_be_raised() -> None:
    model, kept = net(), []

    def predicts() -> None:
        for number in range(20):
            kept.append(tf.ones((256, 512)) * number)
            model.predict(X, verbose=0, callbacks=[watch(detect_leaks="raise")])

    with pytest.raises(MemoryGrowthError, match="retained_tensors"):
        predicts()


@pytest.mark.long
def test_what_was_found_outlives_a_pause_but_not_the_end_of_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    model, kept, judge, paused = net(), [], call_search.call_growth, range(18, 20)

    def judged(*arguments: Any, **options: Any) -> Any:
        return () if CALL_SEARCH._calls.ended in paused else judge(*arguments, **options)

    def fits(count: int) -> tuple[str, ...]:
        for number in range(count):
            kept.append(tf.ones((256, 512)) * number)
            newest = watch()
            model.fit(X, Y, batch_size=2, verbose=0, callbacks=[newest])
        return tuple(leak.cause for leak in newest.report.leaks)

    monkeypatch.setattr(call_search, "call_growth", judged)
    monkeypatch.setattr(call_search, "_MORE", 1.0)
    assert fits(17) == ("retained_tensors",)
    assert fits(2) == ()
    monkeypatch.setattr(allowance, "_LOOK_S", 0.0)  # no second look
    assert fits(3) == ("retained_tensors",)
    paused = range(23, 100)
    assert fits(20) == ()
    assert not CALL_SEARCH._investigation.has_looked


@pytest.mark.long
def test_short_fits_that_leave_nothing_do_not_grow() -> None:
    gc.collect()
    model = net()
    for number in range(20):
        newest = watch()
        rows = 1 + number * 7 % 4
        model.fit(X[:rows], Y[:rows], batch_size=1, verbose=0, callbacks=[newest])
    report = newest.report
    assert [each.verdict for each in report.growth if each.series.startswith("device")] == ["too short to tell"]
    assert {leak.cause for leak in report.leaks} <= {"waits_for_collector"}


def test_a_forked_child_begins_anew() -> None:
    model = net()
    for _ in range(2):
        model.fit(X, Y, verbose=0, callbacks=[watch()])
        assert CALL_SEARCH._calls.ended == 1
        CALL_SEARCH._process = -1  # as after a fork
