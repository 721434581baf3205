"""Whether memory grows from call to call of one process: many short fits, each perhaps with a watch of its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kerasmemwatch.leaks.verdicts.find import find_growth
from kerasmemwatch.records.growth import Growth, Unit
from kerasmemwatch.records.rows import COUNTERS
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.units import a_unit, format_bytes

__all__ = ["Call", "call_growth", "call_samples"]

# Of a process, the first calls load and trace what all others use.
_WARM_UP, _FEWEST = 2, 10
_UNITS: dict[str, Unit] = {"train": "fit", "test": "evaluate", "predict": "predict"}


@dataclass(frozen=True, slots=True)
class Call:
    """A fit, evaluate or predict that ended, and what was in use when the next one began.

    Attributes:
        number: 1-based, of all calls of the process.
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        steps: Its steps of any stage.
        step: Those of all calls so far.
        model: How many models had been run, its own included.
        is_larger: Whether it had more steps, variables or memory in use than any call before.
        device_bytes: Bytes in use on each device when the next call began, less the variables of that call's model;
            NaN if unknown.
        rss_bytes: RSS at that time, less what our own looks added; NaN if unknown.
        counters: The values of ``records.rows.COUNTERS`` at that time; NaN if unknown.
    """

    number: int
    stage: str
    steps: int
    step: int
    model: int
    is_larger: bool
    device_bytes: tuple[float, ...] = ()
    rss_bytes: float = math.nan
    counters: tuple[float, ...] = ()


def call_growth(run: RunInfo, calls: Sequence[Call], *, is_larger_next: bool = False) -> tuple[Growth, ...]:
    """Judge the series of a process at its calls' ends, devices first; none if there are too few calls.

    Args:
        run: Description of a run of this process.
        calls: The calls, oldest first.
        is_larger_next: Whether the call that ended after them is larger than any before.
    """
    samples = call_samples(calls, is_larger_next=is_larger_next)
    if samples.num_samples < _FEWEST:
        return ()
    judged = _judged_stage(calls)
    count = int(np.sum(samples["stage"] == "train"))
    bare = replace(run, configuration={}, own_rises=())
    return tuple(_in_words(each, judged, count) for each in find_growth(bare, samples))


def call_samples(calls: Sequence[Call], *, is_larger_next: bool = False) -> Samples:
    """The calls as rows: a row at each call's end, its ``step`` counted over all of them.

    What a call that is larger than any before adds is left out: it may be no more than a high-water mark, or what the
    program prepared for it.
    """
    calls = [call for call in calls if call.number > _WARM_UP]
    larger = np.array([call.is_larger for call in calls] + [is_larger_next], bool)
    stages = np.array([call.stage for call in calls], dtype="U7")
    # The judge takes training for the stage that matters.
    stages[stages == _judged_stage(calls)] = "train"
    steps = np.array([call.steps for call in calls], np.int64)
    counters = np.array([call.counters for call in calls]).reshape(len(calls), len(COUNTERS))
    is_larger = larger[:-1] | larger[1:]
    width = min((len(call.device_bytes) for call in calls), default=0)
    devices = [_floor([call.device_bytes[index] for call in calls], is_larger) for index in range(width)]
    return Samples(
        {
            "step": np.array([call.step for call in calls], np.int64),
            "train_step": np.cumsum(steps * (stages == "train")),
            "epoch": np.where(stages == "train", 0.0, np.nan),
            "stage": stages,
            "call": np.array([float(call.number) for call in calls]),
            "model": np.array([float(call.model) for call in calls]),
            "device_in_use_bytes": np.stack(devices, axis=1) if devices else np.empty((len(calls), 0)),
            "host_rss_bytes": _floor([call.rss_bytes for call in calls], is_larger),
            **{name: counters[:, index] for index, name in enumerate(COUNTERS)},
        }
    )


def _judged_stage(calls: Sequence[Call]) -> str:
    stages = Counter(call.stage for call in calls if call.number > _WARM_UP)
    return "train" if "train" in stages or not stages else stages.most_common(1)[0][0]


def _floor(values: Sequence[float], is_larger: np.ndarray) -> np.ndarray:
    """The values less the rises to calls that are larger than any before."""
    found = np.array(values, float)
    rises = np.diff(found)
    found[1:] -= np.cumsum(np.where(is_larger[1:] & (rises > 0), rises, 0.0))
    return found


def _in_words(growth: Growth, judged: str, count: int) -> Growth:
    """A verdict whose steps are of no run: told by the call instead."""
    unit = _UNITS[judged] if growth.unit in ("step", "epoch", "fit") else growth.unit
    growth = replace(growth, unit=unit, since_step=None, met_at=None, num_samples=count)
    verb = "grows" if growth.is_growing else "rises"
    if growth.rate is None or growth.interval is None:
        return growth
    low, high = (format_bytes(end) for end in growth.interval)
    pace = f"{format_bytes(growth.rate)} {a_unit(unit)} (95 % interval {low} to {high})"
    over = f"over {count:,} {_UNITS[judged]}s of this process"
    words = f"{growth.verdict.capitalize()}: {growth.label} {verb} by {pace}, {over}"
    return replace(growth, explanation=words)
