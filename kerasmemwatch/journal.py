"""The rows since the last chunk, in a preallocated memory-mapped ring: a row survives ``kill -9`` without any I/O.

The page cache belongs to the kernel, so what a killed process had written into the mapping still reaches the file.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from kerasmemwatch.errors import RecordingFormatError
from kerasmemwatch.schema import MAX_VALUES, Layout, Rows, layout_from_json, layout_to_json

__all__ = ["JOURNAL_NAME", "MAX_JOURNAL_BYTES", "Journal", "read_journal"]

JOURNAL_NAME = "rows.journal"
CAPACITY = 8192
_MAGIC = b"KMWRING1"
_FIXED = struct.Struct("<8sIIIIqq")  # magic, capacity, values a row, JSON bytes, unused, head, tail
_HEAD, _TAIL = 3, 4  # where these two are, in 8 bytes
_HEADER_BYTES = 4096
# The largest that is written: a damaged header cannot ask for more.
MAX_JOURNAL_BYTES = _HEADER_BYTES + CAPACITY * MAX_VALUES * 8


class Journal:
    """A ring of rows with two counters: ``head`` rows written so far, ``tail`` of them stored elsewhere.

    Whoever writes sets a third, ``limit``: the head at which ``append`` first asks for something to be done.

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
        self.limit = sys.maxsize
        self._values, self._mask = sum(column.size for column in layout), capacity - 1
        size = self.size_bytes
        description = json.dumps(layout_to_json(layout), separators=(",", ":")).encode()
        if _FIXED.size + len(description) > _HEADER_BYTES:
            raise ValueError(f"Expected a layout of at most {_HEADER_BYTES} bytes. Received: {len(description)}.")
        if size > MAX_JOURNAL_BYTES:
            raise ValueError(f"Expected at most {MAX_VALUES} values a row. Received: {self._values}.")
        header = _FIXED.pack(_MAGIC, capacity, self._values, len(description), 0, 0, 0) + description
        if path is not None:
            _create(path, header, size)
        self._use(_mapped(path, size))
        self._map[: len(header)] = header

    def _use(self, memory: mmap.mmap) -> None:
        self._map = memory
        self._counters = memoryview(memory)[:_HEADER_BYTES].cast("q")
        self._numbers = memoryview(memory)[_HEADER_BYTES:].cast("d")

    @property
    def size_bytes(self) -> int:
        """Size of the ring."""
        return _HEADER_BYTES + self.capacity * self._values * 8

    @property
    def full(self) -> bool:
        """Whether the next row would overwrite one that is stored nowhere else."""
        return self.head - self.tail >= self.capacity

    def append(self, row: Sequence[float]) -> bool:
        """Write one row.

        Returns:
            Whether it was written; not if ``limit`` is reached: then make room, see ``full``, and raise the limit.

        Raises:
            TypeError, ValueError: If a value is no number, or there are too few or too many.
        """
        head = self.head
        if head >= self.limit:
            return False
        if len(row) != self._values:
            raise ValueError(f"Expected {self._values} values. Received: {len(row)}.")
        # One by one: within a fit, whose steps empty the processor's caches, struct and array take twice as long.
        numbers, index = self._numbers, (head & self._mask) * self._values
        for value in row:
            numbers[index] = value
            index += 1
        self.head = head = head + 1
        # After the row: a reader, or a crash between the two, never sees half a row.
        self._counters[_HEAD] = head
        return True

    def amend(self, start: int, values: Sequence[float]) -> bool:
        """Overwrite values of the newest row from index ``start`` on; ``False`` if it has been stored already."""
        if self.head == self.tail:
            return False
        first = ((self.head - 1) & self._mask) * self._values + start
        for index, value in enumerate(values, first):
            self._numbers[index] = value
        return True

    def rows(self, start: int, stop: int) -> Rows:
        """Copy of rows ``start`` to ``stop`` (counted since the beginning), ``float64[stop - start, values]``."""
        ring = np.frombuffer(self._map, np.float64, self.capacity * self._values, _HEADER_BYTES)
        rows: Rows = ring.reshape(self.capacity, self._values)[np.arange(start, stop) & self._mask]
        return rows

    def release(self, upto: int) -> None:
        """Note that all rows before ``upto`` are stored elsewhere."""
        self.tail = upto
        self._counters[_TAIL] = upto

    def disown(self) -> None:
        """In a forked child: leave the file to the parent, and go on with a copy in memory."""
        shared, self.path = self._map, None
        self._use(mmap.mmap(-1, self.size_bytes))
        self._map[:] = shared[:]

    def close(self) -> None:
        """Unmap; remove the file if all of its rows are stored elsewhere."""
        self._counters.release()
        self._numbers.release()
        self._map.close()
        if self.path is not None and self.head == self.tail:
            self.path.unlink(missing_ok=True)


def read_journal(data: bytes) -> tuple[Layout, Rows]:
    """Read the rows of a journal that are stored nowhere else, also while it is being written.

    Args:
        data: The file's bytes.

    Returns:
        The layout and ``float64[num_rows, values]``; rows that were cut off are NaN.

    Raises:
        RecordingFormatError: If it is no journal, or was cut off within its header.
    """
    try:
        magic, capacity, values, length, _, head, tail = _FIXED.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError(f"it begins with {magic!r}")
        layout = layout_from_json(json.loads(data[_FIXED.size : _FIXED.size + length]))
        if (
            not 0 <= tail <= head
            or capacity < 1
            or values < 1
            or _HEADER_BYTES + capacity * values * 8 > MAX_JOURNAL_BYTES
            or sum(column.size for column in layout) != values
        ):
            raise ValueError(f"impossible counters: head={head}, tail={tail}, capacity={capacity}, values={values}")
        if layout[0].name != "step":
            raise ValueError(f"its rows begin with {layout[0].name!r}")
        whole = min(capacity, max(0, len(data) - _HEADER_BYTES) // (8 * values))
        ring = np.frombuffer(data[_HEADER_BYTES:], np.uint8, 8 * whole * values).view(np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError, struct.error) as error:
        raise RecordingFormatError(f"Expected a journal of rows. Received {len(data)} bytes: {error}.") from error
    slots = np.arange(max(tail, head - capacity), head) % capacity
    rows = np.full((len(slots), values), np.nan)
    rows[slots < whole] = ring.reshape(whole, values)[slots[slots < whole]]
    return layout, rows


def _mapped(path: Path | None, size: int) -> mmap.mmap:
    if path is None:
        return mmap.mmap(-1, size)
    descriptor = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _create(path: Path, header: bytes, size: int) -> None:
    """Put a whole new file in place: a reader never sees one without a header, nor is an old one cut off that
    somebody still maps, which would be a SIGBUS there.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        with open(new, "wb") as file:
            file.write(header)
            file.flush()
            # Without its blocks a full disk would be a SIGBUS at some later row; so take them all now.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                os.ftruncate(file.fileno(), size)
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
