"""``detect_leaks="raise"``: the end of a fit or a session raises the causes that were found."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import kerasmemwatch as kmw
from kerasmemwatch.errors import MemoryGrowthError
from kerasmemwatch.records.growth import LeakFinding, TraceLink
from kerasmemwatch.watch.search.leak_search import LeakSearch

FOUND = LeakFinding(
    "retained_tensors",
    "losses holds 130 tensors.",
    131072.0,
    20,
    0.95,
    "train.py:8, losses.append(loss)",
    "float(loss)",
    trace=(TraceLink("global losses of train.py", "suspect", "the reference to change"),),
)
WAITING = LeakFinding("waits_for_collector", "Garbage waits.", 1.0, 20, 0.9, "", "gc.collect()")
MESSAGE = """Memory grows.
  Tensors are kept (retained_tensors): +128.0 KiB a step since step 20 (95% sure)
  Where: train.py:8, losses.append(loss)
  Fix: float(loss)
  Evidence: losses holds 130 tensors.
  global losses of train.py  <- CHANGE THIS: the reference to change"""


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have every search find the same."""

    def finds(*leaks: LeakFinding) -> None:
        monkeypatch.setattr(LeakSearch, "search", lambda self, *_, **__: self._recorder.replace_leaks(leaks))

    return finds


def fit(detect_leaks: Any) -> Any:
    watch = kmw.MemoryWatch(log_dir=None, trace=False, detect_leaks=detect_leaks)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    x, y = np.ones((4, 4)), np.ones((4, 1))
    model.fit(x, y, epochs=2, validation_data=(x, y), verbose=0, callbacks=[watch])
    return watch


def session(detect_leaks: Any) -> Any:
    watch = kmw.MemorySession(log_dir=None, trace=False, detect_leaks=detect_leaks)
    with watch:
        for _ in watch.epochs(2):
            with watch.step():
                pass
    return watch


@pytest.mark.parametrize("run", [fit, session])
def test_causes_are_raised_if_that_is_wanted(run: Any, finds: Any) -> None:
    finds(FOUND, WAITING)
    assert run(True).report.leaks == (FOUND, WAITING)
    with pytest.raises(MemoryGrowthError) as caught:
        run("raise")
    assert str(caught.value) == MESSAGE


@pytest.mark.parametrize("run", [fit, session])
def test_what_waits_for_the_collector_is_no_leak(run: Any, finds: Any) -> None:
    finds(WAITING)
    assert run("raise").report.leaks == (WAITING,)


def test_an_error_of_the_loop_comes_first(finds: Any) -> None:
    finds(FOUND)

    def left_by_an_error() -> None:
        with kmw.MemorySession(log_dir=None, trace=False, detect_leaks="raise") as watch, watch.step():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        left_by_an_error()
