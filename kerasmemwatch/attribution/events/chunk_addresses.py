"""Addresses where an allocator's chunks can begin, and bounds on the sizes of chunks. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ChunkPlaces", "chunk_bytes"]

# tensorflow/tsl/framework/bfc_allocator.h: kMinAllocationSize; a chunk is split if it is at least twice the request.
_CHUNK_BYTES = 256
# The allocator takes memory from the system in regions of at least this size (bfc_allocator.cc: RoundedBytes(2 << 20)).
_NEAR = 1 << 21


def chunk_bytes(requested: int) -> int:
    """Return the minimum size of a chunk for a request."""
    return -(-requested // _CHUNK_BYTES) * _CHUNK_BYTES


class ChunkPlaces:
    """Known addresses.

    Chunks begin at multiples of their minimum size from the start of a region of the allocator. No chunk overlaps
    another buffer that is alive at the same time.
    """

    def __init__(self, chunks: Sequence[int] | NDArray[np.uint64], others: Sequence[int] = ()) -> None:
        known = np.unique(np.asarray(chunks, np.uint64))
        self._all = np.unique(np.concatenate([known, np.asarray(others, np.uint64)]))
        self._ends = (int(known[0]) - _NEAR, int(known[-1]) + _NEAR) if len(known) else (0, 1 << 64)
        begins = defaultdict[int, set[int]](set)
        for place in np.unique(known // _NEAR * _CHUNK_BYTES + known % _CHUNK_BYTES).tolist():
            begins[place // _CHUNK_BYTES].add(place % _CHUNK_BYTES)
        self._begins = dict(begins)

    def may_begin(self, address: int) -> bool:
        """Whether a chunk is likely to begin here: in a known region, chunks begin only at those multiples."""
        return self._ends[0] <= address <= self._ends[1] and self.begins(address) is not False

    def begins(self, address: int) -> bool | None:
        """Whether an address is such a multiple; ``None`` if no known chunk is near."""
        near = set[int]().union(*(self._begins.get(address // _NEAR + by, ()) for by in (-1, 0, 1)))
        return address % _CHUNK_BYTES in near if near else None

    def room_behind(self, address: int, requested: int) -> int | None:
        """Bytes from the earliest end of the chunk at an address to the next known buffer; ``None`` without one."""
        after = int(np.searchsorted(self._all, np.uint64(address), "right"))
        if not address or after == len(self._all):
            return None
        return max(0, int(self._all[after]) - address - chunk_bytes(requested))
