"""Where chunks begin, and how large they can be at most."""

from __future__ import annotations

import pytest

from kerasmemwatch.attribution.events.chunk_addresses import ChunkPlaces, chunk_bytes

REGION = 1 << 30


@pytest.mark.parametrize(("requested", "least"), [(0, 0), (1, 256), (256, 256), (257, 512)])
def test_a_chunk_is_a_multiple(requested: int, least: int) -> None:
    assert chunk_bytes(requested) == least


def test_each_region_has_its_own_beginning() -> None:
    places = ChunkPlaces([REGION, REGION * 2 + 64])
    assert places.may_begin(REGION + 512)
    assert not places.may_begin(REGION + 512 + 64)
    assert places.may_begin(REGION * 2 + 512 + 64)
    # Between them may be others, that nobody knows.
    assert places.may_begin(REGION + (REGION >> 1) + 128)
    assert not places.may_begin(REGION * 4)
    assert (places.begins(REGION + 512), places.begins(REGION + 512 + 64)) == (True, False)
    assert places.begins(REGION + (REGION >> 1) + 128) is None


def test_without_any_known_chunk_all_is_possible() -> None:
    places = ChunkPlaces([])
    assert places.may_begin(77)
    assert places.room_behind(77, 1000) is None


@pytest.mark.parametrize(("behind", "room"), [(1024, 0), (1024 + 256, 256), (1 << 20, (1 << 20) - 1024), (512, 0)])
def test_a_chunk_ends_where_something_else_begins(behind: int, room: int) -> None:
    assert ChunkPlaces([REGION, REGION + behind]).room_behind(REGION, 1000) == room
    assert ChunkPlaces([REGION], [REGION + behind]).room_behind(REGION, 1000) == room


def test_without_an_address_it_is_unknown() -> None:
    assert ChunkPlaces([REGION]).room_behind(0, 5000) is None
