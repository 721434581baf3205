"""Looks at recorded series after every 20 rows: what is said of them, and of known growth added to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _growth_programs import PROGRAMS
from _growth_record import Series

from kerasmemwatch.leaks.verdicts.find import find_growth
from kerasmemwatch.records.growth import Growth
from kerasmemwatch.units import KIB

__all__ = ["LEAKS", "Alarm", "Leak", "Search", "alarms", "is_held_out", "search"]

_EVERY = 20
# Without epochs, nothing is judged before.
_ROWS_WITHOUT_EPOCHS = 200
_SPLIT_SEED = 15
_UNEVEN_STEPS = 4


@dataclass(frozen=True)
class Alarm:
    """A series that is said to grow.

    Attributes:
        recorded: Of which program and seed.
        rows: After how many rows it was said first.
        growth: What was said.
    """

    recorded: Series
    rows: int
    growth: Growth


@dataclass(frozen=True)
class Leak:
    """Growth that is added to recorded series.

    Attributes:
        columns: The columns that grow.
        bytes_per_step: How fast.
        within: It has to be found in so many training steps after the first epoch.
        target: In how many of a hundred programs; ``None`` for no target.
        needs_epochs: Whether only programs with several epochs count.
        is_uneven: Whether it comes with one step of four, by chance, and not with each.
    """

    columns: tuple[str, ...]
    bytes_per_step: int
    within: int
    target: int | None
    needs_epochs: bool = False
    is_uneven: bool = False

    @property
    def name(self) -> str:
        """Its kind, rate and horizon in words."""
        kind = "device" if self.columns[0].startswith("device") else "RSS"
        size = f"{self.bytes_per_step} B" if self.bytes_per_step < KIB else f"{self.bytes_per_step // KIB} KiB"
        uneven = " unevenly" * self.is_uneven
        return f"{kind} +{size} a step{uneven} within {self.within:,} steps"

    def added(self, steps: Any) -> Any:
        """Bytes that it has added after so many steps."""
        if not self.is_uneven:
            return self.bytes_per_step * steps
        comes = np.random.default_rng(_SPLIT_SEED).random(int(max(steps, default=0)) + 1) < 1 / _UNEVEN_STEPS
        return _UNEVEN_STEPS * self.bytes_per_step * np.cumsum(comes)[np.asarray(steps, int)]


_DEVICE, _HOST = ("device_in_use_bytes",), ("host_rss_bytes", "host_uss_bytes")
LEAKS = (
    Leak(_DEVICE, 4 * KIB, 200, 98),
    Leak(_DEVICE, KIB, 200, 95),
    Leak(_DEVICE, 4 * KIB, 200, None, is_uneven=True),
    Leak(_DEVICE, 256, 500, 75, needs_epochs=True),
    Leak(_HOST, 64 * KIB, 200, 90),
    Leak(_HOST, 32 * KIB, 1_000, 90),
)


@dataclass(frozen=True)
class Search:
    """A leak in one recorded series.

    Attributes:
        recorded: Which.
        after: Training steps after the first epoch at which it was found; ``None`` if it was not.
        growth: What was said then.
    """

    recorded: Series
    after: int | None
    growth: Growth | None


def is_held_out(recorded: Series) -> bool:
    """Whether a program was held out while the rule was chosen: half of them, drawn once, and all fresh ones."""
    if recorded.program not in PROGRAMS:
        return True
    drawn = np.random.default_rng(_SPLIT_SEED).permutation(len(PROGRAMS))[: len(PROGRAMS) // 2]
    return PROGRAMS.index(recorded.program) in drawn


def alarms(recorded: Series) -> list[Alarm]:
    """Each column that is said to grow in one of the looks, when that is said first."""
    found: dict[str, Alarm] = {}
    for rows, grown in _looks(recorded, 0):
        for growth in grown:
            if growth.verdict == "growing":
                found.setdefault(growth.series, Alarm(recorded, rows, growth))
    return list(found.values())


def search(recorded: Series, leak: Leak) -> Search | None:
    """Add a leak to a series and look for it; ``None`` if it is unknown, too short, or has no epochs but needs them."""
    if np.isnan(recorded.samples[leak.columns[0]].astype(float)).all():
        return None
    steps = _training_steps(recorded)
    begin = _first_epoch_rows(recorded)
    if begin is None:
        if leak.needs_epochs or _has_one_epoch(recorded) or len(steps) <= _ROWS_WITHOUT_EPOCHS:
            return None
        begin = _ROWS_WITHOUT_EPOCHS
    last = int(np.searchsorted(steps, steps[begin - 1] + leak.within, "right"))
    if last == len(steps) and steps[-1] < steps[begin - 1] + leak.within:
        return None
    leaking = recorded
    for column in leak.columns:
        if column in leaking.samples:
            leaking = leaking.plus(column, leak.added(steps))
    for rows, grown in _looks(leaking, begin, last):
        for growth in grown:
            if growth.verdict == "growing" and growth.series.startswith(leak.columns):
                return Search(recorded, int(steps[rows - 1] - steps[begin - 1]), growth)
    return Search(recorded, None, None)


def _looks(recorded: Series, begin: int, end: int | None = None) -> Iterator[tuple[int, Sequence[Growth]]]:
    end = recorded.samples.num_samples if end is None else end
    for rows in sorted({*range(_EVERY, end + 1, _EVERY), end}):
        if rows > begin:
            yield rows, find_growth(recorded.run, recorded.until(rows))


def _training_steps(recorded: Series) -> Any:
    """Training steps so far, by row; steps of any kind where nothing trains."""
    steps = recorded.samples["train_step"]
    return steps if steps[-1] > steps[0] else recorded.samples["step"]


def _first_epoch_rows(recorded: Series) -> int | None:
    """How many rows the first epoch has, with its validation; ``None`` without a second epoch."""
    epochs = recorded.samples["epoch"].astype(float)
    changes = np.flatnonzero(epochs[1:] != epochs[:-1])
    return None if np.isnan(epochs[0]) or not len(changes) else int(changes[0]) + 1


def _has_one_epoch(recorded: Series) -> bool:
    return not np.isnan(float(recorded.samples["epoch"][0]))
