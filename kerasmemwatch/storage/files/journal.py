"""Journal of the rows since the last chunk: a preallocated memory-mapped ring whose rows survive ``kill -9``.

No I/O is needed: the page cache belongs to the kernel, so whatever a killed process wrote into the mapping still
reaches the file. If the machine dies, only some pages do. Each row therefore ends in a checksum of its values and its
number, so that neither zeros nor an older row can pass for it.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.errors import RecordingFormatError, RecordingVersionError
from kerasmemwatch.records.rows import Layout, Rows
from kerasmemwatch.storage.codecs.row_codec import MAX_VALUES, layout_from_json, layout_to_json
from kerasmemwatch.storage.files.signal_mark import MARKS

__all__ = ["HEADER_BYTES", "JOURNAL_NAME", "MAX_JOURNAL_BYTES", "Journal", "is_in_use", "read_journal"]

JOURNAL_NAME = "rows.journal"
CAPACITY = 8192
_MAGIC, _VERSION = b"KMWRING", 2
# Magic and version, capacity, values per row, JSON bytes, checksum of these and the JSON; head, tail.
_FIXED = struct.Struct("<8sIII")
_CHECKSUM = struct.Struct("<I")
_COUNTERS = struct.Struct("<qq")
_HEAD, _TAIL = 3, 4  # positions of the two counters, in units of 8 bytes
_JSON = _FIXED.size + _CHECKSUM.size + _COUNTERS.size  # offset of the layout's JSON
HEADER_BYTES = 4096
_FINISHED = HEADER_BYTES // 8 - 1  # position of a flag, likewise: its writer has ended properly
# The largest journal that is written; a damaged header cannot claim more.
MAX_JOURNAL_BYTES = HEADER_BYTES + CAPACITY * (MAX_VALUES + 1) * 8
# Whole numbers beyond this are not exact in a float64; no count of bytes or steps comes near it.
_LARGEST = 2.0**53
_UINT32 = 2**32 - 1
_crc32 = zlib.crc32


class Journal:
    """A ring of rows with two counters: ``head`` rows written so far, of which ``tail`` are stored elsewhere.

    The writer sets a third, ``limit``: the head at which ``append`` refuses until the writer has made room.

    Args:
        path: The file to map; ``None`` keeps the ring in memory only.
        capacity: Number of rows it holds; a power of two.

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
        self._stride = self._values + 1  # the last is the checksum
        size = self.size_bytes
        description = json.dumps(layout_to_json(layout), separators=(",", ":")).encode()
        if _JSON + len(description) > 8 * _FINISHED:
            raise ValueError(f"Expected a layout of at most {8 * _FINISHED} bytes. Received: {len(description)}.")
        if size > MAX_JOURNAL_BYTES:
            raise ValueError(f"Expected at most {MAX_VALUES} values a row. Received: {self._values}.")
        fixed = _FIXED.pack(_MAGIC + b"%d" % _VERSION, capacity, self._values, len(description))
        checksum = _CHECKSUM.pack(zlib.crc32(fixed + description))
        header = b"".join((fixed, checksum, _COUNTERS.pack(0, 0), description))
        if path is not None:
            _create(path, header, size)
        self._use(_mapped(path, size))
        self._map[: len(header)] = header
        if path is not None:
            MARKS.begin(path.parent)

    def _use(self, memory: mmap.mmap) -> None:
        self._map = memory
        self._counters = memoryview(memory)[:HEADER_BYTES].cast("q")
        self._bytes = memoryview(memory)[HEADER_BYTES:]
        self._numbers = self._bytes.cast("d")

    @property
    def size_bytes(self) -> int:
        """Size of the ring."""
        return HEADER_BYTES + self.capacity * self._stride * 8

    @property
    def full(self) -> bool:
        """Whether the next row would overwrite a row that is stored nowhere else."""
        return self.head - self.tail >= self.capacity

    def append(self, row: Sequence[float]) -> bool:
        """Write one row.

        Returns:
            Whether it was written. It is not if ``limit`` is reached: make room (see ``full``) and raise the limit.

        Raises:
            TypeError, ValueError: If a value is not a number, or there are too few or too many.
        """
        head = self.head
        if head >= self.limit:
            return False
        if len(row) != self._values:
            raise ValueError(f"Expected {self._values} values. Received: {len(row)}.")
        # One by one: within a fit, whose steps evict the processor's caches, struct and array take twice as long.
        numbers, first = self._numbers, (head & self._mask) * self._stride
        index = first
        for value in row:
            numbers[index] = value
            index += 1
        numbers[index] = _crc32(self._bytes[8 * first : 8 * index], head & _UINT32)
        self.head = head = head + 1
        # Written after the row, so that neither a reader nor a crash in between sees half a row.
        self._counters[_HEAD] = head
        return True

    def amend(self, start: int, values: Sequence[float]) -> bool:
        """Overwrite values of the newest row from index ``start``; return ``False`` if it has been stored already."""
        if self.head == self.tail:
            return False
        number = self.head - 1
        first = (number & self._mask) * self._stride
        stored = slice(8 * first, 8 * (first + self._stride))
        row = memoryview(bytearray(self._bytes[stored])).cast("d")
        for index, value in enumerate(values, start):
            row[index] = value
        row[self._values] = _crc32(row[: self._values], number & _UINT32)
        self._bytes[stored] = row.cast("B")  # at once: values and checksum match for any reader, and after a kill
        return True

    def rows(self, start: int, stop: int) -> Rows:
        """Copy rows ``start`` to ``stop`` (counted from the run's first), ``float64[stop - start, values]``."""
        ring = np.frombuffer(self._map, np.float64, self.capacity * self._stride, HEADER_BYTES)
        rows: Rows = ring.reshape(self.capacity, self._stride)[np.arange(start, stop) & self._mask, : self._values]
        return rows

    def release(self, upto: int) -> None:
        """Record that all rows before ``upto`` are stored elsewhere."""
        self.tail = upto
        self._counters[_TAIL] = upto

    def disown(self) -> None:
        """In a forked child: leave the file to the parent and continue with a copy in memory."""
        shared, self.path = self._map, None
        self._use(mmap.mmap(-1, self.size_bytes))
        self._map[:] = shared[:]

    def finish(self) -> None:
        """Note that the writer ends properly, although some rows are stored nowhere else."""
        self._counters[_FINISHED] = 1
        if self.path is not None:
            MARKS.end(self.path.parent)

    def close(self) -> None:
        """Unmap the file, and remove it if all of its rows are stored elsewhere."""
        self.finish()
        self._counters.release()
        self._numbers.release()
        self._bytes.release()
        self._map.close()
        if self.path is not None and self.head == self.tail:
            self.path.unlink(missing_ok=True)


