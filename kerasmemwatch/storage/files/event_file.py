"""TensorBoard event files: TFRecord frames, each with an ``Event`` protobuf.

The frame is ``uint64 length, uint32 masked CRC-32C of it, data, uint32 masked CRC-32C of the data``
(tensorflow/core/lib/io/record_writer.h). TensorBoard's own writer computes the checksum in Python, at 160 us per KiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import google_crc32c

from kerasmemwatch.compat.tensorboard import EVENT
from kerasmemwatch.storage.files.file_system import open_for_append

__all__ = ["EventFile", "read_records"]

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return _CRC.pack((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(data: bytes) -> bytes:
    """Frame one record."""
    length = _LENGTH.pack(len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def read_records(data: bytes) -> Iterator[bytes]:
    """Yield the intact records of an event file; stops where it is truncated or a record's length is damaged."""
    offset = 0
    while offset + 12 <= len(data):
        header = data[offset : offset + 8]
        (length,) = _LENGTH.unpack(header)
        end = offset + 16 + length
        if data[offset + 8 : offset + 12] != _masked_crc(header) or end > len(data):
            return
        record = data[offset + 12 : end - 4]
        if data[end - 4 : end] == _masked_crc(record):
            yield record
        offset = end


class EventFile:
    """Appends events to a new file, each call all or nothing.

    Args:
        path: Local path, or a URL that TensorBoard's file interface supports.

    Raises:
        OSError: If it cannot be created or written.
    """

    def __init__(self, path: str, created: float) -> None:
        event = EVENT.get()
        self._file = open_for_append(path)
        try:
            self.write([event(wall_time=created, file_version="brain.Event:2")])
        except OSError:
            self._file.discard()
            raise

    def write(self, events: list[Any]) -> None:
        """Append events and hand them to the operating system."""
        self._file.append(b"".join(frame(event.SerializeToString()) for event in events))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def rest(self) -> None:
        """Release the file's descriptor; the next ``write`` reopens the file."""
        self._file.rest()

    def disown(self) -> None:
        """Close it in this process without writing: another process has it open."""
        self._file.disown()
