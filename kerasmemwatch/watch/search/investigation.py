"""What is looked at to explain growth, step by step, within the time that all looks may take."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

from kerasmemwatch.leaks.causes.case import Case, Rises
from kerasmemwatch.leaks.causes.find import find_causes
from kerasmemwatch.leaks.causes.retained import pick_suspects
from kerasmemwatch.leaks.causes.waiting import is_waiting
from kerasmemwatch.leaks.causes.workers import is_of_children
from kerasmemwatch.leaks.evidence.collector import Collected, collect, full_collections, switched_off_at, trim
from kerasmemwatch.leaks.evidence.graph_sizes import GraphSizes
from kerasmemwatch.leaks.evidence.look import Look, take_look
from kerasmemwatch.leaks.evidence.models import Models, follow_models
from kerasmemwatch.leaks.evidence.piles import count_classes
from kerasmemwatch.leaks.evidence.places import Place
from kerasmemwatch.leaks.verdicts.find import is_garbage_of_heap
from kerasmemwatch.probes.children import Child, list_children
from kerasmemwatch.records.growth import WAITS, LeakFinding
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.units import format_bytes
from kerasmemwatch.watch.search.allowance import Allowance
from kerasmemwatch.watch.search.own_rss import OwnRss
from kerasmemwatch.watch.search.suspicion import Suspicion

__all__ = ["Investigation"]

_FEWEST_STEPS, _FEWEST_MODELS = 8, 3
# A collection and a look visit the same objects as a count of them. They take some so many times as long, a look
# without its searches for names, which end with the time: with them, looks of five programs took 3.1 to 4.9 times.
_COLLECTION_COUNTS, _LOOK_COUNTS = 1.75, 3.0
_LOOK_AGAIN = 1.4
_MAX_FAILURES = 2
_WHY = "to look for causes of growth"
_TRIMMED = "the C library was asked to give back free memory"


class Investigation:
    """Explains growth of one series of rows, such as a run's."""

    def __init__(self) -> None:
        self._allowance, self._own_rss = Allowance(), OwnRss()
        self._num_looks = self._failures = 0
        self._note = ""
        self._begin()

    def end(self) -> None:
        """Forget what was found, as this growth has ended; what was spent still counts."""
        if self._looks or self._waits:
            self._begin()

    def _begin(self) -> None:
        self._looks: tuple[Look, ...] = ()
        self._models: Models | None = None
        self._children: tuple[tuple[Child, ...], ...] = ()
        self._rises_then = Rises()
        self._collected: Collected | None = None
        self._grown_then: float | None = None
        self._waits = self._has_sought_cycle = False
        self._collected_for: set[bool] = set()  # garbage of the heap, or other growth
        self._off_at: Place | None = None
        self._classes: Mapping[str, int] | None = None
        self._graphs: GraphSizes | None = None
        self._count_s = 0.0
        self._classes_step = self._collected_step = self._collections = 0

    @property
    def has_counted(self) -> bool:
        """Whether live objects were counted once, so that the next suspicion is looked at."""
        return self._classes is not None

    @property
    def has_collected(self) -> bool:
        """Whether a full collection was run, unless the user switched the collector off."""
        return bool(self._collected_for)

    @property
    def has_looked(self) -> bool:
        """Whether live objects were looked at."""
        return bool(self._looks)

    def explain(
        self, suspicion: Suspicion, recorder: Recorder, frame: FrameType | None, model: Any
    ) -> tuple[LeakFinding, ...]:
        """Look at what is due next.

        Args:
            recorder: Of the run that is told what was done.
            frame: Innermost frame of the stack whose functions' variables may hold objects.
            model: The model at work.

        Returns:
            The causes; none while there is too little evidence, and none any more after two faults of ours.
        """
        if self._failures >= _MAX_FAILURES:
            return ()
        self._failures += 1
        found = self._explain(suspicion, recorder, frame, model)
        self._failures -= 1  # else it raised
        return found

    def _explain(
        self, suspicion: Suspicion, recorder: Recorder, frame: FrameType | None, model: Any
    ) -> tuple[LeakFinding, ...]:
        case = self._case(suspicion)
        if is_of_children(case):
            # Nothing in this process tells.
            self._children = (*self._children[:1], list_children())
            return find_causes(replace(case, children=self._children))
        if self._classes is None and not self._count(suspicion, recorder):
            # A first verdict may be of a start that has not settled, and a look is dear.
            return ()
        is_of_heap = is_garbage_of_heap(case.main)
        if is_of_heap and case.rises.steps < _FEWEST_STEPS:
            return ()  # Python has just collected
        if self._waits and not self._looks:
            # It waited for the collector, which has run since.
            found = self._cycle(case, suspicion, recorder)
            if found is not None:
                return found
        elif (
            is_of_heap not in self._collected_for
            and not case.rises.collections > 0
            and self._allowance.left_s >= self._collection_s
        ):
            # A cycle takes a second collection, after which a look is still to be possible unless the rows tell.
            look_s = 0.0 if case.main.verdict == WAITS else self._look_s
            cycles = self._allowance.left_s >= 2 * self._collection_s + look_s
            self._collected_for.add(is_of_heap)
            self._collected = self._collect(case, suspicion, recorder, cycles=cycles)
            case = replace(case, collected=self._collected)
            if is_waiting(case):
                self._waits = True
                return find_causes(case)
        if is_of_heap:
            return ()  # it comes and goes: no object alive explains it
        self._look_if_due(case, suspicion, recorder, frame, model)
        grown_then = None if case.collected is not None else self._grown_then
        case = replace(case, looks=self._looks, models=self._models, rises_then=self._rises_then)
        return find_causes(replace(case, collected=self._collected, grown_then=grown_then))

    def _case(self, suspicion: Suspicion) -> Case:
        is_on = gc.isenabled()
        if not is_on and self._off_at is None:
            with self._allowance.spend():
                self._off_at = switched_off_at()
        off_at = None if is_on else self._off_at
        rises = suspicion.rises
        case = Case(suspicion.growth, rises, self._rises_then, self._looks, made=suspicion.made)
        return replace(case, collector_on=is_on, off_at=off_at, are_devices_steady=suspicion.are_devices_steady)

    def _count(self, suspicion: Suspicion, recorder: Recorder) -> bool:
        """Count live objects; whether a look may follow at once, because no second suspicion will come."""
        with self._own_rss.counted(recorder), self._allowance.spend():
            count = count_classes(suspicion.step, suspicion.moment)
        self._classes, self._graphs, self._count_s = count.classes, count.graphs, count.cpu_s
        self._classes_step = suspicion.step
        if suspicion.moment is None:
            return False
        # New objects are told by their age.
        self._classes_step = suspicion.moment.step
        if self._classes_step == suspicion.step:
            self._classes = None
        return True

    @property
    def _collection_s(self) -> float:
        """CPU time that a full collection takes."""
        return _COLLECTION_COUNTS * self._count_s

    @property
    def _look_s(self) -> float:
        """CPU time that a first look takes, without names."""
        return _LOOK_COUNTS * self._count_s

    def _look_if_due(
        self, case: Case, suspicion: Suspicion, recorder: Recorder, frame: FrameType | None, model: Any
    ) -> None:
        last = self._looks[-1] if self._looks else None
        if last is None:
            is_due, cost_s = suspicion.moment is not None or case.has_enough_calls, self._look_s
        else:
            is_due, cost_s = suspicion.step >= last.step * _LOOK_AGAIN, last.cpu_s + gc.isenabled() * self._collection_s
        if not is_due:
            return
        if self._allowance.left_s >= cost_s:
            self._look(case, suspicion, recorder, frame, model)
            self._rises_then = case.rises
        elif last is None and self._models is None:
            might, what = self._allowance.spent_s + cost_s, "the cause of growth was not searched for: it"
            if self._can_follow(case, suspicion):
                self._follow_models(case, suspicion, recorder, frame)
                if self._models is not None and self._models.chains:
                    what = "only what holds the live models was searched for: a look at all live objects"
            self._say(
                f"After {suspicion.after} {what} might have taken {might:.1f} s of CPU time in all, and the limit is "
                f"{self._allowance.words}.",
                recorder,
            )

    def _can_follow(self, case: Case, suspicion: Suspicion) -> bool:
        """Whether known models that live are kept, because garbage was just collected, and there is time to ask why."""
        is_now = self._collected is not None and self._collected_step == suspicion.step
        are_many = suspicion.models is not None and case.rises.models >= _FEWEST_MODELS
        return is_now and are_many and self._allowance.left_s >= self._count_s / 2  # it ends with the time

    def _follow_models(self, case: Case, suspicion: Suspicion, recorder: Recorder, frame: FrameType | None) -> None:
        assert suspicion.models is not None
        with self._own_rss.counted(recorder), self._allowance.spend():
            self._models = follow_models(suspicion.models(), frame, self._allowance.left_s)
        self._rises_then = case.rises

    def _collect(
        self, case: Case, suspicion: Suspicion, recorder: Recorder, *, cycles: bool, why: str = _WHY
    ) -> Collected | None:
        devices = [device.name for device in recorder.run.devices]
        with self._allowance.spend():
            found = collect(devices, is_host=case.is_host, cycles=cycles)
        self._collected_step, self._collections = suspicion.step, full_collections()
        self._grown_then = case.grown_bytes
        if found is not None:
            trimmed = "" if found.malloc_bytes is None else f", and {_TRIMMED}"
            recorder.remark(f"After {suspicion.after} a full garbage collection was run {why}{trimmed}.")
        return found

    def _cycle(self, case: Case, suspicion: Suspicion, recorder: Recorder) -> tuple[LeakFinding, ...] | None:
        """Tell which of the user's cycles wait for the collector, from those that came since it ran for us.

        Returns:
            What was found; nothing if that is to stay which was found before, and ``None`` if nothing waits any more.
        """
        known, steps = self._collected, suspicion.step - self._collected_step
        is_known = known is None or known.cycle is not None or self._has_sought_cycle
        if is_known or steps < _FEWEST_STEPS or self._allowance.left_s < 2 * self._collection_s:
            return ()
        if full_collections() != self._collections:  # it ran by itself: there may be few
            self._collected_step, self._collections = suspicion.step, full_collections()
            return ()
        self._has_sought_cycle = True
        found = self._collect(case, suspicion, recorder, cycles=True, why="again to find what waits for it")
        again = replace(case, rises=case.rises.last(steps), collected=found)
        if not is_waiting(again):
            self._waits, self._collected = False, found
            return None
        return find_causes(again) if found is not None and found.cycle is not None else ()

    def _collect_again(self) -> bool:
        """Have garbage that came since the first look counted for alive by none; ``False`` if the user collects."""
        if not gc.isenabled():
            return False
        with self._allowance.spend():
            gc.collect()
        return True

    def _look(self, case: Case, suspicion: Suspicion, recorder: Recorder, frame: FrameType | None, model: Any) -> None:
        before = self._looks[0] if self._looks else None
        collected = before is not None and self._collect_again()
        suspects = partial(
            pick_suspects,
            before=before,
            grown_bytes=case.grown_bytes if before is None else case.grown_in(suspicion.step - before.step),
            rows=case.num_additions,
            steps=suspicion.step,
        )
        with self._own_rss.counted(recorder), self._allowance.spend():
            look = take_look(
                suspicion.step,
                suspects,
                frame,
                model,
                before=self._classes,
                graphs_before=self._graphs if before is None else before.graph_sizes,
                units=case.units(suspicion.step - self._classes_step),
                plain=case.is_host,
                most_s=self._allowance.left_s,
            )
            # Else RSS stands still until the program has filled what the look left free, some ten MiB.
            trimmed = case.is_host and trim()
        self._looks = (look,) if before is None else (before, look)
        self._num_looks += 1
        times = "once" if self._num_looks == 1 else f"{self._num_looks} times, last"
        own = f"; RSS rose by {format_bytes(self._own_rss.num_bytes)} meanwhile" if self._own_rss.num_bytes else ""
        another = ", after another full garbage collection" if collected else ""
        has_told = self._collected is not None and self._collected.malloc_bytes is not None
        asked = f", and {_TRIMMED}" if trimmed and not has_told else ""
        note = f"All live objects were visited {times} after {suspicion.after} {_WHY}{another}{asked}{own}."
        self._say(note, recorder)

    def _say(self, note: str, recorder: Recorder) -> None:
        """Note what was done, instead of what was said before."""
        recorder.remark(note, instead_of=self._note)
        self._note = note
