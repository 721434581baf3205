"""The index of references: it tells the holders that a visit of each object would."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

from kerasmemwatch.leaks.evidence.references import References


class Held:
    pass


def index_of(objects: list[Any]) -> References:
    references = References()
    for _ in references.visit(objects):
        pass
    return references


def test_holders_are_those_of_a_visit_of_each() -> None:
    chooser = random.Random(3)
    targets = [Held() for _ in range(50)]
    others = [Held() for _ in range(5000)]
    objects: list[Any] = [chooser.sample(targets + others, chooser.randrange(9)) for _ in range(3000)]
    objects.insert(1000, [*others * 20, targets[7]])
    wanted = set(map(id, targets))
    expected = {id(each): held for each in objects if (held := [item for item in each if id(item) in wanted])}
    found = index_of(objects).holders(targets)
    assert {key: sorted(map(id, held)) for key, (_, held) in found.items()} == {
        key: sorted(map(id, held)) for key, held in expected.items()
    }
    assert all(holder is not None and id(holder) == key for key, (holder, _) in found.items())


def test_some_holders_are_enough_of_a_class_that_has_many() -> None:
    target, other = Held(), Held()
    nodes = [Held() for _ in range(5000)]
    for node in nodes:
        node.parent = target  # type: ignore[attr-defined]
    nodes[7].parent = other  # type: ignore[attr-defined]
    references = index_of([*nodes, {"tree": target}])
    every, some = references.holders([target]), references.holders([target], some=True)
    assert len(every) == 5000 and 1 < len(some) < 100 and set(some) <= set(every)
    assert [type(holder) for holder, _ in some.values()].count(dict) == 1
    assert references.holders([other], some=True) == references.holders([other])


def test_what_was_added_later_and_in_parts_is_found_too() -> None:
    target = Held()
    first, second = [target], {"of": target}
    references = index_of([first])
    assert list(references.holders([target])) == [id(first)]
    for referents in references.visit([second]):
        assert target in referents
    assert list(references.holders([target])) == [id(first), id(second)]
    assert references.holders([]) == references.holders([Held()]) == {}


def test_an_object_that_let_go_meanwhile_is_no_holder() -> None:
    target = Held()
    holders = [[target], [target]]
    references = index_of([*holders])
    holders[0].clear()
    assert [held for _, held in references.holders([target]).values()] == [[target]]


def test_nothing_is_kept_once_it_is_cleared() -> None:
    kept = weakref.ref(target := Held())
    references = index_of([[target]])
    references.clear()
    del target
    gc.collect()
    assert kept() is None and references.holders([Held()]) == {}
