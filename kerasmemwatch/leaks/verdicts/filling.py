"""What is known to fill while a series rises: caches of a dataset, its shuffle buffer, or what a predict keeps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST_SHUFFLED", "CacheReadings", "Filling", "Shuffle", "kept_results"]

Floats = NDArray[np.float64]

# What else rises beside it, as a share of it: the allocator's chunks, other buffers of the pipeline; of RSS, also what
# the C library adds to each block.
_OVERHEAD, _HOST_OVERHEAD = 1.25, 1.5
# After so many steps the pace of elements through a shuffle buffer is known.
FEWEST_SHUFFLED = 20
# Elements that replace others in a shuffle buffer fit less well: an allocator gives a free chunk whole that is less
# than twice as large. What a buffer takes rises by up to a fifth, nearly with the share of its elements that were
# replaced (benchmarks/shuffle.py); both leave room for noise.
_LOOSER, _SLOWER = 0.3, 1.25
# A device that counts what fills rises by at least this share of it.
_COUNTED = 0.5
# A reading takes about a millisecond, and is due when so many steps have passed since the last one, and this share.
_FEWEST_STEPS, _SHARE = 20, 8
# Older readings are dropped: they are of caches of earlier fits.
_MOST_READINGS = 100


@dataclass(frozen=True, eq=False)
class Filling:
    """Something that fills.

    Attributes:
        held: ``float[num_rows]``, bytes that it holds at each row of the series.
        full_bytes: What it holds once it is full; ``None`` if unknown.
        are_results: Whether it is the results that a predict keeps until it ends; otherwise it is the dataset's cache.
    """

    held: Floats
    full_bytes: int | None = None
    are_results: bool = False

    def rises_at(self, row: int) -> bool:
        """Whether it is still filling at a row of the series."""
        return row > 0 and bool(self.held[row] > self.held[row - 1])

    def explains(self, rise: float, first: int, last: int, *, is_device: bool) -> bool:
        """Whether it rose by as much as the series did.

        Args:
            rise: By how many bytes the series rose.
            first: From which of its rows.
            last: To which.
            is_device: Whether the series is a device's; RSS may take room that was free before.
        """
        own = float(self.held[last] - self.held[first])
        least, most = (_COUNTED, _OVERHEAD) if is_device else (0.0, _HOST_OVERHEAD)
        return own > 0 and least * own <= rise <= most * own


@dataclass(frozen=True)
class Shuffle:
    """A shuffle buffer that stays full for several epochs, while elements replace each other in it.

    Attributes:
        num_bytes: What it holds.
        num_steps: In so many steps as many elements pass as it holds.
        since_step: The pass over the dataset began after this step.
    """

    num_bytes: int
    num_steps: float
    since_step: int

    def explains(self, rise: float, first: int, last: int) -> bool:
        """Whether a device may have risen so far from step to step because its elements were replaced.

        Args:
            rise: Bytes.
            first: After this step.
            last: Until the end of this step.
        """
        if first <= self.since_step:
            return False
        steps = _SLOWER * max(1.0, self.num_steps)
        left, still_left = (math.exp((self.since_step - step) / steps) for step in (first, last))
        return rise <= _LOOSER * self.num_bytes * (left - still_left)


class CacheReadings:
    """What the in-memory caches of a dataset held, as it was read while they filled.

    Attributes:
        sizes: Bytes that each holds once it is full; ``None`` for an unknown size.
        readings: Steps, each with the bytes that the caches held then.
    """

    def __init__(self, sizes: Sequence[int | None] = (), readings: Iterable[tuple[int, int]] = ()) -> None:
        self.sizes, self.readings = tuple(sizes), list(readings)
        self._due_step = math.inf

    def begin(self, step: int, sizes: Sequence[int | None]) -> None:
        """A pass over a dataset begins that may fill its caches."""
        self.sizes, self._due_step = tuple(sizes), math.inf
        if sizes:
            self.add(step, 0)

    def is_due(self, step: int) -> bool:
        """Whether it is worth reading what the caches hold."""
        return step >= self._due_step

    def add(self, step: int, held_bytes: int | None) -> None:
        """Add a reading; ``None`` if they could not be read."""
        self._due_step = step + max(_FEWEST_STEPS, step // _SHARE * (held_bytes != 0))
        if held_bytes is None:
            return
        if not held_bytes and self.readings and not self.readings[-1][1]:
            self.readings.pop()
        self.readings = [*self.readings, (step, held_bytes)][-_MOST_READINGS:]

    def filling(self, steps: NDArray[Any]) -> Filling | None:
        """What they held at each step; ``None`` if that was not read.

        Between readings it is taken to rise evenly; after the last one, at most for as long as before that one.

        Args:
            steps: ``int[num_rows]``.
        """
        if len(self.readings) < 2 or not len(steps):
            return None
        full = None if None in self.sizes else sum(size or 0 for size in self.sizes)
        at, held = np.asarray(self.readings, float).T
        later = 2 * held[-1] - held[-2]
        if held[-1] > held[-2]:
            at = np.append(at, 2 * at[-1] - at[-2])
            held = np.append(held, later if full is None else max(held[-1], min(later, full)))
        return Filling(np.interp(steps, at, held), full)


def kept_results(steps: NDArray[Any], calls: NDArray[Any] | None, per_step: float) -> Filling | None:
    """What each ``predict`` keeps until it ends; ``None`` without rows.

    Args:
        steps: ``int[num_rows]``.
        calls: ``float[num_rows]``, the number of each row's call, NaN if unknown; ``None`` if all are of one.
        per_step: Bytes that it keeps of a step.
    """
    if not len(steps):
        return None
    numbers = np.zeros(len(steps)) if calls is None else np.nan_to_num(calls)
    is_first = np.diff(numbers, prepend=numbers[:1]) != 0  # a process that resumes a run counts its calls anew
    begins = np.maximum.accumulate(np.where(is_first, np.arange(len(steps)), 0))
    return Filling(per_step * (steps - steps[begins]).astype(float), are_results=True)
