"""What Python's collector tells: what one full collection gives back, and which objects are older than a moment.

A collection changes the run, so it is recorded. What the C library holds is asked for along with it.
"""

from __future__ import annotations

import gc
import itertools
import mmap
import operator
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kerasmemwatch.attribution.variables.live_objects import all_but_tuples
from kerasmemwatch.compat.allocator_reads import direct_reads
from kerasmemwatch.errors import MissingNameError
from kerasmemwatch.leaks.evidence.cycles import Cycle, find_cycle
from kerasmemwatch.leaks.evidence.places import Place, calling_line
from kerasmemwatch.leaks.evidence.reads import file_of
from kerasmemwatch.leaks.evidence.roots import is_user_file
from kerasmemwatch.probes.heap import c_function, heap_bytes_reader, malloc_info_reader

__all__ = ["Collected", "Moment", "collect", "full_collections", "in_use_bytes", "rss_bytes", "switched_off_at", "trim"]

_STATM, _TASKS = "/proc/self/statm", "/proc/self/task"


@dataclass(frozen=True)
class Collected:
    """Memory before and after one full collection.

    Attributes:
        num_objects: Unreachable objects that it found.
        device_bytes: Bytes in use given back, by device.
        rss_bytes: RSS given back by the collection; ``None`` if unknown.
        heap_bytes: Bytes of the C library's heap freed by it; ``None`` if unknown.
        malloc_bytes: RSS that the C library had kept though it was free, given back by ``malloc_trim`` before the
            collection; ``None`` if it was not called or there is none.
        top_bytes: How much of that was at the end of the C library's main heap, from where it gives memory back by
            itself; ``None`` if unknown.
        threads: Threads that ended with it.
        cycle: The commonest reference cycle of the user's among what it found.
    """

    num_objects: int
    device_bytes: Mapping[str, int] = field(default_factory=dict)
    rss_bytes: int | None = None
    heap_bytes: int | None = None
    malloc_bytes: int | None = None
    top_bytes: int | None = None
    threads: int = 0
    cycle: Cycle | None = None


def collect(devices: Sequence[str], *, is_host: bool, cycles: bool = True) -> Collected | None:
    """Run one full collection, unless the user switched the collector off.

    Args:
        devices: Names of the devices whose bytes in use are to be read.
        is_host: Whether the host's memory grows: the C library then gives back what is free, which tells its share of
            RSS apart.
        cycles: Whether to look for a cycle of the user's, which takes as long again.
    """
    if not gc.isenabled():
        return None
    first, top = rss_bytes(), _top_bytes() if is_host else None
    trimmed = is_host and trim()
    rss, heap, in_use, threads = rss_bytes(), _heap_bytes(), in_use_bytes(devices), _threads()
    found, cycle = _unreachable() if cycles else (gc.collect(), None)
    if trimmed:
        trim()
    after, after_heap, after_rss = in_use_bytes(devices), _heap_bytes(), rss_bytes()
    return Collected(
        found,
        {name: before - after[name] for name, before in in_use.items() if name in after},
        None if rss is None or after_rss is None else rss - after_rss,
        None if heap is None or after_heap is None else int(heap - after_heap),
        None if not trimmed or first is None or rss is None else first - rss,
        top,
        max(0, threads - _threads()),
        cycle,
    )


def _unreachable() -> tuple[int, Cycle | None]:
    """Free what is unreachable: how many objects there were, and the user's commonest cycle among them.

    They are listed before they are freed, by Python's own means, which takes a second collection.
    """
    flags, others = gc.get_debug(), len(gc.garbage)
    gc.set_debug(flags | gc.DEBUG_SAVEALL)
    try:
        number = gc.collect()
        cycle = find_cycle(gc.garbage[others:])
    finally:
        gc.set_debug(flags)
        if len(gc.garbage) > others:
            del gc.garbage[others:]
            gc.collect()
    return number, cycle


def switched_off_at() -> Place | None:
    """The user's line that switches Python's collector off; ``None`` if it is not found."""
    files = dict.fromkeys(map(file_of, sys.modules.copy().values()))
    lines = (calling_line(file, "gc", "disable") for file in files if is_user_file(file))
    return next(filter(None, lines), None)


def rss_bytes() -> int | None:
    """RSS now; ``None`` if unknown."""
    try:
        with open(_STATM, "rb", buffering=0) as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return None


def _threads() -> int:
    try:
        return len(os.listdir(_TASKS))
    except OSError:
        return 0


def in_use_bytes(devices: Sequence[str]) -> dict[str, int]:
    """Bytes in use now, by device; without those that can't be read."""
    found: dict[str, int] = {}
    if "tensorflow" not in sys.modules:
        return found
    for name in devices:
        try:
            read, _ = direct_reads(name)
            found[name] = int(read()[0])
        except (MissingNameError, AttributeError, TypeError, ValueError, RuntimeError):
            continue
    return found


def _heap_bytes() -> float | None:
    read = heap_bytes_reader()
    return None if read is None else read()


def _top_bytes() -> int | None:
    tell = malloc_info_reader()
    return None if tell is None else int(tell().keepcost)


def trim() -> bool:
    """Have glibc give back free memory; ``False`` where there is no such function."""
    malloc_trim = c_function("malloc_trim")
    if malloc_trim is None:
        return False
    malloc_trim(0)
    return True


class Moment:
    """A moment: Python's collector lists objects by age, of which this is one, until a full collection.

    Args:
        step: The newest row's ``step``.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self._collections = full_collections()

    def older(self) -> list[Any] | None:
        """All objects but tuples that were there at the moment and live; ``None`` if that can't be told any more."""
        # Since 3.14 Python promotes objects gradually.
        if sys.version_info >= (3, 14) or full_collections() != self._collections:
            return None
        every: list[Any] = []
        for generation in (2, 1, 0):
            objects = all_but_tuples(generation)
            every += objects
            objects.clear()  # it may be in itself
        place, oldest = _place(self, every), _place(vars(sys), every)
        # One that was frozen is not listed, and once it is unfrozen it is listed after others.
        if place is None or (oldest is not None and oldest > place):
            every.clear()
            return None
        del every[place:]
        return every


def full_collections() -> int:
    """How many full collections have run in this process: Python sorts old objects anew in each."""
    return int(gc.get_stats()[-1]["collections"])


def _place(value: object, objects: list[Any]) -> int | None:
    is_this = map(operator.is_, objects, itertools.repeat(value))
    return next(itertools.compress(itertools.count(), is_this), None)
