"""Attributes are put back exactly, and functions stay out of tracebacks."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import ModuleType

import pytest

from kerasmemwatch.attribution.hooks.patching import leave_out, patched, unseen


class Base:
    inherited = 1


class Toy(Base):
    own = 2

    @staticmethod
    def static() -> int:
        return 3

    @classmethod
    def of_class(cls) -> int:
        return 4


@pytest.mark.parametrize("name", ["inherited", "own", "static", "of_class"])
def test_an_attribute_is_back_as_it_was(name: str) -> None:
    before = dict(vars(Toy))
    with patched(Toy, name, "other"):
        assert getattr(Toy, name) == "other"
    assert dict(vars(Toy)) == before
    assert all(value is before[key] for key, value in vars(Toy).items())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_it_is_back_after_an_exception(error: type[BaseException]) -> None:
    with pytest.raises(error), patched(Toy, "own", 9):
        raise error
    assert Toy.own == 2


def test_patches_nest() -> None:
    with patched(Toy, "own", 5), patched(Toy, "own", 6):
        assert Toy.own == 6
    assert Toy.own == 2


def test_a_module_has_attributes_too() -> None:
    module = ModuleType("module")
    module.x = 1  # type: ignore[attr-defined]
    with patched(module, "x", 2):
        assert module.x == 2  # type: ignore[attr-defined]
    assert vars(module)["x"] == 1


def test_what_is_not_there_is_not_made() -> None:
    with pytest.raises(AttributeError, match="absent"), patched(Toy, "absent", 1):
        pass
    assert "absent" not in vars(Toy)


def fails() -> None:
    raise ValueError("mine")


def between() -> None:
    with unseen:
        fails()


def often_between() -> None:
    try:
        fails()
    except ValueError as error:
        leave_out(error)
        raise


@pytest.mark.parametrize("function", [between, often_between])
def test_a_traceback_leaves_the_function_out(function: Callable[[], None]) -> None:
    with pytest.raises(ValueError, match="mine") as caught:
        function()
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)] == [
        "test_a_traceback_leaves_the_function_out",
        "fails",
    ]
    assert caught.value.__context__ is None


def test_an_error_that_was_not_raised_stays_as_it_is() -> None:
    error = ValueError("mine")
    leave_out(error)
    assert error.__traceback__ is None


def test_each_level_leaves_out_itself() -> None:
    ended = []

    def outer() -> None:
        with unseen:
            try:
                between()
            finally:
                ended.append(1)  # as hooks do, which end what they began

    with pytest.raises(ValueError, match="mine") as caught:
        outer()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names == ["test_each_level_leaves_out_itself", "fails"]
    assert ended


def test_without_an_exception_nothing_happens() -> None:
    with unseen:
        value = 1
    assert value == 1
