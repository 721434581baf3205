"""Births and deaths are paired by address."""

from __future__ import annotations

import numpy as np
import pytest
from captures import events, random_lines

from kerasmemwatch.attribution.events.pairing import pair


def pairs(lines: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    rows = pair(events(lines))
    return list(zip(rows.birth.tolist(), rows.death.tolist(), rows.event.tolist(), strict=True))


def test_each_birth_ends_with_the_next_death_at_its_address() -> None:
    assert pairs([(256, 10), (512, 20), (512, -20), (256, -10)]) == [(0, 3, 0), (1, 2, 1)]


def test_an_address_is_used_again_and_again() -> None:
    assert pairs([(256, 1), (256, -1), (256, 2), (256, -2), (256, 3)]) == [(0, 1, 0), (2, 3, 2), (4, 5, 4)]


def test_what_dies_without_a_birth_was_there_before() -> None:
    assert pairs([(256, -10), (512, 20)]) == [(1, 2, 1), (-1, 0, 0)]


def test_a_death_that_was_missed_is_where_its_address_is_used_again() -> None:
    assert pairs([(256, 10), (256, 20), (256, -20)]) == [(0, 1, 0), (1, 2, 1)]


def test_a_second_death_at_an_address_is_a_row_of_its_own() -> None:
    assert pairs([(256, 10), (256, -10), (256, -10)]) == [(0, 1, 0), (-1, 2, 2)]


def test_nothing_is_paired_to_nothing() -> None:
    assert pairs([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_the_rows_add_up_to_what_the_allocator_says_at_every_event(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = events(random_lines(rng, int(rng.integers(1, 400))))
    rows = pair(found)
    # Each event is the birth or the death of one row.
    ends = [*rows.birth[rows.birth >= 0].tolist(), *rows.death[rows.death < len(found)].tolist()]
    assert sorted(ends) == list(range(len(found)))
    assert (rows.birth < rows.death).all()
    reserved = found.reserved_bytes[rows.event]
    before = found.in_use_before_bytes - int(reserved[rows.birth < 0].sum())
    for event in range(len(found)):
        alive = (rows.birth <= event) & (rows.death > event)
        assert before + int(reserved[alive].sum()) == int(found.in_use_bytes[event])


@pytest.mark.parametrize("seed", range(10))
def test_with_lost_deaths_an_address_is_never_held_twice(seed: int) -> None:
    found = events(random_lines(np.random.default_rng(seed), 300, lost=0.2))
    rows = pair(found)
    address = found.address[rows.event]
    for event in range(len(found)):
        alive = address[(rows.birth <= event) & (rows.death > event)]
        born = alive[np.isin(alive, address[rows.birth >= 0])]
        assert len(set(born.tolist())) == len(born)
