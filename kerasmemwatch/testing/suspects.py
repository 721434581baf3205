"""What grows with the repeats of a test: the causes that are found, or else live objects by type."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from kerasmemwatch.analysis.leak_words import leak_lines, leak_title, trace_lines
from kerasmemwatch.attribution.variables.live_objects import live_objects
from kerasmemwatch.leaks.causes.case import Case, Rises
from kerasmemwatch.leaks.causes.find import find_causes
from kerasmemwatch.leaks.causes.retained import pick_suspects
from kerasmemwatch.leaks.evidence.look import Look, take_look
from kerasmemwatch.leaks.evidence.makings import Makings
from kerasmemwatch.probes.counters import CounterProbe
from kerasmemwatch.records.growth import Growth, LeakFinding

__all__ = ["Suspect", "count_objects", "find_suspects", "grown"]

# Objects for each repeat below which a type is no suspect: a few grow with the measuring itself.
_MIN_RATE = 0.5
_MAX_SUSPECTS = 5
# CPU time that the search for a name may take: a test that fails can wait, and is to name the same on a slow machine.
_SEARCHES_S = 10.0
# Types of Python's own that accompany nearly everything.
_COMPANIONS = frozenset({"cell", "function", "dict", "list", "tuple", "weakref.ReferenceType", "set"})
_WAITS = "waits_for_collector"


@dataclass(frozen=True)
class Suspect:
    """A cause, or a type of which each repeat leaves more objects."""

    name: str  # the cause or the type's full name, which ``ignore`` takes
    lines: tuple[str, ...]  # what a failure's message says of it


def find_suspects(step: Callable[[], object], repeats: int, rate: float, series: str) -> list[Suspect]:
    """Call a step some more times, and return what grows with it, most telling first.

    Args:
        rate: Bytes by which memory grows with each repeat.
        series: Which memory, as ``Growth.series`` has it.
    """
    if "tensorflow" not in sys.modules:
        return _by_type(step, repeats)
    grown_bytes = rate * repeats
    gc.collect()
    before = _look(0, None, grown_bytes, repeats)
    counted, makings = CounterProbe().batch_end(), Makings()
    makings.open()
    makings.mark(0)
    try:
        for _ in range(repeats):
            step()
        makings.mark(repeats)
        made = makings.since(0)
    finally:
        makings.close()
    gc.collect()
    risen = [after - then for after, then in zip(CounterProbe().batch_end(), counted, strict=True)]
    _, functions, gradients, py_functions = risen
    after = _look(repeats, before, grown_bytes, repeats)
    rises = Rises(
        rows=repeats,
        steps=repeats,
        train_steps=repeats,
        functions=functions,
        gradients=gradients,
        py_functions=py_functions,
        collections=0,
    )
    growth = Growth(series, "growing", rate, "step", None, None, None, None, rate, "", repeats)
    causes = find_causes(Case((growth,), rises, Rises(), (before, after), made=made))
    # What waits was collected, and what is native is told by its absence.
    found = [_of_cause(leak) for leak in causes if leak.cause not in (_WAITS, "native") or leak.where]
    return found or grown(before.classes, after.classes, repeats)


def _look(number: int, before: Look | None, grown_bytes: float, rows: int) -> Look:
    suspects = partial(pick_suspects, before=before, grown_bytes=grown_bytes, rows=rows)
    graphs = None if before is None else before.graph_sizes
    return take_look(number, suspects, sys._getframe(), graphs_before=graphs, searches_s=_SEARCHES_S)


def _of_cause(leak: LeakFinding) -> Suspect:
    lines = [leak_title(leak), *leak_lines(leak), *trace_lines(leak)]
    return Suspect(leak.cause, tuple(line.replace(" a step", " a repeat") for line in lines))


def _by_type(step: Callable[[], object], repeats: int) -> list[Suspect]:
    before = count_objects()
    for _ in range(repeats):
        step()
    return grown(before, count_objects(), repeats)


def count_objects() -> dict[str, int]:
    """Count the live objects that Python's collector knows, by the full name of their type."""
    gc.collect()
    found = live_objects(_name)
    return {name: len(objects) for name, objects in found.items()}


def grown(before: Mapping[str, int], after: Mapping[str, int], repeats: int) -> list[Suspect]:
    """Return the types that grew with the repeats, most telling first."""
    rates = {name: (count - before.get(name, 0)) / repeats for name, count in after.items()}
    found = sorted((name for name, rate in rates.items() if rate >= _MIN_RATE), key=lambda name: -rates[name])
    # What is TensorFlow's or the user's says more than the tuples and cells that come along.
    telling = [name for name in found if name.removeprefix("builtins.") not in _COMPANIONS]
    names = (telling or found)[:_MAX_SUSPECTS]
    return [Suspect(name, (f"{rates[name]:+.1f} a repeat: {name}",)) for name in names]


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