def is_in_use(data: bytes) -> bool:
    """Whether a journal that begins so has a writer, or had one that did not end properly."""
    # An empty file is a new run's.
    return len(data) >= HEADER_BYTES and not any(data[8 * _FINISHED : HEADER_BYTES])


def read_journal(data: bytes) -> tuple[Layout, Rows]:
    """Read the rows of a journal that are stored nowhere else, even while it is being written.

    Returns:
        The layout and ``float64[num_rows, values]``; truncated or damaged rows are NaN.

    Raises:
        RecordingFormatError: If it is not a journal, or its header is damaged or truncated.
        RecordingVersionError: If a newer version wrote it.
    """
    try:
        magic, capacity, values, length = _FIXED.unpack_from(data)
        version = magic[len(_MAGIC) :]
        if not magic.startswith(_MAGIC) or not version.isdigit() or version == b"0":
            raise ValueError(f"it begins with {magic!r}")
        if int(version) > _VERSION:
            raise RecordingVersionError(
                f"Expected a journal of version {_VERSION} or older. Received: version={int(version)}. "
                "Upgrade with: pip install -U kerasmemwatch"
            )
        # The first version had no checksums.
        is_checked = int(version) > 1
        head, tail = _COUNTERS.unpack_from(data, _FIXED.size + _CHECKSUM.size)
        description = data[_JSON : min(_JSON + length, HEADER_BYTES)]
        (checksum,) = _CHECKSUM.unpack_from(data, _FIXED.size)
        if is_checked and checksum != zlib.crc32(data[: _FIXED.size] + description):
            raise ValueError("its header is damaged")
        layout = layout_from_json(json.loads(description))
        stride = values + is_checked
        if (
            not 0 <= tail <= head
            or capacity < 1
            or values < 1
            or sum(column.size for column in layout) != values
            or HEADER_BYTES + capacity * stride * 8 > MAX_JOURNAL_BYTES
        ):
            raise ValueError(f"impossible counters: head={head}, tail={tail}, capacity={capacity}, values={values}")
        if layout[0].name != "step":
            raise ValueError(f"its rows begin with {layout[0].name!r}")
        whole = min(capacity, max(0, len(data) - HEADER_BYTES) // (8 * stride))
        ring = np.frombuffer(data[HEADER_BYTES:], np.uint8, 8 * whole * stride).view(np.float64)
    except RecordingVersionError:
        raise
    except (ValueError, RecursionError, struct.error) as error:
        raise RecordingFormatError(f"Expected a journal of rows. Received {len(data)} bytes: {error}.") from error
    numbers = np.arange(max(tail, head - capacity), head)
    slots = numbers % capacity
    rows = np.full((len(slots), values), np.nan)
    found = np.flatnonzero(slots < whole)
    stored = ring.reshape(whole, stride)[slots[found]]
    intact = _matching(stored, numbers[found]) if is_checked else _plausible(stored)
    rows[found[intact]] = stored[intact, :values]
    return layout, rows


def _matching(stored: Rows, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each row's checksum matches its values and number."""
    sums = [_crc32(row[:-1].tobytes(), number & _UINT32) for row, number in zip(stored, numbers.tolist(), strict=True)]
    matching: NDArray[np.bool_] = np.array(sums, float) == stored[:, -1]
    return matching


def _plausible(stored: Rows) -> NDArray[np.bool_]:
    """Whether each row without a checksum holds plausible measurements rather than old disk contents."""
    return np.asarray((np.isnan(stored) | (np.abs(stored) <= _LARGEST)).all(axis=1))


def _mapped(path: Path | None, size: int) -> mmap.mmap:
    if path is None:
        return mmap.mmap(-1, size)
    descriptor = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _create(path: Path, header: bytes, size: int) -> None:
    """Put a complete new file in place.

    A reader never sees a file without a header, and an old file that another process still maps is not truncated, which
    would be a SIGBUS there.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        with open(new, "wb") as file:
            file.write(header)
            file.flush()
            # Allocate all blocks now: on a full disk, a missing one would be a SIGBUS at a later row.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                os.ftruncate(file.fileno(), size)
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
