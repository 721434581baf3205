"""How often the interval of a rate holds the true one, on simulated and on resampled series; and a look's time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _growth_record import Series as Recorded

from kerasmemwatch.leaks.verdicts.find import find_growth
from kerasmemwatch.leaks.verdicts.judge import judge
from kerasmemwatch.leaks.verdicts.series import Series
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.units import KIB, MIB

__all__ = ["Coverage", "coverage", "look_ms"]

_SEED = 2026
_BLOCK = 50
_LOOKS = 15
# Bytes that grow exactly evenly have an interval of no width.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Coverage:
    """Intervals of series whose rate is known.

    Attributes:
        made: How many series.
        judged: Of how many an interval was told.
        held: How many of these held the true rate.
    """

    made: int
    judged: int
    held: int

    @property
    def percent(self) -> float:
        """Of those that were told."""
        return 100 * self.held / self.judged if self.judged else float("nan")


def coverage(recorded: Sequence[Recorded], count: int) -> dict[str, Coverage]:
    """Coverage on so many series, half of them simulated, the other half resampled from clean recordings."""
    rng = np.random.default_rng(_SEED)
    quiet = [_noise(each) for each in recorded]
    usable = [noise for noise in quiet if noise is not None]
    found = {"simulated": _covered([_simulated(rng) for _ in range(count // 2)], rng)}
    if usable:
        chosen = rng.integers(0, len(usable), count // 2)
        found["resampled"] = _covered([_resampled(usable[index], rng) for index in chosen], rng)
    return found


def _covered(noises: list[Any], rng: np.random.Generator) -> Coverage:
    judged = held = 0
    for noise in noises:
        rate = float(rng.choice([0.0, 256.0, KIB, 4 * KIB, 32 * KIB]))
        steps = np.arange(1, len(noise) + 1)
        per_epoch = int(rng.integers(30, 120))
        grown = judge(Series(steps, noise + rate * steps, epochs=(steps - 1.0) // per_epoch))
        if grown.interval is None:
            continue
        low, high = (end / grown.steps_per_unit for end in grown.interval)
        judged += 1
        held += bool(low - _ROUNDING * rate <= rate <= high + _ROUNDING * rate)
    return Coverage(len(noises), judged, held)


def _simulated(rng: np.random.Generator) -> Any:
    """Bytes in use without growth: rows that hang together, batches that wait, pages, rare jumps that go back."""
    rows = int(rng.integers(200, 1_500))
    kind = rng.integers(4)
    size = float(rng.choice([16 * KIB, 200 * KIB, 2 * MIB]))
    if kind == 0:
        noise = rng.normal(0, size / 4, rows)
    elif kind == 1:
        noise = _autoregressive(rng.normal(0, size / 4, rows), float(rng.uniform(0.3, 0.95)))
    elif kind == 2:  # two or three batches wait, for a while
        waiting = np.cumsum(rng.random(rows) < rng.uniform(0.05, 0.8)) % 2
        noise = size * waiting + rng.normal(0, size / 100, rows)
    else:
        noise = np.round(_autoregressive(rng.normal(0, size / 8, rows), 0.8) / 4096) * 4096
        noise += size * (rng.random(rows) < 0.02)
    return 64.0 * MIB + noise


def _autoregressive(shocks: Any, weight: float) -> Any:
    values = np.empty_like(shocks)
    last = 0.0
    for index, shock in enumerate(shocks):
        last = weight * last + shock
        values[index] = last
    return values


def _noise(recorded: Recorded) -> Any:
    """What a clean device's bytes in use do about their median after the first third of the training steps."""
    samples = recorded.samples
    in_use = samples["device_in_use_bytes"]
    if not in_use.shape[1]:  # nothing was counted
        return None
    values = in_use[samples["stage"] == "train", 0].astype(float)
    values = values[len(values) // 3 :]
    return values - np.median(values) if len(values) >= 4 * _BLOCK and np.ptp(values) > 0 else None


def _resampled(noise: Any, rng: np.random.Generator) -> Any:
    """Blocks of it in random order, so that nothing grows but neighbours still hang together."""
    blocks = int(rng.integers(200, 1_500)) // _BLOCK
    begins = rng.integers(0, len(noise) - _BLOCK, blocks)
    return 64.0 * MIB + np.concatenate([noise[begin : begin + _BLOCK] for begin in begins])


def look_ms(rows: int = 10_000) -> float:
    """Milliseconds of CPU of a look at so many rows of a device, of RSS and of USS: the median."""
    rng = np.random.default_rng(_SEED)
    steps = np.arange(1, rows + 1)
    columns = {
        "step": steps,
        "train_step": steps,
        "epoch": (steps - 1) // 100,
        "stage": np.full(rows, "train"),
        "ended": np.ones(rows, bool),
        "device_in_use_bytes": (64 * MIB + rng.integers(0, 3, (rows, 1)) * 100 * KIB + 300 * steps[:, np.newaxis]),
        "host_rss_bytes": 500 * MIB + np.cumsum(rng.random(rows) < 0.1) * 4096,
        "host_uss_bytes": 400 * MIB + np.cumsum(rng.random(rows) < 0.1) * 4096,
    }
    run, samples = RunInfo("made", 0.0, devices=(DeviceInfo("CPU:0"),)), Samples(columns)
    times = []
    for _ in range(_LOOKS):
        begun = time.process_time()
        find_growth(run, samples)
        times.append(time.process_time() - begun)
    return 1e3 * float(np.median(times))
