"""The rows since the last chunk, in a preallocated memory-mapped ring: a row survives ``kill -9`` without any I/O.

The page cache belongs to the kernel, so what a killed process had written into the mapping still reaches the file.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerasmemwatch.errors import RecordingFormatError
from kerasmemwatch.schema import Layout, Rows, layout_from_json, layout_to_json

__all__ = ["JOURNAL_NAME", "Journal", "read_journal"]

JOURNAL_NAME = "rows.journal"
CAPACITY = 8192
_MAGIC = b"KMWRING1"
_FIXED = struct.Struct("<8sIIIIqq")  # magic, capacity, values a row, JSON bytes, unused, head, tail
_COUNTER = struct.Struct("<q")
_HEAD_OFFSET, _TAIL_OFFSET = 24, 32
_HEADER_BYTES = 4096


class Journal:
    """A ring of rows with two counters: ``head`` rows written so far, ``tail`` of them stored elsewhere.

    Args:
        layout: The columns of a row.
        path: The file to map; ``None`` keeps the ring in memory only.
        capacity: Rows it holds; a power of two.

    Raises:
        OSError: If the file cannot be created at its full size.
    """

    def __init__(self, layout: Layout, path: Path | None = None, capacity: int = CAPACITY) -> None:
        self.path = path
        self.capacity = capacity
        self.head = 0
        self.tail = 0
        self._values = sum(column.size for column in layout)
        row = struct.Struct(f"<{self._values}d")
        self._pack, self._row_bytes, self._mask = row.pack_into, row.size, capacity - 1
        size = self.size_bytes
        description = json.dumps(layout_to_json(layout), separators=(",", ":")).encode()
        if _FIXED.size + len(description) > _HEADER_BYTES:
            raise ValueError(f"Expected a layout of at most {_HEADER_BYTES} bytes. Received: {len(description)}.")
        self._map = _mapped(path, size)
        _FIXED.pack_into(self._map, 0, _MAGIC, capacity, self._values, len(description), 0, 0, 0)
        self._map[_FIXED.size : _FIXED.size + len(description)] = description

    @property
    def size_bytes(self) -> int:
        """Size of the ring."""
        return _HEADER_BYTES + self.capacity * self._row_bytes

    @property
    def full(self) -> bool:
        """Whether the next row would overwrite one that is stored nowhere else."""
        return self.head - self.tail >= self.capacity

    def append(self, row: Sequence[float]) -> None:
        """Write one row. The caller makes room first, see ``full``."""
        head = self.head
        self._pack(self._map, _HEADER_BYTES + (head & self._mask) * self._row_bytes, *row)
        self.head = head + 1
        # After the row: a reader, or a crash between the two, never sees half a row.
        _COUNTER.pack_into(self._map, _HEAD_OFFSET, head + 1)

    def amend(self, start: int, values: Sequence[float]) -> bool:
        """Overwrite values of the newest row from index ``start`` on; ``False`` if it has been stored already."""
        if self.head == self.tail:
            return False
        offset = _HEADER_BYTES + ((self.head - 1) & self._mask) * self._row_bytes + 8 * start
        struct.pack_into(f"<{len(values)}d", self._map, offset, *values)
        return True

    def rows(self, start: int, stop: int) -> Rows:
        """Copy of rows ``start`` to ``stop`` (counted since the beginning), ``float64[stop - start, values]``."""
        ring = np.frombuffer(self._map, np.float64, self.capacity * self._values, _HEADER_BYTES)
        rows: Rows = ring.reshape(self.capacity, self._values)[np.arange(start, stop) & self._mask]
        return rows

    def release(self, upto: int) -> None:
        """Note that all rows before ``upto`` are stored elsewhere."""
        self.tail = upto
        _COUNTER.pack_into(self._map, _TAIL_OFFSET, upto)

    def close(self) -> None:
        """Unmap; remove the file if all of its rows are stored elsewhere."""
        self._map.close()
        if self.path is not None and self.head == self.tail:
            self.path.unlink(missing_ok=True)


def read_journal(data: bytes) -> tuple[Layout, Rows]:
    """Read the rows of a journal that are stored nowhere else, also while it is being written.

    Args:
        data: The file's bytes.

    Returns:
        The layout and ``float64[num_rows, values]``.

    Raises:
        RecordingFormatError: If it is no journal, or was cut off.
    """
    try:
        magic, capacity, values, length, _, head, tail = _FIXED.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError(f"it begins with {magic!r}")
        layout = layout_from_json(json.loads(data[_FIXED.size : _FIXED.size + length]))
        ring = np.frombuffer(data, np.float64, capacity * values, _HEADER_BYTES).reshape(capacity, values)
        if not 0 <= tail <= head or sum(column.size for column in layout) != values or capacity < 1:
            raise ValueError(f"impossible counters: head={head}, tail={tail}, capacity={capacity}, values={values}")
    except (ValueError, TypeError, struct.error) as error:
        raise RecordingFormatError(f"Expected a journal of rows. Received {len(data)} bytes: {error}.") from error
    return layout, ring[np.arange(max(tail, head - capacity), head) % capacity].copy()


def _mapped(path: Path | None, size: int) -> mmap.mmap:
    if path is None:
        return mmap.mmap(-1, size)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        # Without its blocks a full disk would be a SIGBUS at some later row; so take them all now.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.ftruncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
