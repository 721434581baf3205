"""A plain run and its complement take every test once."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from variants import pytest_collection_modifyitems

FAST = [f"tests/unit/test_a.py::test_many[{number}]" for number in range(40)]
FEW = [f"tests/fault/test_b.py::test_few[{number}]" for number in range(2)]
MANY = [
    f"tests/integration/test_c.py::test_many[{kind}-{mode}]"
    for kind in "abcdefghijklmnopqrst"
    for mode in ("eager", "graph")
]
LONG = [f"tests/integration/test_{file}.py::test_long" for file in "defghijk"]


@dataclass(frozen=True)
class Item:
    nodeid: str

    def get_closest_marker(self, name: str) -> str | None:
        return name if name == "long" and self.nodeid in LONG else None


def chosen(which: str, turn: int | None = None) -> set[str]:
    items: list[Any] = [Item(name) for name in (*FAST, *FEW, *MANY, *LONG)]
    gone: list[Any] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: gone.extend(items))
    config: Any = SimpleNamespace(option=SimpleNamespace(variants=which, turn=turn), hook=hook)
    every = {each.nodeid for each in items}
    pytest_collection_modifyitems(config, items)
    left = {each.nodeid for each in items}
    assert left | {each.nodeid for each in gone} == every and not left & {each.nodeid for each in gone}
    return left


def test_a_plain_run_takes_the_first_variant_and_a_few_others() -> None:
    some = chosen("some")
    assert {*FAST, FEW[0], MANY[0]} <= some and not some & set(LONG)
    drawn = some & set(MANY)
    assert 2 <= len(drawn) <= len(MANY) / 4 and {name.rpartition("-")[2] for name in drawn} == {"eager]", "graph]"}


@pytest.mark.parametrize("others", ["others", "all"])
def test_what_it_leaves_out_is_run_by_the_other_command(others: str) -> None:
    some, rest = chosen("some"), chosen(others)
    assert some | rest == {*FAST, *FEW, *MANY, *LONG}
    assert not some & rest if others == "others" else rest > some


@pytest.mark.parametrize("first", [0, 7, 123_456_789])
def test_three_turns_in_a_row_take_all_others_once(first: int) -> None:
    turns = [chosen("others", first + number) for number in range(3)]
    assert all(turns) and set.union(*turns) == chosen("others") and sum(map(len, turns)) == len(chosen("others"))
    assert chosen("all", first) == chosen("some") | turns[0]
    files = [{name.partition("::")[0] for name in turn} for turn in turns]
    assert sum(map(len, files)) == len(set.union(*files)), "a file's tests share what they made"
