"""Allocator events made up for tests: by hand, one a line, or at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents

BASE_BYTES = 1 << 20
THREADS = ("python3", "tf_Compute/7", "tf_data_private_threadpool/8")
PYTHON, COMPUTE, PIPELINE = range(3)


def chunk(size: int) -> int:
    """What the allocator takes for a request, if it splits."""
    return -(-size // 256) * 256


def events(lines: Sequence[Any], *, before: int = BASE_BYTES, threads: Sequence[str] = THREADS) -> AllocationEvents:
    """Events in order, 10 ns apart, the first at 1,000.

    Args:
        lines: ``(address, bytes)``, perhaps with a name of an operation, a thread's index and a run; a death has its
            bytes negative.
        before: In use before the first.
        threads: Names of threads.
    """
    full = [(*line, *("", COMPUTE, 1)[len(line) - 2 :]) for line in lines]
    sizes = np.array([abs(line[1]) for line in full], np.int64)
    births = np.array([line[1] > 0 for line in full], bool)
    reserved = np.array([chunk(size) for size in sizes.tolist()], np.int64)
    ops = tuple(dict.fromkeys(["", *(line[2] for line in full)]))
    return AllocationEvents(
        allocator="cpu",
        births=births,
        time_ns=1_000 + 10 * np.arange(len(full), dtype=np.int64),
        address=np.array([line[0] for line in full], np.uint64),
        requested_bytes=sizes,
        reserved_bytes=reserved,
        in_use_bytes=before + np.cumsum(np.where(births, reserved, -reserved)),
        op=np.array([ops.index(line[2]) for line in full], np.int32),
        run=np.array([line[4] for line in full], np.int64),
        thread=np.array([line[3] for line in full], np.int32),
        ops=ops,
        threads=tuple(threads),
        began_ns=900,
    )


def random_lines(rng: np.random.Generator, count: int, *, lost: float = 0.0) -> list[tuple[int, int, str, int, int]]:
    """Births and deaths at few addresses; some are of what was there before, and a share of the deaths is lost."""
    free, alive = list(range(256, 256 * 41, 256)), dict[int, int]()
    unborn = {256 * index: int(rng.integers(1, 5000)) for index in range(100, 110)}
    lines = []
    while len(lines) < count:
        op, thread, run = f"op_{rng.integers(6)}", int(rng.integers(3)), int(rng.integers(3))
        if unborn and rng.random() < 0.05:
            address, size = unborn.popitem()
            lines.append((address, -size, "", thread, run))
        elif alive and (not free or rng.random() < 0.5):
            address = int(rng.choice(list(alive)))
            size = alive.pop(address)
            free.append(address)
            if rng.random() >= lost:
                lines.append((address, -size, "", thread, run))
        else:
            address = free.pop(int(rng.integers(len(free))))
            alive[address] = int(rng.integers(1, 5000))
            lines.append((address, alive[address], op, thread, run))
    return lines
