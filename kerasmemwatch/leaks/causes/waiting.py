"""Memory that waits for Python's full collection, which rarely runs in a process of TensorFlow's."""

from __future__ import annotations

from collections.abc import Iterator

from kerasmemwatch.leaks.causes.case import Case, at
from kerasmemwatch.leaks.verdicts.find import is_garbage_of_heap
from kerasmemwatch.records.growth import LeakFinding
from kerasmemwatch.units import format_bytes

__all__ = ["is_waiting", "waits_for_collector"]

_LEAST_SHARE, _LEAST_BYTES, _FEWEST_THREADS = 0.4, 64 * 1024, 3
_BREAK = (
    "Break the cycle: hold the object by weakref.ref (a method by weakref.WeakMethod), or set the name to None when it "
    "is done with. Or call gc.collect() {regularly}."
)


def waits_for_collector(case: Case) -> Iterator[LeakFinding]:
    """A finding if one collection gave most of the growth back, or if the user switched the collector off."""
    released = released_bytes(case)
    if case.collector_on and not is_waiting(case):
        return
    found = case.collected
    if not case.collector_on:
        evidence = "Python's garbage collector is switched off (gc.disable()), so unreachable objects stay."
        fix, confidence = f"Call gc.enable(), or gc.collect() {case.regularly}.", 0.6
    else:
        assert found is not None and released is not None
        evidence = (
            f"One full collection found {found.num_objects:,} unreachable objects and gave back "
            f"{format_bytes(released)}{_beside(case)}. Until then none had run for {case.rises.steps:,.0f} steps."
        )
        fix, confidence = _remedy(case), 0.95
    issue = "tensorflow #33009" if _calls_often(case) else "" if case.collector_on else "tensorflow #14181"
    cycle = None if found is None else found.cycle
    where = "" if case.look is None or case.look.call is None else f"{case.look.call.file}:{case.look.call.line}"
    if case.off_at is not None:
        where = at(case.off_at)
    if cycle is not None:
        through = f", each of which refers to itself through .{cycle.attribute}" if cycle.attribute else ""
        evidence += f" Of these, {cycle.count:,} were {cycle.what}{through}."
        where, fix, issue = at(cycle.place), _BREAK.format(regularly=case.regularly), ""
    yield LeakFinding(
        cause="waits_for_collector",
        evidence=evidence,
        bytes_per_step=case.main.bytes_per_step,
        since_step=case.main.since_step,
        confidence=confidence,
        where=where,
        fix=fix,
        unit=case.main.unit,
        rate=case.main.rate,
        known_issue=issue,
        whose="yours" if cycle is not None or not case.collector_on else "Keras'",
    )


def is_waiting(case: Case) -> bool:
    """Whether a collection that was run now gave most of the growth back."""
    # Looks are taken after a collection that did not explain the growth; at garbage of the heap none is taken.
    has_looked = bool(case.looks) and not is_garbage_of_heap(case.main)
    if has_looked or case.grown_then is not None or not case.is_told:
        return False
    released = released_bytes(case)
    return released is not None and released >= _LEAST_BYTES and released >= _LEAST_SHARE * case.grown_bytes


def released_bytes(case: Case) -> int | None:
    """Bytes of the growing series that the collection gave back."""
    if case.collected is None:
        return None
    if case.main.series.startswith("device"):
        return case.collected.device_bytes.get(case.main.series.rpartition(" ")[2])
    return case.collected.heap_bytes if is_garbage_of_heap(case.main) else case.collected.rss_bytes


def _beside(case: Case) -> str:
    """What it gave back of the heap, where that is more than what the growing series lost."""
    heap, released = None if case.collected is None else case.collected.heap_bytes, released_bytes(case) or 0
    return f", and {format_bytes(heap)} of the host's heap" if heap is not None and heap > 2 * released else ""


def _calls_often(case: Case) -> bool:
    return case.rises.calls >= 10 and case.rises.steps / case.rises.calls <= 4


def _remedy(case: Case) -> str:
    rises, found = case.rises, case.collected
    threads = found.threads if found is not None else 0
    if threads >= _FEWEST_THREADS or rises.py_functions >= _FEWEST_THREADS:
        return "Call gc.collect() after every 10 calls: a few garbage objects hold threads and native memory."
    if _calls_often(case):
        return (
            "For single batches call model.predict_on_batch() and model.train_on_batch() instead of predict() and "
            "fit(); or call gc.collect() every 25 steps."
        )
    return f"Call gc.freeze() once after set-up, so that full collections run often; or gc.collect() {case.regularly}."
