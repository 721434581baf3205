"""What is looked at next, within the time that looks may take. Nothing is visited here: each look is made up."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from kerasmemwatch.leaks.causes.case import Rises
from kerasmemwatch.leaks.evidence.chains import Chain, Step
from kerasmemwatch.leaks.evidence.collector import Collected
from kerasmemwatch.leaks.evidence.cycles import Cycle
from kerasmemwatch.leaks.evidence.look import Contents, Look
from kerasmemwatch.leaks.evidence.makings import Made
from kerasmemwatch.leaks.evidence.models import Models
from kerasmemwatch.leaks.evidence.piles import Count
from kerasmemwatch.leaks.evidence.places import Place
from kerasmemwatch.leaks.evidence.roots import Root
from kerasmemwatch.records.growth import Growth
from kerasmemwatch.watch.search import allowance, investigation
from kerasmemwatch.watch.search.investigation import Investigation
from kerasmemwatch.watch.search.suspicion import Suspicion

CHAIN = Chain(Root("global", "losses", "__main__", "train.py"), (Step("", "list", "builtins", 200),))
HELD = Contents("tensor", 200, 200_000, "list", "float32[250]", chain=CHAIN)
DEVICE = "device_in_use_bytes CPU:0"
CYCLE = Cycle("objects of class Ring", 40, "itself", Place("train.py", 4, "self.itself = self"))


class World:
    """What is there to be found, and what was done to find it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count_s, self.look_s = 0.1, 0.3
        self.held: Contents | None = HELD
        self.collected: list[Collected] = [Collected(5, {"CPU:0": 10})]
        self.done: list[str] = []
        self.notes: list[str] = []
        self.clock = 0.0
        self.fails = False
        self.models: list[Any] | None = None
        self.investigation = Investigation()
        run = SimpleNamespace(devices=(SimpleNamespace(name="CPU:0"),))
        self.recorder: Any = SimpleNamespace(run=run, remark=self._remark, add_own_rise=lambda rise: None)
        monkeypatch.setattr(allowance.time, "thread_time", lambda: self.clock)
        monkeypatch.setattr(allowance.time, "monotonic", lambda: 0.0)
        monkeypatch.setattr(investigation, "count_classes", self._count)
        monkeypatch.setattr(investigation, "collect", self._collect)
        monkeypatch.setattr(investigation, "take_look", self._look)
        monkeypatch.setattr(investigation, "follow_models", self._follow)
        monkeypatch.setattr(investigation, "full_collections", lambda: 0)
        monkeypatch.setattr(investigation, "trim", lambda: self._spend("trim", 0.002) or True)
        monkeypatch.setattr(Investigation, "_collect_again", lambda found: self._spend("collect again", 0.2) or True)

    def explain(
        self,
        step: int,
        unit: Any = "step",
        calls: float = 0.0,
        verdict: Any = "growing",
        series: str = DEVICE,
        **changes: Any,
    ) -> list[str]:
        """The causes after a step, if memory has grown by 1,000 bytes in each since the first."""
        growth = Growth(series, verdict, 1000.0, unit, (900, 1100), 1, None, None, 1000.0, "", step)
        rises = Rises(step, step, step, calls=calls, models=0.0, functions=0.0, gradients=0.0, collections=0.0)
        rises = replace(rises, **changes)
        models = None if self.models is None else partial(list, self.models)
        suspicion = Suspicion((growth,), rises, step, f"step {step}", Made(), models=models)
        return [leak.cause for leak in self.investigation.explain(suspicion, self.recorder, None, None)]

    def _spend(self, what: str, seconds: float) -> None:
        self.done.append(what)
        self.clock += seconds

    def _remark(self, note: str, instead_of: str = "") -> None:
        self.notes.append(note)

    def _count(self, step: int, moment: Any) -> Count:
        self._spend("count", self.count_s)
        return Count(self.count_s, {})

    def _collect(self, devices: Any, *, is_host: bool, cycles: bool) -> Collected:
        self._spend("collect with cycles" if cycles else "collect", self.count_s * (1 + cycles))
        return self.collected.pop(0)

    def _look(self, step: int, *args: Any, **more: Any) -> Look:
        self._spend("look", self.look_s)
        if self.fails:
            raise RuntimeError("a property of the user's")
        return Look(step, self.look_s, containers={} if self.held is None else {1: self.held})

    def _follow(self, models: Any, frame: Any, most_s: float) -> Models:
        self._spend("follow", 0.4)
        assert most_s <= 2.0
        return Models(len(models), 1000, (CHAIN,), Place("train.py", 7, "models.append(model)"))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_it_counts_then_collects_and_looks(world: World) -> None:
    assert world.explain(100) == []
    assert world.explain(200) == ["retained_tensors"]
    assert world.done == ["count", "collect with cycles", "look"]


