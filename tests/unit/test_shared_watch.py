"""When the shared watch joins and when it stays away, with stand-ins for Keras."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any, ClassVar

import pytest

from kerasmemwatch.commands.run.shared_watch import SharedWatch


class FakeWatch:
    """A MemoryWatch that only remembers."""

    made: ClassVar[list[FakeWatch]] = []

    def __init__(self, log_dir: str = "logs", *, verbose: object = "auto") -> None:
        if log_dir == "bad":
            raise OSError("bad log dir")
        self.active = False
        self.params: object = None
        self.calls: list[object] = [log_dir, verbose]
        self.made.append(self)

    def set_params(self, params: object) -> None:
        self.params = params
        self.calls.append(params)

    def set_model(self, model: object) -> None:
        self._model = model
        self.calls.append(repr(model))

    @contextmanager
    def batch(self, model: object, stage: str) -> Any:
        self.calls.append((model, stage))
        yield


class Model:
    """Something that a weak reference can point to."""

    def __repr__(self) -> str:
        return "Model"


class FakeList:
    """A CallbackList as far as it matters."""

    def __init__(self, *callbacks: object, model: object = Model()) -> None:
        self.callbacks = list(callbacks)
        self.params = {"epochs": 1}
        if model:
            self._model = model


@pytest.fixture(autouse=True)
def watches(monkeypatch: pytest.MonkeyPatch) -> list[FakeWatch]:
    module = ModuleType("kerasmemwatch.watch.memory_watch")
    module.MemoryWatch = FakeWatch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kerasmemwatch.watch.memory_watch", module)
    monkeypatch.setattr(FakeWatch, "made", [])
    return FakeWatch.made


def here() -> FrameType:
    """The frame of the caller, which these tests take for a loop of Keras."""
    return sys._getframe(1)


def outside() -> SharedWatch:
    return SharedWatch("logs", {"trainer.py"})


def inside() -> SharedWatch:
    return SharedWatch("logs", {__file__})


def test_joins_first_and_is_made_once(watches: list[FakeWatch]) -> None:
    shared, first, second = outside(), FakeList("theirs"), FakeList()
    shared.join(first, here())
    shared.join(first, here())
    shared.join(second, here())
    [watch] = watches
    assert (first.callbacks, second.callbacks) == ([watch, "theirs"], [watch])
    assert watch.calls == ["logs", 0, {"epochs": 1}, "Model", {"epochs": 1}, "Model"]


@pytest.mark.parametrize("nested", [False, True])
def test_stays_away_from_a_list_with_a_watch(nested: bool, watches: list[FakeWatch]) -> None:
    own = FakeWatch()
    callbacks = FakeList(FakeList("theirs", own) if nested else own)
    outside().join(callbacks, here())
    assert len(callbacks.callbacks) == 1
    assert watches == [own]


def test_list_without_a_model_is_left_alone() -> None:
    callbacks = FakeList(model=None)
    outside().join(callbacks, here())
    assert callbacks.callbacks == []


def test_batch_is_recorded(watches: list[FakeWatch]) -> None:
    with outside().batch("model", here(), stage="predict"):
        pass
    assert watches[0].calls == ["logs", 0, ("model", "predict")]


def test_batch_after_a_fit_that_raised_begins_anew(watches: list[FakeWatch]) -> None:
    shared = outside()
    shared.join(FakeList(), here())
    watches[0].active = True
    watches[0].calls.clear()
    with shared.batch("model", here(), stage="train"):
        pass
    assert watches[0].calls == [{"epochs": 1}, ("model", "train")]


def test_nothing_is_added_inside_a_watched_call(watches: list[FakeWatch]) -> None:
    shared, own, nested = inside(), FakeWatch(), FakeList()
    shared.join(FakeList(own), here())
    own.active = True

    def predict() -> None:
        shared.join(nested, here())

    predict()
    with shared.batch("model", here(), stage="train"):
        pass
    assert nested.callbacks == []
    assert watches == [own]


def test_nothing_is_added_in_another_thread_of_a_watched_call(watches: list[FakeWatch]) -> None:
    shared, own, nested = inside(), FakeWatch(), FakeList()
    shared.join(FakeList(own), here())
    own.active = True
    thread = threading.Thread(target=shared.join, args=(nested, sys._getframe(1)))
    thread.start()
    thread.join()
    assert nested.callbacks == []


def test_watch_left_active_by_a_fit_that_raised_does_not_stop_later_ones(watches: list[FakeWatch]) -> None:
    shared, later = outside(), FakeList()
    shared.join(FakeList(), here())
    watches[0].active = True
    shared.join(later, here())
    assert later.callbacks == watches


def test_forked_child_has_its_own(watches: list[FakeWatch], monkeypatch: pytest.MonkeyPatch) -> None:
    shared, in_child = inside(), FakeList()
    shared.join(FakeList(), here())
    watches[0].active = True
    monkeypatch.setattr(os, "getpid", lambda: 0)
    shared.join(in_child, here())
    assert in_child.callbacks == watches[1:]


def test_fault_is_told_once_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    shared, callbacks = SharedWatch("bad", set()), FakeList("theirs")
    with caplog.at_level(logging.WARNING):
        shared.join(callbacks, here())
        with shared.batch("model", here(), stage="train"):
            pass
    assert callbacks.callbacks == ["theirs"]
    assert [record.getMessage() for record in caplog.records] == ["Training is not recorded."]
