"""Faults of ours: once each, with reason and consequence; never anybody else's."""

from __future__ import annotations

import logging

import pytest

from kerasmemwatch.faults import Faults


def test_each_place_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    for reason in ("one", "two"):
        faults.report("here", OSError(reason), "So what.")
    faults.report("there", OSError("three"), "So what.")
    assert faults.notes == ["here: one. So what.", "there: three. So what."]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert caplog.records[0].name == "kerasmemwatch.faults"


def test_the_sentence_ends_once() -> None:
    faults = Faults()
    faults.report("here", ValueError("It broke."), "So what.")
    assert faults.notes == ["here: It broke. So what."]


def test_an_error_without_words_is_named() -> None:
    faults = Faults()
    faults.report("here", MemoryError(), "So what.")
    assert faults.notes == ["here: MemoryError. So what."]


@pytest.mark.parametrize("level", [logging.WARNING, logging.DEBUG])
def test_the_traceback_is_for_debugging(caplog: pytest.LogCaptureFixture, level: int) -> None:
    with caplog.at_level(level, "kerasmemwatch.faults"):
        Faults().report("here", OSError("x"), "So what.")
    assert bool(caplog.records[0].exc_info) == (level == logging.DEBUG)


def test_a_guard_swallows_and_the_block_ends_there() -> None:
    faults = Faults()
    reached = []
    with faults.guard("here", "So what."):
        reached.append(1)
        raise RuntimeError("x")
    assert reached == [1] and len(faults.notes) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_guard_lets_pass_what_is_no_fault(error: type[BaseException]) -> None:
    faults = Faults()
    with pytest.raises(error), faults.guard("here", "So what."):
        raise error
    assert faults.notes == []


def test_strict_raises_every_time() -> None:
    faults = Faults(strict=True)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="x"), faults.guard("here", "So what."):
            raise RuntimeError("x")