def test_free_memory_is_given_back_after_a_look_at_the_host(world: World) -> None:
    world.collected = [Collected(5, {}, rss_bytes=10, malloc_bytes=0)]
    world.explain(100, series="host_rss_bytes")
    assert world.explain(200, series="host_rss_bytes") == ["retained_tensors"]
    assert world.done == ["count", "collect with cycles", "look", "trim"]
    assert sum("give back free memory" in note for note in world.notes) == 1


@pytest.mark.usefixtures("collector_off")
def test_a_cause_that_needs_no_look_does_not_stop_the_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(investigation, "switched_off_at", lambda: None)
    world.collected = [None]  # type: ignore[list-item]
    world.explain(50, "fit", calls=5)
    assert world.explain(80, "fit", calls=8) == ["waits_for_collector"]
    assert world.explain(120, "fit", calls=12) == ["retained_tensors"]


def test_a_first_look_waits_for_ten_calls_where_each_makes_memory_grow(world: World) -> None:
    world.explain(50, "fit", calls=5)
    assert world.explain(80, "fit", calls=8) == [] and "look" not in world.done
    assert world.explain(100, "fit", calls=10) == ["retained_tensors"]


def test_looks_that_raise_are_counted_and_given_up(world: World) -> None:
    world.fails = True
    world.explain(100)
    for step in (200, 300):
        with pytest.raises(RuntimeError):
            world.explain(step)
    spent = world.clock
    assert world.explain(400) == [] and world.clock == spent and world.done.count("look") == 2
    assert world.investigation._allowance.spent_s == pytest.approx(spent)


def test_kept_models_are_named_where_a_look_would_take_too_long(world: World) -> None:
    world.count_s, world.models = 0.45, [object()] * 12
    world.explain(40, "model", models=10.0)
    assert world.explain(50, "model", models=12.0) == ["models_accumulate"]
    assert world.explain(60, "model", models=30.0) == ["models_accumulate"]  # as many as were made by then
    assert (
        world.done == ["count", "collect", "follow"]
        and "only what holds the live models was searched for" in world.notes[-1]
    )


@pytest.mark.parametrize(("num_models", "kept"), [(1.0, 12), (12.0, 2), (12.0, None)])
def test_models_are_not_named_if_few_were_made_or_live_or_are_known(
    world: World, num_models: float, kept: int | None
) -> None:
    world.count_s, world.models = 0.45, None if kept is None else [object()] * kept
    world.explain(40, "model", models=num_models)
    assert "models_accumulate" not in world.explain(50, "model", models=num_models)
    assert "look" not in world.done


