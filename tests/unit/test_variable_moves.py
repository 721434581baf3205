"""A variable that a step moves from buffer to buffer is exactly one of them at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from captures import events

from kerasmemwatch.attribution.events.pairing import pair
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer, Sighting
from kerasmemwatch.attribution.owners.variable_moves import VariablePlaces, variable_places

OLD, BETWEEN, NEW, ELSEWHERE = 256, 4096, 8192, 65_536
KERNEL = KnownBuffer("a", "Dense", "weights", 1024, address=NEW, key=1, trainable=True, before=OLD)
SLOT = replace(KERNEL, owner="b", category="optimizer", key=2)
ASSIGN = "StatefulPartitionedCall/adam/AssignVariableOp"


def places(
    lines: Sequence[Any],
    *known: KnownBuffer,
    assigned: dict[str, KnownBuffer] | None = None,
    sightings: Sequence[Sighting] = (),
) -> VariablePlaces:
    made = events(lines)
    return variable_places(made, pair(made), known, assigned, sightings)


def lives(found: VariablePlaces) -> list[tuple[int, int, str]]:
    """From when until when which variable is in a buffer that has an event, in order."""
    return sorted((part.begin, part.end, part.buffer.owner) for part in found.parts)


def lasting(found: VariablePlaces) -> list[list[tuple[int, int, str]]]:
    return [[(part.begin, part.end, part.buffer.owner) for part in each.parts] for each in found.lasting]


def test_the_new_buffer_is_the_variable_when_the_old_one_dies() -> None:
    found = places([(NEW, 1024, "adam/mul"), (512, 256), (OLD, -1024), (512, -256)], KERNEL)
    assert lives(found) == [(-1, 2, "a"), (2, 4, "a")]
    assert [part.row for part in found.parts] == [2, 0]
    assert found.lasting == ()


def test_the_old_buffer_is_told_by_where_it_lay_and_not_by_its_size() -> None:
    # What dies first is as large, and no variable's.
    found = places([(NEW, 1024), (12_288, -1024), (OLD, -1024)], KERNEL)
    assert lives(found) == [(-1, 2, "a"), (2, 3, "a")]


def test_where_a_variable_is_only_after_the_step_is_no_place_in_it() -> None:
    # Another fit goes on while places are looked up.
    moved = replace(KERNEL, address=ELSEWHERE)
    found = places([(BETWEEN, 1024, ASSIGN), (OLD, -1024)], moved, assigned={"adam/AssignVariableOp": KERNEL})
    assert lives(found) == [(-1, 1, "a"), (1, 2, "a")]
    assert lasting(found) == []


def test_a_variable_comes_back_to_where_it_was() -> None:
    lines = [(BETWEEN, 1024, ASSIGN), (OLD, -1024), (OLD, 1024), (BETWEEN, -1024)]
    found = places(lines, replace(KERNEL, address=OLD), assigned={"adam/AssignVariableOp": KERNEL})
    assert lives(found) == [(-1, 1, "a"), (1, 3, "a"), (3, 4, "a")]


def test_one_that_nobody_assigns_to_by_name_is_missed_no_longer_than_it_must() -> None:
    found = places([(OLD, -1024), (NEW, 1024)], KERNEL)
    assert lives(found) == [(-1, 0, "a"), (1, 2, "a")]


def test_a_variable_made_in_the_step_is_one_from_when_it_was_seen() -> None:
    made = replace(KERNEL, before=0)
    lines = [(BETWEEN, 1024, "zeros"), (12_288, 256), (NEW, 1024, "adam/mul"), (BETWEEN, -1024)]
    # Events are 10 ns apart, the first at 1,000.
    found = places(lines, made, sightings=[Sighting(made.key, BETWEEN, 1_015)])
    assert lives(found) == [(0, 3, "a"), (3, 4, "a")]


def test_slots_that_begin_in_one_buffer_are_one_until_each_has_its_own() -> None:
    first, second = replace(KERNEL, before=0), replace(SLOT, before=0, address=12_288)
    lines = [(BETWEEN, 1024, "zeros"), (NEW, 1024), (12_288, 1024), (BETWEEN, -1024)]
    seen = [Sighting(variable.key, BETWEEN, 1_005) for variable in (first, second)]
    found = places(lines, first, second, sightings=seen)
    assert lives(found) == [(0, 3, "a"), (3, 4, "a"), (3, 4, "b")]


def test_who_still_holds_the_old_buffer_has_it_from_then_on() -> None:
    held = KnownBuffer("eager tensors", "", "other", 1024, address=OLD)
    found = places([(512, 256), (NEW, 1024)], KERNEL, held)
    assert lives(found) == [(1, 2, "a")]
    assert lasting(found) == [[(-1, 1, "a"), (1, 2, "eager tensors")]]
    assert lasting(places([(512, 256), (NEW, 1024)], KERNEL)) == [[(-1, 1, "a"), (1, 2, "unattributed")]]


def test_a_variable_that_takes_over_a_constant() -> None:
    # As when gradients that were added up are set to zero.
    constant = KnownBuffer("functions", "", "other", 1024, address=ELSEWHERE, constant=True)
    zeroed = replace(KERNEL, address=ELSEWHERE)
    found = places([(512, 256), (OLD, -1024), (512, -256)], zeroed, constant)
    assert lives(found) == [(-1, 1, "a")]
    assert lasting(found) == [[(-1, 1, "functions"), (1, 3, "a")]]


def test_two_variables_in_one_buffer_are_one_buffer() -> None:
    one, other = replace(KERNEL, before=ELSEWHERE, address=ELSEWHERE), replace(SLOT, before=OLD, address=ELSEWHERE)
    found = places([(512, 256), (OLD, -1024)], one, other)
    assert lives(found) == [(-1, 1, "b")]
    assert lasting(found) == [[(-1, 2, "a")]]


def test_numbers_in_one_buffer_count_each() -> None:
    numbers = [replace(KERNEL, bytes=4, key=key, before=OLD, address=OLD) for key in (1, 2, 3)]
    assert lasting(places([(512, 256)], *numbers)) == [[(-1, 1, "a")]] * 3


def test_a_variable_whose_place_is_unknown_takes_nothing_elses() -> None:
    scattered = replace(KERNEL, address=0, before=0)
    # Of its size something dies and something stays, but not by an assignment to it.
    found = places([(NEW, 1024, "Relu"), (OLD, -1024)], scattered)
    assert lives(found) == []
    assert lasting(found) == [[(-1, 2, "a")]]


def test_what_is_larger_is_not_the_variable() -> None:
    found = places([(NEW, 4096), (OLD, -1024)], KERNEL)
    assert lives(found) == [(-1, 1, "a")]


@pytest.mark.parametrize("seed", range(30))
def test_each_variable_is_in_one_buffer_at_any_time(seed: int) -> None:
    """Steps made up at random: each variable moves some times, its old buffer dying later than the new one is born."""
    rng = np.random.default_rng(seed)
    lines, known, assigned, dying = list[Any](), list[KnownBuffer](), dict[str, KnownBuffer](), list[tuple[int, int]]()
    free = iter(range(1 << 16, 1 << 24, 8192))
    for key in range(1, 9):
        size, address = int(rng.choice([512, 1024, 4096])), next(free)
        variable = KnownBuffer(f"v{key}", "", "weights", size, address, key, before=address)
        for number in range(int(rng.integers(3))):
            new = next(free)
            name = f"step/assign_{key}_{number}"
            lines.append((new, size, name))
            dying.append((address, size))
            if rng.random() < 0.5:
                lines += [(place, -size) for place, size in dying]
                dying.clear()
            assigned[name], address = variable, new
        known.append(replace(variable, address=address))
        lines.append((next(free), size, "temporary"))
    lines += [(place, -size) for place, size in dying]
    made = events(lines)
    found = variable_places(made, pair(made), known, assigned)
    parts = [*found.parts, *(part for each in found.lasting for part in each.parts)]
    for event in range(-1, len(made)):
        alive = sorted(part.buffer.owner for part in parts if part.begin <= event < part.end)
        assert alive == [f"v{key}" for key in range(1, 9)]
