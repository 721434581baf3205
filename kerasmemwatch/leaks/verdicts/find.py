"""The series of a recording that are judged, and their verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kerasmemwatch.leaks.verdicts.filling import CacheReadings, Filling, Shuffle, kept_results
from kerasmemwatch.leaks.verdicts.floor import NUM_PARTS
from kerasmemwatch.leaks.verdicts.judge import judge
from kerasmemwatch.leaks.verdicts.series import Series
from kerasmemwatch.records.growth import WAITS, Growth, OwnRise
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Samples

__all__ = ["CHILDREN", "HEAP", "find_growth", "is_garbage_of_heap", "series_of", "worker_name"]

CHILDREN = "host_children_uss_bytes"
HEAP = "host_malloc_bytes"
_DEVICE, _RSS, _USS = "device_in_use_bytes", "host_rss_bytes", "host_uss_bytes"
# Rows before and after a look of ours that are compared.
_AROUND = 20
_OPTIONAL = {"calls": "call", "models": "model", "collections": "gc_full_collections"}


def find_growth(run: RunInfo, samples: Samples, workers: Sequence[tuple[RunInfo, Samples]] = ()) -> tuple[Growth, ...]:
    """Judge each series of a recording, devices first.

    With several workers, each one's RSS is judged by itself: the maximum over workers falls when one ends, and hides
    growth in a smaller one.
    """
    found = (judge(series) for series in series_of(run, samples, workers))
    return tuple(each for each in found if _is_worth_a_word(each))


def _is_worth_a_word(growth: Growth) -> bool:
    """Whether a verdict is told: USS is seldom read, so that too little of it says nothing; the heap is only a hint."""
    if growth.series.startswith(HEAP):
        return growth.since_step is not None
    return not (growth.series.startswith((_USS, CHILDREN)) and growth.verdict == "too short to tell")


def is_garbage_of_heap(growth: Growth) -> bool:
    """Whether a verdict tells of garbage in the heap, which RSS does not show."""
    return growth.series.startswith(HEAP) and growth.verdict == WAITS


def series_of(run: RunInfo, samples: Samples, workers: Sequence[tuple[RunInfo, Samples]] = ()) -> Iterator[Series]:
    """The series of a recording that may grow: bytes in use of each device, RSS, USS, USS of children."""
    in_use = samples.get(_DEVICE)
    for index, device in enumerate(run.devices):
        if in_use is not None and index < in_use.shape[1] and not np.isnan(in_use[:, index].astype(float)).all():
            is_partial = device.counting == "partial"
            if is_partial and not np.any(in_use[:, index] > 0):
                continue  # a partial count of 0 says nothing
            yield Series(
                **_common(run, samples, in_use[:, index], device.name),
                name=f"{_DEVICE} {device.name}",
                label=f"{device.name} in use" + " (partial)" * is_partial,
                limit=_limit(device.limit_bytes),
                is_partial=is_partial,
            )
    for whose, run_of, own in [(f" {worker_name(each)}", each, own) for each, own in workers] or [("", run, samples)]:
        of = f" of{whose}" if whose else ""
        # USS is read where epochs end, so that there are few rows or none. Most processes have no children.
        columns = (_RSS, "host RSS", 1), (_USS, "host USS", NUM_PARTS), (CHILDREN, "USS of child processes", NUM_PARTS)
        for column, label, fewest in columns:
            values = own.get(column, np.empty(0)).astype(float)
            if np.count_nonzero(values > 0 if column == CHILDREN else ~np.isnan(values)) >= fewest:
                yield Series(
                    **_common(run_of, own, _without_own(run_of, own, column)),
                    name=f"{column}{whose}",
                    label=f"{label}{of}",
                    kind="host",
                    limit=_limit(run_of.host.get("limit_bytes")),
                )
        heap = own.get(HEAP, np.empty(0)).astype(float)
        if np.count_nonzero(~np.isnan(heap)) >= NUM_PARTS:
            yield Series(**_common(run_of, own, heap), name=f"{HEAP}{whose}", label=f"host heap{of}", kind="heap")


def worker_name(run: RunInfo) -> str:
    """A worker's name; for an ordinary run, the run's name."""
    return run.worker.name if run.worker else run.name


def _without_own(run: RunInfo, samples: Samples, column: str) -> np.ndarray:
    """A column of the host's memory less what our own looks for causes added."""
    values, steps = samples[column].astype(float), samples["step"]
    for rise in () if column == CHILDREN else run.own_rises:
        values[steps > rise.step] -= _own_part(rise, samples, values)
    return values


def _own_part(rise: OwnRise, samples: Samples, values: np.ndarray) -> float:
    """What of a rise of ours the rows after it have: the C library may give it back at once, and more beside it."""
    known, later = ~np.isnan(values), samples["step"] > rise.step
    before, after = np.flatnonzero(known & ~later)[-_AROUND:], np.flatnonzero(known & later)[:_AROUND]
    if not (before.size and after.size):
        return rise.rss_bytes
    jump = float(values[after].min() - values[before].min())  # RSS often falls where an epoch ends, as looks do
    if jump >= rise.rss_bytes / 2:
        return rise.rss_bytes
    collections = _floats(samples.get(_OPTIONAL["collections"]))
    was_collected = collections is not None and collections[after[0]] > collections[before[-1]]
    return max(jump, 0.0 if was_collected else float(-rise.rss_bytes))


def _common(run: RunInfo, samples: Samples, values: np.ndarray, device: str = "CPU:0") -> dict[str, Any]:
    caches = run.configuration.get("dataset_caches_bytes")
    return {
        "steps": samples["step"],
        "values": values.astype(float),
        "stages": samples.get("stage"),
        "train_steps": samples.get("train_step"),
        "epochs": _floats(samples.get("epoch")),
        "ended": samples.get("ended"),
        "caches": None if caches is None else tuple(caches),
        "filling": _filling(run, samples, device),
        "shuffle": _shuffle(run, device),
        **{field: _floats(samples.get(column)) for field, column in _OPTIONAL.items()},
    }


def _filling(run: RunInfo, samples: Samples, device: str) -> Filling | None:
    """What is known to fill a device's memory; datasets and a CPU's tensors are in the host's."""
    facts, steps, stages = run.configuration, samples["step"], samples.get("stage")
    results = facts.get("predict_results_bytes")
    computes_on = next((each.name for each in run.devices if each.name.startswith("GPU")), "CPU:0")
    if results is not None and stages is not None and np.all(stages == "predict") and device == computes_on:
        return kept_results(steps, samples.get("call"), results)
    if not device.startswith("CPU"):
        return None
    read = zip(facts.get("dataset_caches_read_steps", ()), facts.get("dataset_caches_held_bytes", ()), strict=False)
    return CacheReadings(facts.get("dataset_caches_bytes", ()), read).filling(steps)


def _shuffle(run: RunInfo, device: str) -> Shuffle | None:
    """The shuffle buffer of the newest pass over a dataset that lasts for several epochs."""
    names = ("dataset_shuffle_bytes", "dataset_shuffle_steps", "dataset_shuffle_since_step")
    num_bytes, num_steps, since_step = map(run.configuration.get, names)
    if not device.startswith("CPU") or num_bytes is None or num_steps is None or since_step is None:
        return None
    return Shuffle(num_bytes, num_steps, since_step)


def _floats(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None or values.ndim != 1 else values.astype(float)


def _limit(limit: Any) -> int | None:
    return int(limit) if isinstance(limit, (int, float)) and limit > 0 else None
