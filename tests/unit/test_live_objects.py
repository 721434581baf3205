"""What is alive, found among all objects: every one of a kind, and none that is gone."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from kerasmemwatch.attribution.variables import live_objects as live
from kerasmemwatch.attribution.variables.live_objects import Census, live_objects

WAIT_S = 60
follows = pytest.mark.skipif(sys.version_info >= (3, 14), reason="generations are others")


class Buffer:
    """To be found."""


class Part(Buffer):
    """To be found under another kind."""


class Slotted:
    """To be found, though nothing can refer to it weakly."""

    __slots__ = ("part",)


def kind(of: type) -> str:
    return {Buffer: "buffer", Part: "part", Slotted: "slotted"}.get(of, "")


class Comparing(type):
    """Compares its classes, which have no hash then."""

    def __eq__(cls, other: object) -> bool:
        return cls is other


class Compared(metaclass=Comparing):
    """Not to be found."""


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def ids(found: dict[str, list[object]]) -> dict[str, list[int]]:
    return {name: sorted(map(id, objects)) for name, objects in found.items() if objects}


def test_objects_whose_class_has_no_hash_are_left_out() -> None:
    kept, _compared = [Buffer()], [Compared()]
    assert ids(live_objects(kind)) == {"buffer": [id(kept[0])]}


def test_each_class_is_asked_for_once() -> None:
    kept, asked = [Buffer(), Buffer(), Part()], []

    def kind_of(of: type) -> str:
        asked.append(of)
        return kind(of)

    found = live_objects(kind_of)
    assert ids(found) == {"buffer": sorted(map(id, kept[:2])), "part": [id(kept[2])]}
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("promotes", [False, True])
def test_a_census_finds_what_came_and_not_what_went(promotes: bool) -> None:
    old = [Buffer(), Part()]
    gc.collect()  # those are in the oldest generation
    young = [Buffer()]
    census = Census(kind)
    assert ids(census.again()) == {"buffer": sorted(map(id, [old[0], young[0]])), "part": [id(old[1])]}
    gone = weakref.ref(old.pop(0))
    assert gone() is None  # nothing keeps it
    young.append(Part())
    if promotes:
        gc.collect(1)
        young.append(Buffer())
    assert ids(census.again()) == ids(live_objects(kind))
    assert sum(map(len, census.again().values())) == len(old) + len(young)


def test_looking_keeps_nothing_alive() -> None:
    census, young = Census(kind), Buffer()
    assert census.again()["buffer"] == census.young()["buffer"] == live_objects(kind)["buffer"] == [young]
    gone = weakref.ref(young)
    del young
    assert gone() is None


def test_a_census_finds_what_cannot_be_referred_to_weakly() -> None:
    slotted, old = Slotted(), Buffer()
    gc.collect()
    census = Census(kind)
    new = Buffer()
    assert ids(census.again()) == {"slotted": [id(slotted)], "buffer": sorted(map(id, [old, new]))}


@follows
def test_a_census_does_not_look_at_all_objects_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Buffer()
    gc.collect()
    census = Census(kind)
    looked: list[object] = []
    objects = gc.get_objects
    monkeypatch.setattr(gc, "get_objects", lambda *generation: looked.extend(generation) or objects(*generation))
    assert census.again()["buffer"] == [kept]
    assert looked == [0, 1]
    assert census.left("buffer") == [kept] and looked == [0, 1]
    new = Buffer()
    assert census.young()["buffer"] == [new]
    for _ in range(2):
        gc.collect()  # Python promotes it
    assert ids(census.again()) == {"buffer": sorted(map(id, [kept, new]))}
    assert set(looked) == {0, 1} and census.is_current


@follows
def test_a_census_that_notes_too_many_looks_at_all_again(monkeypatch: pytest.MonkeyPatch) -> None:
    census = Census(kind)
    monkeypatch.setattr(live, "_MAX_NOTED", 202)
    kept = [Buffer(), Buffer()]
    gc.collect()
    assert census.is_current
    kept.append(Buffer())
    gc.collect()
    assert not census.is_current
    assert ids(census.again()) == {"buffer": sorted(map(id, kept))}


@follows
def test_a_fault_while_python_collects_is_no_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    kept, broken = Buffer(), False

    def kind_of(of: type) -> str:
        if broken:
            raise ZeroDivisionError
        return kind(of)

    census = Census(kind_of)
    broken = True
    gc.collect()
    broken = False
    assert not census.is_current and capsys.readouterr().err == ""
    assert census.again()["buffer"] == [kept]


@follows
@pytest.mark.parametrize("emptied", [False, True])
def test_a_census_that_is_gone_is_not_called(emptied: bool) -> None:
    before = gc.callbacks[:]
    census = Census(kind)
    assert len(gc.callbacks) == len(before) + 1
    if emptied:
        gc.callbacks[:] = before
    del census
    assert gc.callbacks == before


def test_another_thread_may_be_in_the_middle_of_a_tuple() -> None:
    begun, searching = threading.Event(), threading.Event()
    made: list[object] = []

    def items() -> Iterator[list[int]]:
        # As many as it takes for Python to resize the tuple, which it does only if nobody else has it.
        yield from ([number] for number in range(20))
        begun.set()
        searching.wait(WAIT_S)

    def build() -> None:
        try:
            made.append(tuple(items()))
        except SystemError as error:
            made.append(error)

    thread = threading.Thread(target=build)

    def kind_of(_: type) -> str:
        searching.set()
        thread.join(WAIT_S)
        return ""

    thread.start()
    assert begun.wait(WAIT_S)
    live_objects(kind_of)
    assert made == [tuple([number] for number in range(20))]