@pytest.mark.usefixtures("collector_off")
def test_models_are_not_followed_if_no_garbage_was_collected(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(investigation, "switched_off_at", lambda: None)
    world.count_s, world.models, world.collected = 0.45, [object()] * 12, [None]  # type: ignore[list-item]
    world.explain(40, "model", models=10.0)
    assert world.explain(50, "model", models=12.0) == ["waits_for_collector"] and "follow" not in world.done


def test_models_are_followed_only_just_after_a_collection(world: World) -> None:
    world.count_s, world.models = 0.45, [object()] * 12
    world.explain(40, "fit", models=8.0, calls=8.0)
    world.explain(45, "fit", models=9.0, calls=9.0)  # collects; too few calls for a look
    assert world.explain(60, "fit", models=12.0, calls=12.0) == [] and "follow" not in world.done


def test_an_earlier_collection_does_not_explain_later_growth(world: World) -> None:
    world.held = None
    world.collected = [Collected(500, {"CPU:0": 100_000})]
    world.look_s = 10.0
    world.count_s = 0.5  # so that a look does not fit
    world.explain(300)
    assert world.explain(400) == []  # it gave back 100 of 400 kB
    # Only the last 150 steps are judged now, by 150 kB.
    assert world.explain(600, steps=150.0, train_steps=150.0, rows=150) == []
    assert world.done == ["count", "collect"]
    assert "the cause of growth was not searched for" in world.notes[-1]


def test_the_cycle_is_sought_later_where_time_is_short(world: World) -> None:
    world.count_s = 0.28
    world.collected = [Collected(900, {"CPU:0": 200_000}), Collected(300, {"CPU:0": 90_000}, cycle=CYCLE)]
    world.explain(100)
    assert world.explain(200) == ["waits_for_collector"] and world.done[-1] == "collect"
    assert world.explain(204) == []  # too few steps since then
    assert world.explain(300) == ["waits_for_collector"]
    assert world.done == ["count", "collect", "collect with cycles"]
    assert world.explain(400) == []  # what was found stays


def test_the_cycle_is_sought_at_once_where_the_rows_tell(world: World) -> None:
    world.count_s = 0.25
    world.collected = [Collected(900, {"CPU:0": 200_000}, cycle=CYCLE)]
    world.explain(100)
    assert world.explain(200, verdict="waits for the collector") == ["waits_for_collector"]
    assert world.done == ["count", "collect with cycles"]


def test_garbage_of_the_heap_is_collected_and_no_object_is_looked_at(world: World) -> None:
    garbage: dict[str, Any] = {"series": "host_malloc_bytes", "verdict": "waits for the collector"}
    world.collected = [Collected(900, heap_bytes=100)]
    world.explain(100, **garbage)
    assert world.explain(200, steps=7.0, **garbage) == []  # Python has just collected
    assert world.explain(300, **garbage) == [] and world.done == ["count", "collect with cycles"]
    assert world.explain(400, **garbage) == [] and world.done == ["count", "collect with cycles"]


def test_garbage_of_the_heap_is_measured_though_other_growth_was_collected_for(world: World) -> None:
    world.collected = [Collected(5, {"CPU:0": 10}), Collected(900, heap_bytes=190_000)]
    world.held, world.look_s = None, 0.2
    world.explain(100)
    assert world.explain(200) == [] and world.done[-1] == "look"
    found = world.explain(400, verdict="waits for the collector", series="host_malloc_bytes", steps=200.0)
    assert found == ["waits_for_collector"] and world.done[-1] == "collect with cycles"


def test_what_waits_no_more_is_looked_for(world: World) -> None:
    world.count_s, world.look_s = 0.2, 0.3
    world.collected = [Collected(900, {"CPU:0": 90_000}), Collected(300, {"CPU:0": 9_000})]
    world.investigation._allowance.spent_s = 0.55
    world.explain(100)
    assert world.explain(200) == ["waits_for_collector"] and world.done[-1] == "collect"
    world.investigation._allowance.spent_s -= 0.85  # the run goes on
    assert world.explain(300) == ["retained_tensors"]
    assert world.done == ["count", "collect", "collect with cycles", "look"]


def test_a_second_look_is_taken_if_its_collection_fits_too(world: World) -> None:
    world.look_s, world.count_s = 0.7, 0.1
    world.explain(100)
    world.explain(200)
    assert world.done[-1] == "look" and world.investigation._allowance.left_s == pytest.approx(2 - 1.0)
    world.explain(250)  # too early
    world.explain(300)
    assert world.done[-2:] == ["collect again", "look"]
    world.explain(500)
    assert world.done.count("look") == 2  # nothing is left for a third
    assert world.clock <= 2.0


def test_growth_that_ended_is_forgotten_but_not_its_cost(world: World) -> None:
    world.collected *= 2
    world.explain(100)
    world.explain(200)
    world.investigation.end()
    spent = world.investigation._allowance.spent_s
    assert spent and not world.investigation.has_looked
    world.held = None
    assert world.explain(300) == [] and world.explain(400) == []
    assert world.done == ["count", "collect with cycles", "look"] * 2
    assert world.investigation._allowance.spent_s == pytest.approx(2 * spent)
