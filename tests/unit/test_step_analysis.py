"""Whose the constants are that functions keep."""

from __future__ import annotations

from captures import events

from kerasmemwatch.attribution.first_calls import Kept, constants
from kerasmemwatch.attribution.known_buffers import KnownBuffer
from kerasmemwatch.attribution.op_owners import OpOwners
from kerasmemwatch.attribution.owner_stack import Frame

OWNERS = OpOwners({"model/a/Mul": [Frame("a", "Dense", "forward")]})
MADE = events([(256, 10, "again"), (256, -10)], before=0)


def found(*kept: Kept, known: tuple[KnownBuffer, ...] = ()) -> list[tuple[str, str, int]]:
    made = list(constants(kept, known, MADE, OWNERS))
    assert all(each.constant and each.category == "other" for each in made)
    return [(each.owner, each.class_name, each.bytes) for each in made]


def test_a_large_constant_belongs_to_whoever_made_its_operation() -> None:
    name = "StatefulPartitionedCall/model/a/Mul"
    assert found(Kept(4096, 257, name)) == [("a", "Dense", 257)]
    assert found(Kept(4096, 256, name)) == [("functions", "", 256)]
    assert found(Kept(4096, 4096, "elsewhere"), Kept(8192, 4096, "")) == [("functions", "", 4096)] * 2


def test_what_is_something_else_or_made_anew_is_no_constant() -> None:
    assert found(Kept(4096, 300, ""), known=(KnownBuffer("a", "Dense", "weights", 300, 4096),)) == []
    assert found(Kept(4096, 300, "again")) == []
