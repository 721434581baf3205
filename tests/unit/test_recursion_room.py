from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from kerasmemwatch.attribution.hooks.recursion_room import RecursionRoom


@pytest.fixture(autouse=True)
def _limit_is_put_back() -> Iterator[None]:
    before = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(before)


def test_room_grows_with_the_depth_and_is_given_back() -> None:
    before = sys.getrecursionlimit()
    with RecursionRoom() as room:
        assert sys.getrecursionlimit() == before
        room.reserve(10)
        ten = sys.getrecursionlimit()
        room.reserve(5)
        assert sys.getrecursionlimit() == ten > before
        room.reserve(20)
        assert sys.getrecursionlimit() > ten
    assert sys.getrecursionlimit() == before


def test_room_is_given_back_after_an_exception() -> None:
    before = sys.getrecursionlimit()
    with suppress(KeyError), RecursionRoom() as room:
        room.reserve(10)
        raise KeyError
    assert sys.getrecursionlimit() == before


def test_a_limit_that_somebody_else_sets_stays() -> None:
    others = sys.getrecursionlimit() + 5_000
    with RecursionRoom() as room:
        room.reserve(10)
        sys.setrecursionlimit(others)
        room.reserve(10_000)
        assert sys.getrecursionlimit() == others
    assert sys.getrecursionlimit() == others
