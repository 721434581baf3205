"""What a step's context is told of how its loop was left."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kerasmemwatch.watch.session_step import SessionStep, consumers, is_end_of_data


class Session:
    """Notes how steps are left."""

    def __init__(self) -> None:
        self.left: list[tuple[type[BaseException] | None, float]] = []

    def _enter(self, step: SessionStep, batch: Any) -> None:
        pass

    def _leave(self, step: SessionStep, error: BaseException | None, ended: float = 1) -> None:
        self.left.append((None if error is None else type(error), ended))

    def steps(self) -> Iterator[int]:
        step = SessionStep(self, consumers(sys._getframe(1)))
        for number in range(3):
            with step:
                yield number


def bar(items: Iterator[int]) -> Iterator[int]:
    """As a progress bar in Python is."""
    for number, item in enumerate(items):
        yield item + number - number


class Bar:
    """The same as a class, which holds the iterator."""

    def __init__(self, items: Iterator[int]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[int]:
        items = self.items
        for number, item in enumerate(items):
            yield item + number - number


WRAPPERS: list[Callable[[Iterator[int]], Any]] = [iter, enumerate, bar, lambda items: bar(bar(items)), Bar]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_an_exception_in_the_loop(wrap: Callable[[Iterator[int]], Any]) -> None:
    def plain() -> None:
        for number in wrap(session.steps()):
            int("x" if number == number else "")

    def within_others() -> None:
        for _ in wrap(session.steps()):
            try:
                with open("/dev/null"):
                    raise ValueError("x")
            finally:
                len("")

    for loop in (plain, within_others):
        session = Session()
        with pytest.raises(ValueError, match="x"):
            loop()
        assert session.left == [(GeneratorExit, 0)]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_break_or_a_return(wrap: Callable[[Iterator[int]], Any]) -> None:
    def breaks() -> None:
        for _ in wrap(session.steps()):
            try:
                int("x")
            except ValueError:
                break

    def returns() -> int:
        for _ in wrap(session.steps()):
            with open("/dev/null"):
                return 3
        return 4

    for loop in (breaks, returns):
        session = Session()
        loop()
        assert session.left == [(None, 1)]


def test_all_steps_end() -> None:
    session = Session()
    assert list(bar(session.steps())) == [0, 1, 2]
    assert session.left == [(None, 1)] * 3


@pytest.mark.parametrize("wrap", [iter, Bar])
def test_an_iterator_that_goes_with_its_function_is_unknown(wrap: Callable[[Iterator[int]], Any]) -> None:
    def loop() -> None:
        kept = wrap(session.steps())
        for _ in kept:
            break

    session = Session()
    loop()
    [(error, ended)] = session.left
    assert error is None and math.isnan(ended)


def test_a_loop_that_is_a_generator_itself() -> None:
    def losses() -> Iterator[int]:
        kept = session.steps()
        for number in kept:
            if number:
                break
            yield number

    session = Session()
    for loss in losses():
        assert loss == 0
    assert session.left[0] == (None, 1)
    assert math.isnan(session.left[1][1])


def test_a_with_statement_knows() -> None:
    session = Session()
    with SessionStep(session):
        pass
    with pytest.raises(KeyError), SessionStep(session):
        raise KeyError("x")
    assert session.left == [(None, 1), (KeyError, 0)]


def test_the_end_of_the_data_is_no_error() -> None:
    out_of_range = type("OutOfRangeError", (Exception,), {})
    assert is_end_of_data(StopIteration()) and is_end_of_data(out_of_range())
    assert not is_end_of_data(ValueError())
