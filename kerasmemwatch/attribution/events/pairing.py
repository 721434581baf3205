"""Births and deaths paired into allocations. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents

__all__ = ["Allocations", "pair"]


@dataclass(frozen=True, eq=False)
class Allocations:
    """One row per allocation: those made within the step in order of birth, then those that only died in it."""

    birth: NDArray[np.int64]  # `int64[n]`, index of the event; -1 if it was alive before
    death: NDArray[np.int64]  # `int64[n]`, index of the event; the number of events if it outlives the step
    event: NDArray[np.int64]  # `int64[n]`, index of the event that describes it: its birth if known, else its death


def pair(events: AllocationEvents) -> Allocations:
    """Pair each birth with the next death at its address."""
    count = len(events)
    by_address = np.lexsort((np.arange(count), events.address))
    address, is_birth = events.address[by_address], events.births[by_address]
    same = np.append(address[1:] == address[:-1], False)
    # The next event at a birth's address is its death, or another birth if the death was missed.
    dies = is_birth & same & ~np.append(is_birth[1:], True)
    death = np.full(count, count, np.int64)
    followers = np.append(by_address[1:], 0)
    death[by_address[dies]] = followers[dies]
    born_here = np.zeros(count, bool)
    born_here[followers[dies]] = True
    births = np.flatnonzero(events.births)
    strays = np.flatnonzero(~events.births & ~born_here)
    # With two births at one address and no death in between, the first allocation ends when the second begins.
    missed = is_birth & same & np.append(is_birth[1:], False)
    death[by_address[missed]] = followers[missed]
    return Allocations(
        birth=np.concatenate([births, np.full(len(strays), -1, np.int64)]),
        death=np.concatenate([death[births], strays]),
        event=np.concatenate([births, strays]),
    )
