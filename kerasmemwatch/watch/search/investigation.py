"""What is looked at to explain growth, step by step, within the time that all looks may take."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType
from typing import Any

from kerasmemwatch.leaks.causes.case import Case, Rises
from kerasmemwatch.leaks.causes.find import find_causes
from kerasmemwatch.leaks.causes.retained import pick_suspects
from kerasmemwatch.leaks.causes.waiting import is_waiting
from kerasmemwatch.leaks.causes.workers import is_of_children
from kerasmemwatch.leaks.evidence.age import Moment, full_collections
from kerasmemwatch.leaks.evidence.collector import Collected, collect, rss_bytes, switched_off_at
from kerasmemwatch.leaks.evidence.graph_sizes import GraphSizes
from kerasmemwatch.leaks.evidence.heap import LEAST_SEARCHES_S
from kerasmemwatch.leaks.evidence.look import Look, take_look
from kerasmemwatch.leaks.evidence.makings import Made
from kerasmemwatch.leaks.evidence.piles import count_classes
from kerasmemwatch.probes.children import Child, list_children
from kerasmemwatch.records.growth import Growth, LeakFinding
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.units import format_bytes

__all__ = ["Investigation", "Suspicion", "own_rss_bytes"]

# All dear looks together may take this share of the time or so many seconds.
_LOOK_SHARE, _LOOK_S = 0.01, 2.0
_FEWEST_CALLS, _FEWEST_STEPS = 4, 8
# A collection and a look visit the same objects as a count of them. They take at most so many times as long, a look
# without its searches for names, which end with the time.
_COLLECTION_COUNTS, _LOOK_COUNTS, _AGAIN_COUNTS = 1.75, 3.5, 2.0
_LOOK_AGAIN = 1.4
# What piles up is told from eight on, so a look at fewer calls finds nothing.
_CALLS_TO_SEE = 10
_own_rss_bytes = 0


def own_rss_bytes() -> int:
    """By how much RSS of this process rose in all counts and looks."""
    return _own_rss_bytes


@dataclass(frozen=True)
class Suspicion:
    """Growth to explain.

    Attributes:
        growth: The suspicious verdicts, the one to explain first.
        rises: What rose meanwhile.
        step: The newest row's step.
        after: How far the rows go, in words: ``"step 1,200"``.
        made: What TensorFlow made meanwhile that no Python object holds.
        moment: An earlier moment if this may be the last chance: what is new since then is told by its age.
    """

    growth: tuple[Growth, ...]
    rises: Rises
    step: int
    after: str
    made: Made
    moment: Moment | None = None


class Investigation:
    """Explains growth of one series of rows, such as a run's.

    Attributes:
        has_collected: Whether a full collection was run, unless the user switched the collector off.
    """

    def __init__(self) -> None:
        self._begun, self._spent_s = time.monotonic(), 0.0
        self._looks: tuple[Look, ...] = ()
        self._children: tuple[tuple[Child, ...], ...] = ()
        self._rises_then = Rises()
        self._collected: Collected | None = None
        self.has_collected = self._has_found = self._has_sought_cycle = False
        self._classes: Mapping[str, int] | None = None
        self._graphs: GraphSizes | None = None
        self._count_s = 0.0
        self._classes_step = self._collected_step = self._collections = self._num_looks = self._own_rss_bytes = 0
        self._note = ""

    @property
    def has_counted(self) -> bool:
        """Whether live objects were counted once, so that the next suspicion is looked at."""
        return self._classes is not None

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
            The causes; none while there is too little evidence.
        """
        step, moment, made = suspicion.step, suspicion.moment, suspicion.made
        is_on = gc.isenabled()
        off_at = None if is_on else switched_off_at()
        case = Case(suspicion.growth, suspicion.rises, self._rises_then, self._looks, None, is_on, off_at, made)
        if is_of_children(case):
            # Nothing in this process tells.
            self._children = (*self._children[:1], list_children())
            return self._found(replace(case, children=self._children))
        if self._classes is None:
            with self._own_rss(recorder):
                count = count_classes(step, moment)
            self._classes, self._graphs, self._count_s = count.classes, count.graphs, count.cpu_s
            self._classes_step, self._spent_s = step, self._spent_s + self._count_s
            if moment is None:
                # A first verdict may be of a start that has not settled, and a look is dear.
                return ()
            # No second look will come, so new objects are told by their age.
            self._classes_step = moment.step
            if self._classes_step == step:
                self._classes = None
        if (
            not self.has_collected
            and not case.rises.collections > 0
            and self._left_s >= _COLLECTION_COUNTS * self._count_s
        ):
            # A cycle takes a second collection, after which a look is still to be possible.
            cycles = self._left_s >= 2 * _COLLECTION_COUNTS * self._count_s + self._look_s
            self._collected = self._collect(case, suspicion, recorder, cycles=cycles)
            case = replace(case, collected=self._collected)
            if is_waiting(case):
                return self._found(case)
        elif self._has_found and not self._looks:
            return self._cycle(case, suspicion, recorder)  # it waited for the collector, which has run since
        last = self._looks[-1] if self._looks else None
        is_new = step >= last.step * _LOOK_AGAIN if last is not None else moment is not None or _shows_enough(case)
        cost_s = self._look_s if last is None else last.cpu_s
        again = None
        # New models may be garbage, which a collection would have to free first.
        is_short = last is not None and self._left_s < cost_s and not case.rises.models > 0
        if last is not None and is_short and last.has_lists_only:
            again, cost_s = last, _AGAIN_COUNTS * self._count_s
        if is_new and self._left_s >= cost_s:
            self._look(case, suspicion, recorder, frame, model, again)
            self._rises_then = case.rises
        elif is_new and last is None:
            self._say(
                f"After {suspicion.after} the cause of growth was not searched for: it might have taken "
                f"{self._spent_s + cost_s:.1f} s of CPU time in all, and the limit is {_LOOK_S:.0f} s or "
                f"{_LOOK_SHARE:.0%} of the run's time.",
                recorder,
            )
        return self._found(replace(case, looks=self._looks, rises_then=self._rises_then, collected=self._collected))

    def _found(self, case: Case) -> tuple[LeakFinding, ...]:
        found = find_causes(case)
        self._has_found |= bool(found)
        return found

    @property
    def _left_s(self) -> float:
        """CPU time that dear looks may still take."""
        return max(_LOOK_S, _LOOK_SHARE * (time.monotonic() - self._begun)) - self._spent_s

    @property
    def _look_s(self) -> float:
        """CPU time that a first look takes, with little for names."""
        return _LOOK_COUNTS * self._count_s + LEAST_SEARCHES_S

    def _collect(
        self, case: Case, suspicion: Suspicion, recorder: Recorder, *, cycles: bool, why: str = "to explain growth"
    ) -> Collected | None:
        self.has_collected = True
        devices = [device.name for device in recorder.run.devices]
        found = collect(devices, trim=case.is_host, cycles=cycles)
        self._collected_step, self._collections = suspicion.step, full_collections()
        if found is not None:
            self._spent_s += found.cpu_s
            trimmed = "" if found.malloc_bytes is None else ", and the C library was asked to give back free memory"
            recorder.remark(f"After {suspicion.after} a full garbage collection was run {why}{trimmed}.")
        return found

    def _cycle(self, case: Case, suspicion: Suspicion, recorder: Recorder) -> tuple[LeakFinding, ...]:
        """Tell which of the user's cycles wait for the collector, from those that came since it ran for us."""
        known, steps = self._collected, suspicion.step - self._collected_step
        is_known = known is None or known.cycle is not None or self._has_sought_cycle
        if is_known or steps < _FEWEST_STEPS or self._left_s < 2 * _COLLECTION_COUNTS * self._count_s:
            return ()
        if full_collections() != self._collections:  # it ran by itself: there may be few
            self._collected_step, self._collections = suspicion.step, full_collections()
            return ()
        self._has_sought_cycle = True
        found = self._collect(case, suspicion, recorder, cycles=True, why="again to find what waits for it")
        rises = replace(case.rises, steps=steps, train_steps=steps)
        again = replace(case, rises=rises, collected=found)
        return self._found(again) if is_waiting(again) else ()

    def _collect_again(self) -> bool:
        """Have garbage that came since the first look counted for alive by none; ``False`` if the user collects."""
        if not gc.isenabled():
            return False
        begun = time.thread_time()
        gc.collect()
        self._spent_s += time.thread_time() - begun
        return True

    def _look(
        self,
        case: Case,
        suspicion: Suspicion,
        recorder: Recorder,
        frame: FrameType | None,
        model: Any,
        again: Look | None,
    ) -> None:
        before = self._looks[0] if self._looks else None
        # What is garbage since the first look would be counted for alive.
        collected = before is not None and again is None and self._collect_again()
        suspects = partial(
            pick_suspects,
            before=before,
            grown_bytes=case.grown_bytes,
            rows=max(1, case.rises.rows),
            steps=suspicion.step,
        )
        with self._own_rss(recorder):
            look = take_look(
                suspicion.step,
                suspects,
                frame,
                model,
                before=self._classes,
                graphs_before=self._graphs if before is None else before.graph_sizes,
                units=_units(case, suspicion.step - self._classes_step),
                plain=case.is_host,
                most_s=self._left_s,
                again=again,
            )
        self._spent_s += look.cpu_s
        self._looks = (look,) if before is None else (before, look)
        self._num_looks += 1
        times = "once" if self._num_looks == 1 else f"{self._num_looks} times, last"
        own = f"; RSS rose by {format_bytes(self._own_rss_bytes)} meanwhile" if self._own_rss_bytes else ""
        another = ", after another full garbage collection" if collected else ""
        note = f"All live objects were visited {times} after {suspicion.after} to explain growth{another}{own}."
        self._say(note, recorder)

    @contextmanager
    def _own_rss(self, recorder: Recorder) -> Iterator[None]:
        """Count the rise of RSS within the block as this search's own."""
        global _own_rss_bytes
        before = rss_bytes()
        yield
        after = rss_bytes()
        rise = max(0, (after or 0) - (before or after or 0))
        self._own_rss_bytes += rise
        _own_rss_bytes += rise
        if rise:
            recorder.add_own_rise(rise)

    def _say(self, note: str, recorder: Recorder) -> None:
        """Note what was done, instead of what was said before."""
        recorder.remark(note, instead_of=self._note)
        self._note = note


def _units(case: Case, steps: int) -> int:
    """How many calls there were in a number of steps, or the steps if there are few calls."""
    rises = case.rises
    is_by_call = rises.calls >= _FEWEST_CALLS and rises.steps > 0
    return int(steps * rises.calls / rises.steps) if is_by_call else steps


def _shows_enough(case: Case) -> bool:
    """Whether there were enough calls, where each makes memory grow, for what piles up to be seen."""
    return case.main.unit not in ("fit", "evaluate", "predict") or case.rises.calls >= _CALLS_TO_SEE
