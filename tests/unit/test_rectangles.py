"""Buffers as rectangles: how long, how high, where, and what becomes of those that are not drawn."""

from __future__ import annotations

import numpy as np
import pytest
from timelines import MADE, STEP, alive, realistic_step, timeline

from kerasmemwatch.reports.figures.rectangles import allocation_rectangles, slots

BIG = realistic_step().timeline


@pytest.mark.parametrize("made", [STEP, *MADE], ids=range(len(MADE) + 1))
def test_each_buffer_is_there_once(made) -> None:
    found = allocation_rectangles(made)
    expected = np.flatnonzero(made.requested_bytes > 0)
    assert sorted(found.index.tolist()) == expected.tolist() and found.num_rest == 0
    assert found.begin.tolist() == (made.birth[found.index] + 1).tolist()
    assert found.end.tolist() == (made.death[found.index] + 1).tolist()
    assert (found.high - found.low).tolist() == made.requested_bytes[found.index].tolist()
    assert not found.rest_bytes.any()


@pytest.mark.parametrize("most", [1, 10, 1000])
@pytest.mark.parametrize("window", [None, (0, 1), (49_000, 51_000), (99_000, 100_001)])
def test_the_drawn_and_the_rest_are_all_that_lives(most: int, window: tuple[int, int] | None) -> None:
    found = allocation_rectangles(BIG, window, 700, most=most)
    first, stop = found.window
    lives = np.flatnonzero((BIG.birth + 1 < stop) & (BIG.death + 1 > first) & (BIG.requested_bytes > 0))
    assert len(found.index) + found.num_rest == len(lives)
    rest = np.setdiff1d(lives, found.index)
    smallest = BIG.requested_bytes[found.index].min(initial=2**62)
    assert not len(rest) or BIG.requested_bytes[rest].max() <= smallest
    assert len(found.rest_bytes) == len(found.rest_at) - 1 <= 700
    for begin, end, most_alive in list(zip(found.rest_at, found.rest_at[1:], found.rest_bytes, strict=False))[::97]:
        each = [
            BIG.requested_bytes[rest][(BIG.birth[rest] < moment) & (BIG.death[rest] >= moment)].sum()
            for moment in range(begin, end)
        ]
        assert most_alive == max(each)


@pytest.mark.parametrize(
    ("window", "expected"),
    [((-5, 3), (0, 3)), ((2, 99), (2, 6)), ((4, 4), (4, 5)), ((99, 200), (5, 6)), ((3, 1), (3, 4))],
)
def test_a_window_is_kept_within_the_step(window: tuple[int, int], expected: tuple[int, int]) -> None:
    assert allocation_rectangles(STEP, window).window == expected


def test_unused_addresses_are_left_out_and_order_is_kept() -> None:
    made = timeline(
        [
            (100, 0, 2, "a", "weights", "forward", ""),
            (50, 1, 2, "a", "weights", "forward", ""),
            (30, 0, 1, "a", "weights", "forward", ""),
        ],
        2,
        address=np.array([2**46, 2**40, 2**40 + 40], np.uint64),
    )
    found = allocation_rectangles(made)
    where = {
        int(index): (int(low), int(high)) for index, low, high in zip(found.index, found.low, found.high, strict=True)
    }
    assert where == {1: (0, 50), 2: (40, 70), 0: (70, 170)}


@pytest.mark.parametrize("seed", range(20))
def test_buffers_without_an_address_never_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    begin = rng.integers(0, 50, 80)
    end = begin + rng.integers(1, 30, 80)
    sizes = rng.integers(1, 100, 80)
    low = slots(sizes, begin, end)
    high = low + sizes
    for i in range(80):
        for j in range(i):
            together = begin[i] < end[j] and begin[j] < end[i]
            assert not together or high[i] <= low[j] or high[j] <= low[i]
    # A slot is used again: it is never as if each had its own.
    assert high.max() < sizes.sum()


def test_without_addresses_the_height_is_close_to_what_is_alive() -> None:
    found = allocation_rectangles(
        STEP.__class__(**{**vars(STEP), "address": np.zeros(STEP.num_allocations, np.uint64)})
    )
    highest = max(sum(STEP.requested_bytes[alive(STEP, event)]) for event in range(-1, STEP.num_events))
    assert highest <= found.high.max() <= 2 * highest


def test_only_the_asked_for_are_drawn() -> None:
    mine = np.arange(STEP.num_allocations) == 2
    assert allocation_rectangles(STEP, mine=mine).index.tolist() == [2]
