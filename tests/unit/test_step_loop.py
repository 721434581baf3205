"""How the loop of a fit is told to have ended, with a stand-in for Keras' iterator and its fit."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kerasmemwatch.watch import step_loop
from kerasmemwatch.watch.step_loop import tell_how_loops_end


class EpochIterator:
    """Ends quietly where the data end, as Keras' does."""

    def __init__(self, at_end: Callable[[], None] = lambda: None) -> None:
        self.at_end = at_end

    @contextmanager
    def catch_stop_iteration(self) -> Iterator[None]:
        try:
            yield
        except StopIteration:
            self.at_end()


class Told:
    def __init__(self) -> None:
        self.calls: list[bool] = []

    def end(self, error: BaseException | None, iterator: Any) -> None:
        assert isinstance(iterator, EpochIterator)
        self.calls.append(error is not None)


def fit(epoch_iterator: EpochIterator, begin: Callable[[], object], *epochs: BaseException | None) -> None:
    begin()
    for error in epochs:
        with epoch_iterator.catch_stop_iteration():
            if error is not None:
                raise error


def begin(*told: Told, every_epoch: bool = True) -> Callable[[], object]:
    return lambda: [tell_how_loops_end(one.end, every_epoch=every_epoch) for one in told]


def patches(iterator: Any) -> bool:
    return "catch_stop_iteration" in vars(iterator)


def test_each_epoch_is_told() -> None:
    told = Told()
    fit(EpochIterator(), begin(told), None, StopIteration(), None)
    assert told.calls == [False, False, False]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), MemoryError()])
def test_an_exception_is_told_and_goes_on_unchanged(error: BaseException) -> None:
    def raised(begin: Callable[[], object]) -> tuple[BaseException, list[str], Any]:
        try:
            fit(EpochIterator(), begin, None, error)
        except BaseException as caught:
            names = [entry.name for entry in traceback.extract_tb(caught.__traceback__)]
            caught.__traceback__ = None
            return caught, names, caught.__context__
        raise AssertionError("Nothing was raised.")

    told = Told()
    plain, watched = raised(lambda: None), raised(begin(told))
    assert watched == plain
    assert told.calls == [False, True]


def test_what_raises_as_the_data_end_is_no_step() -> None:
    def fail() -> None:
        raise OSError("of the data")

    told = Told()
    with pytest.raises(OSError, match="of the data") as caught:
        fit(EpochIterator(fail), begin(told), StopIteration())
    # It may have been a step's as far as that can be told; the recorder knows whether one was under way.
    assert told.calls == [True]
    files = [entry.filename for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert step_loop.__file__ not in files


def test_nothing_stays_on_the_iterator() -> None:
    iterator, told = EpochIterator(), Told()
    with pytest.raises(ValueError, match="x"):
        fit(iterator, begin(told), ValueError("x"))
    assert not patches(iterator)
    fit(iterator, begin(told, every_epoch=False), None)
    assert not patches(iterator)
    assert told.calls == [True, False]


def test_an_iterator_that_serves_again_is_told_once_each_time() -> None:
    iterator, told = EpochIterator(), Told()
    for _ in range(3):
        begin_twice = begin(told, told, every_epoch=False)  # the first of two begins that came to nothing
        fit(iterator, begin_twice, None)
    assert told.calls == [False] * 3


def test_two_watches_are_both_told() -> None:
    one, two = Told(), Told()
    with pytest.raises(ValueError, match="x"):
        fit(EpochIterator(), begin(one, two), None, ValueError("x"))
    assert one.calls == two.calls == [False, True]


def test_neither_the_watch_nor_the_data_are_kept() -> None:
    iterator, told = EpochIterator(), Told()
    gone = [weakref.ref(iterator), weakref.ref(told)]
    gc.disable()
    try:
        fit(iterator, begin(told))
        del told
        assert gone[1]() is None
        fit(iterator, lambda: None, None)
        del iterator
        assert gone[0]() is None
    finally:
        gc.enable()


def test_outside_of_a_loop_of_keras_there_is_nothing_to_tell_of() -> None:
    assert not tell_how_loops_end(Told().end, every_epoch=True)

    def fit(epoch_iterator: object) -> bool:
        return tell_how_loops_end(Told().end, every_epoch=True)

    assert not fit(object())
