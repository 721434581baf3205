"""The truth about the gallery's programs is whole. ``benchmarks/leaks.py`` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from leaks.gallery import PROGRAMS
from leaks.kit import CAUSES, in_partial_count, is_held_out

HERE = Path(__file__).parent
LEAKS = [program for program in PROGRAMS.values() if program.leaks]


@pytest.mark.parametrize("program", LEAKS, ids=lambda program: program.name)
def test_the_truth_about_a_leak_is_whole(program: object) -> None:
    assert program.fix and set(program.causes) <= set(CAUSES)
    file, lines = program.place
    source = (HERE / file).read_text().splitlines()
    assert all(source[line - 1].endswith("# leak") for line in lines)
    # What the user's own code holds has a line.
    assert lines or program.causes[0] not in ("retained_tensors", "retained_arrays", "python_objects", "retracing")


def test_there_are_enough_of_both_and_a_half_is_held_out() -> None:
    originals = [program for program in PROGRAMS.values() if not program.name.endswith("_never_collecting")]
    for leaks in (True, False):
        names = [program.name for program in originals if program.leaks == leaks]
        assert len(names) >= 45
        assert 0.4 < sum(map(is_held_out, names)) / len(names) < 0.6
    assert 0.25 < sum(map(in_partial_count, PROGRAMS)) / len(PROGRAMS) < 0.42


def test_every_marked_line_belongs_to_a_leak() -> None:
    marked = {
        (path.name, number)
        for path in HERE.glob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.endswith("  # leak")
    }
    assert marked == {(program.place[0], line) for program in LEAKS for line in program.place[1]}


def test_an_innocent_program_has_a_twin_that_never_collects() -> None:
    names = {program.name for program in PROGRAMS.values() if not program.leaks}
    twins = {name for name in names if name.endswith("_never_collecting")}
    assert {f"{name}_never_collecting" for name in names - twins} == twins
    assert all(is_held_out(twin) == is_held_out(twin.removesuffix("_never_collecting")) for twin in twins)
