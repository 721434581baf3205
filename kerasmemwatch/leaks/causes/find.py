"""All causes of one suspicion, the surest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kerasmemwatch.leaks.causes.case import Case
from kerasmemwatch.leaks.causes.graphs import graph_growth, graphs_pinned
from kerasmemwatch.leaks.causes.kept_by_tensorflow import kernel_cache, onednn_cache, resource_tables, tape_cache
from kerasmemwatch.leaks.causes.models import models
from kerasmemwatch.leaks.causes.nameless import nameless_tensors
from kerasmemwatch.leaks.causes.outside import compiled_programs, filling_cache, malloc_retention, native
from kerasmemwatch.leaks.causes.piled import piled
from kerasmemwatch.leaks.causes.retained import retained
from kerasmemwatch.leaks.causes.retracing import retracing
from kerasmemwatch.leaks.causes.waiting import is_waiting, waits_for_collector
from kerasmemwatch.leaks.causes.workers import is_of_children, worker_processes
from kerasmemwatch.records.growth import LeakFinding

__all__ = ["find_causes"]

_RULES: tuple[Callable[[Case], Iterator[LeakFinding]], ...] = (
    retained,
    models,
    piled,
    retracing,
    graphs_pinned,
    compiled_programs,
    graph_growth,
)
# These are counted as they are made, whatever they take, so they are named where nothing of the user's is.
_KEPT_BY_TENSORFLOW: tuple[Callable[[Case], Iterator[LeakFinding]], ...] = (
    resource_tables,
    tape_cache,
    kernel_cache,
    onednn_cache,
)
# Objects of these may be no more than what the other causes keep.
_BESIDE = {"variables_accumulate": ("models_accumulate",), "python_objects": ("retained_tensors", "retained_arrays")}


def find_causes(case: Case) -> tuple[LeakFinding, ...]:
    """Apply every rule; what the user can change comes before what is TensorFlow's own."""
    if is_of_children(case):
        return tuple(worker_processes(case))
    if is_waiting(case):
        return tuple(waits_for_collector(case))
    if not case.is_told:
        for rules in ((retained, models, compiled_programs), (kernel_cache,)):
            sure = tuple(each for rule in rules for each in rule(case) if each.explains(case.main))
            if sure:
                return sure
        return ()
    found = [finding for rule in _RULES for finding in rule(case)]
    if any(each.cause == "retracing" for each in found):
        found = [each for each in found if each.cause != "graphs_pinned" or each.unit != "step"]
    named = {each.cause for each in found}
    found = [each for each in found if named.isdisjoint(_BESIDE.get(each.cause, ()))]
    found = list({(each.cause, each.where): each for each in reversed(found)}.values())[::-1]
    if not any(each.whose == "yours" for each in found):
        found += next(filter(None, (list(rule(case)) for rule in _KEPT_BY_TENSORFLOW)), [])
    found = found or list(waits_for_collector(case)) or list(nameless_tensors(case))
    found = found or list(filling_cache(case)) or list(malloc_retention(case)) or list(native(case))
    return tuple(sorted(found, key=lambda each: (each.whose != "yours", -(each.confidence or 0.0))))
