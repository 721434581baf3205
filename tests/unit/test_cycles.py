"""Which cycle of the user's is found among what Python's collector frees."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kerasmemwatch.leaks.evidence.collector import collect
from kerasmemwatch.leaks.evidence.cycles import Cycle


class Bound:
    def __init__(self) -> None:
        self.value = bytearray(10)
        self.callback: Any = self.show  # a bound method

    def show(self) -> Any:
        return self.value


class Parent:
    def __init__(self) -> None:
        self.name = "parent"
        self.children: list[Any] = []
        self.children.append(Child(self))  # a child that knows its parent


class Child:
    def __init__(self, parent: Any) -> None:
        self.parent = parent  # the way back


class Later:
    def __init__(self) -> None:
        self.me: Any = None


class Plain:
    def __init__(self) -> None:
        self.value = 1


def bound() -> None:
    Bound()


def parents() -> None:
    Parent()


def assigned_elsewhere() -> None:
    later = Later()
    later.me = later


def recursive() -> None:
    def visit(depth: int) -> Any:  # a function that calls itself
        return depth and visit(depth - 1)

    visit(1)


def keeps_its_exception() -> None:
    error: Any = None
    try:
        raise ValueError  # and keeps it
    except ValueError as raised:
        error = raised
    assert error is not None


@pytest.fixture
def off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def found(make: Callable[[], None], times: int, monkeypatch: pytest.MonkeyPatch) -> Cycle | None:
    for _ in range(times):
        make()
    monkeypatch.setattr(gc, "isenabled", lambda: True)
    collected = collect([], is_host=False)
    assert collected is not None and not gc.garbage and not gc.get_debug()
    assert not any(type(each) in (Bound, Parent, Child, Later, Plain) for each in gc.get_objects())  # all were freed
    return collected.cycle


@pytest.mark.usefixtures("off")
@pytest.mark.parametrize(
    ("make", "what", "attribute", "comment"),
    [
        (bound, "objects of class Bound", "callback", "# a bound method"),
        (assigned_elsewhere, "objects of class Later", "me", None),
        (recursive, "functions named visit that hold themselves", "", "# a function that calls itself"),
        (keeps_its_exception, "calls of keeps_its_exception that an exception of their own keeps", "", None),
    ],
)
def test_the_line_that_makes_a_cycle_is_found(
    make: Any, what: str, attribute: str, comment: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycle = found(make, 20, monkeypatch)
    assert cycle is not None and (cycle.what, cycle.count, cycle.attribute) == (what, 20, attribute)
    assert cycle.place.file == __file__
    if comment is not None:
        assert cycle.place.source.endswith(comment)
    else:
        lines, first = inspect.getsourcelines(Later if make is assigned_elsewhere else make)
        assert first <= cycle.place.line < first + len(lines)


@pytest.mark.usefixtures("off")
def test_either_side_of_a_cycle_of_two_classes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cycle = found(parents, 20, monkeypatch)
    assert cycle is not None and cycle.attribute in ("children", "parent")
    assert cycle.place.source.endswith(("# a child that knows its parent", "# the way back"))


@pytest.mark.usefixtures("off")
def test_few_of_the_users_among_many_others_are_not_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def others() -> None:
        bound()
        for _ in range(50):
            many: list[Any] = []
            many.append(many)

    assert found(others, 20, monkeypatch) is None


@pytest.mark.usefixtures("off")
def test_what_a_cycle_only_holds_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def held() -> None:
        many: list[Any] = [Plain()]
        many.append(many)

    assert found(held, 20, monkeypatch) is None


@pytest.mark.usefixtures("off")
def test_cycles_need_not_be_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        bound()
    monkeypatch.setattr(gc, "isenabled", lambda: True)
    collected = collect([], is_host=False, cycles=False)
    assert collected is not None and collected.cycle is None and collected.num_objects >= 20


@pytest.mark.usefixtures("off")
def test_what_the_user_keeps_in_gc_garbage_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = object()
    gc.garbage.append(mine)
    try:
        for _ in range(5):
            bound()
        monkeypatch.setattr(gc, "isenabled", lambda: True)
        collected = collect([], is_host=False)
        assert collected is not None and collected.cycle is not None
        assert gc.garbage == [mine]
    finally:
        gc.garbage.clear()
