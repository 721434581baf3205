"""Room for deep calls changes nothing of what is called."""

from __future__ import annotations

import traceback

import pytest

from kerasmemwatch.attribution.stack_room import with_room


def test_it_calls_with_all_arguments() -> None:
    assert with_room(lambda *args, **kwargs: (args, kwargs), [1, 2], {"three": 3}) == ((1, 2), {"three": 3})


def test_calls_may_go_deep_and_nest() -> None:
    def depth(left: int) -> int:
        return left and 1 + (with_room(depth, (left - 1,), {}) if left % 50 == 0 else depth(left - 1))

    assert with_room(depth, (300,), {}) == 300


def test_it_is_in_no_traceback() -> None:
    def fails() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        with_room(fails, (), {})
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names == ["test_it_is_in_no_traceback", "fails"]
