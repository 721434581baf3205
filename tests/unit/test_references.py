"""The index of references: it tells the holders that a visit of each object would."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from kerasmemwatch.leaks.evidence.references import References, Referrers


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
    dicts = [{"of": target} for _ in range(5000)]
    assert len(index_of([*dicts]).holders([target], some=True)) == 5000
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


@pytest.mark.parametrize("change", [list[Any].clear, lambda first: first.append(1), lambda first: first.pop()])
def test_an_object_that_changed_meanwhile_hides_no_holder_behind_it(change: Callable[[list[Any]], Any]) -> None:
    target = Held()
    first, second, third = [1, 2, target], [target], [3, 4, target]
    references = index_of([first, second, third])
    change(first)
    found = references.holders([target])
    assert {id(second), id(third)} <= set(found) and (id(first) in found) is (target in first)


def test_what_refers_to_nothing_holds_nothing() -> None:
    assert index_of([[], {}]).holders([Held()]) == index_of([]).holders([Held()]) == {}


def test_holders_are_told_without_an_index() -> None:
    target, other = Held(), Held()
    kept = {"of": target}
    gc.collect()  # what is younger is taken for ours
    was_enabled = gc.isenabled()
    with Referrers(10.0) as referrers:
        assert not gc.isenabled() and not referrers.is_late
        found = referrers.referrers([target])
        young = [target]
        assert [held for key, (_, held) in found.items() if key == id(kept)] == [[target]]
        assert id(young) not in referrers.referrers([target]) and referrers.referrers([other]) == {}
    assert gc.isenabled() is was_enabled and young


def test_nothing_is_kept_once_it_is_cleared() -> None:
    kept = weakref.ref(target := Held())
    references = index_of([[target]])
    references.clear()
    del target
    gc.collect()
    assert kept() is None and references.holders([Held()]) == {}
