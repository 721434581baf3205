"""The exception that leaves a loop over an iterator, found while Python closes the iterator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from kerasmemwatch.watch.session_step import SessionStep, consumers


class Told:
    """What a session is told of its steps' ends."""

    def __init__(self) -> None:
        self.ends: list[tuple[BaseException | None, float]] = []

    def _enter(self, step: SessionStep, batch: Any) -> None:
        pass

    def _leave(self, step: SessionStep, error: BaseException | None, ended: float = 1) -> None:
        self.ends.append((error, ended))

    def steps(self) -> Iterator[int]:
        step = SessionStep(self, consumers(sys._getframe(1)))
        for number in range(3):
            with step:
                yield number


def raised_anew(error: Exception) -> None:
    """As TensorFlow and Keras do."""
    try:
        raise error
    except Exception as caught:
        raise caught.with_traceback(caught.__traceback__) from None


def test_it_is_found_although_the_same_function_catches_it() -> None:
    told, error = Told(), ValueError("of the loop")
    try:
        for _ in told.steps():
            raised_anew(error)
    except ValueError:
        pass
    assert told.ends == [(error, 0)]


def test_each_loop_of_a_function_has_its_own() -> None:
    told = Told()
    errors = [ValueError(str(number)) for number in range(3)]
    for error in errors:
        try:
            for _ in told.steps():
                raised_anew(error)
        except ValueError as caught:
            caught.add_note("told of")
    assert told.ends == [(error, 0) for error in errors]


@pytest.mark.parametrize("leave", ["break", "end"])
def test_a_loop_without_an_exception_has_none(leave: str) -> None:
    told = Told()
    for _ in told.steps():
        if leave == "break":
            break
    assert told.ends == [(None, 1)] * (1 if leave == "break" else 3)
