"""The turns of a list of callbacks, and that the list is as it was."""

from __future__ import annotations

import gc
import traceback
from typing import Any

import pytest

from kerasmemwatch.attribution.hooks.callback_turns import CallbackTurns


class Callbacks:
    """As Keras' list: it goes through ``callbacks`` in each of its calls."""

    def __init__(self, *callbacks: Any) -> None:
        self.callbacks = list(callbacks)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> str:
        for callback in self.callbacks:
            callback(epoch)
        return "done"

    def on_train_begin(self, logs: Any = None) -> None:
        for callback in self.callbacks:
            callback(-1)


def noted(some: Callbacks) -> tuple[CallbackTurns, list[Any]]:
    happened: list[Any] = []
    turns = CallbackTurns(some, happened.append, lambda: happened.append("failed"))
    turns.install()
    return turns, happened


def test_each_turn_is_told_and_the_call_is_as_before() -> None:
    first, second = (lambda epoch: None), (lambda epoch: None)
    some = Callbacks(first, second)
    before = some.callbacks
    turns, happened = noted(some)
    assert some.on_epoch_end(3, logs={}) == "done"
    some.on_train_begin()
    assert happened == [first, second, None] * 2
    assert some.callbacks is before
    turns.remove()
    assert vars(some) == {"callbacks": before}
    some.on_epoch_end(4)
    assert len(happened) == 6


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_exception_is_told_and_shows_no_frame_of_ours(kind: type[BaseException]) -> None:
    def fail(epoch: int) -> None:
        raise kind("of a callback")

    some = Callbacks(fail)
    before = some.callbacks
    turns, happened = noted(some)
    with pytest.raises(kind) as raised:
        some.on_epoch_end(1)
    assert happened == [fail, "failed", None]
    assert some.callbacks is before
    assert [entry.name for entry in traceback.extract_tb(raised.tb)][1:] == ["on_epoch_end", "fail"]
    turns.remove()
    assert vars(some) == {"callbacks": before}


def test_a_callback_that_changes_the_list_has_changed_it() -> None:
    some = Callbacks()
    added = lambda epoch: None  # noqa: E731
    some.callbacks.append(lambda epoch: some.callbacks.append(added) if len(some.callbacks) < 2 else None)
    before = some.callbacks
    noted(some)
    some.on_epoch_end(1)
    assert some.callbacks is before
    assert before[1] is added


def test_what_others_have_put_on_the_list_stays() -> None:
    some = Callbacks()
    theirs = some.on_epoch_end = lambda epoch: "theirs"  # type: ignore[method-assign,assignment,misc]
    turns, happened = noted(some)
    assert some.on_epoch_end(1) == "theirs"
    assert happened == []
    later = some.on_train_begin = lambda: None  # type: ignore[method-assign,assignment,misc]
    turns.remove()
    assert vars(some) == {"callbacks": [], "on_epoch_end": theirs, "on_train_begin": later}


def test_the_list_is_not_kept() -> None:
    gc.disable()
    try:
        died: list[str] = []

        class Mine(Callbacks):
            def __del__(self) -> None:
                died.append("list")

        some = Mine()
        turns, _ = noted(some)
        some.on_epoch_end(1)
        del some
        assert died == ["list"]
        turns.remove()
    finally:
        gc.enable()
