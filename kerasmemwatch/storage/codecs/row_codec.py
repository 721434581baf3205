"""Codec of a recording's rows: versioned, self-contained, numpy only; shared by writer, reader and plugin.

Rows are stored by column. Whole numbers and the bit patterns of floats become zigzag deltas, whose bytes are
transposed and compressed with zlib (which also checks them). The run's description is JSON.
"""

from __future__ import annotations

import functools
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.errors import RecordingFormatError, RecordingVersionError
from kerasmemwatch.records.rows import INT64_BOUND, Layout, Rows
from kerasmemwatch.records.samples import Column
from kerasmemwatch.storage.codecs.json_fields import MAX_JSON_BYTES, checked, dump_json, parse_json

__all__ = [
    "MAX_DECODED_BYTES",
    "MAX_VALUES",
    "PLUGIN_NAME",
    "VERSION",
    "check_version",
    "decode_json",
    "decode_rows",
    "encode_json",
    "encode_rows",
    "inflate",
    "layout_from_json",
    "layout_to_json",
    "split_header",
    "unzigzag",
    "zigzag",
]

PLUGIN_NAME = "kerasmemwatch"
VERSION = 1
# Most values in a row: the layout of this many fills a journal's header.
MAX_VALUES = 512
# A full journal, or a traced step. No chunk is larger, so a small file cannot claim all memory.
MAX_DECODED_BYTES = 32 * 1024**2
# Values that are decoded in one go: small chunks as a whole, large ones column by column to spare memory.
_AT_ONCE = 8192


def layout_to_json(layout: Layout) -> list[list[Any]]:
    """Convert a layout to plain JSON: ``[[name, width, integer], ...]``."""
    return [[column.name, column.width, column.integer] for column in layout]


def layout_from_json(raw: object) -> Layout:
    """The inverse of ``layout_to_json``.

    Raises:
        ValueError: If it is not a layout, or has more values than a row may have.
    """
    try:
        text = json.dumps(raw)
    except RecursionError as error:
        raise ValueError("columns nested too deeply") from error
    return _layout_of(text)


@functools.lru_cache(8)  # a run of many short fits has a chunk of each, all alike
def _layout_of(text: str) -> Layout:
    columns = checked(tuple[tuple[Any, ...], ...], json.loads(text), "layout")
    if len(columns) > MAX_VALUES or any(len(column) != 3 for column in columns):
        raise ValueError(f"{len(columns)} columns for at most {MAX_VALUES}, or some without a width and a kind")
    layout = tuple(
        Column(checked(str, name, "name"), checked(int | None, width, "width_count"), checked(bool, integer, "integer"))
        for name, width, integer in columns
    )
    num_values = sum(column.size for column in layout)
    if num_values > MAX_VALUES:
        raise ValueError(f"{num_values} values in a row, for at most {MAX_VALUES}")
    return layout


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Compress a JSON object, adding the format's version.

    Raises:
        RecordingFormatError: If it is larger than ``decode_json`` accepts.
    """
    return zlib.compress(dump_json({"version": VERSION, **value}), 6)


def decode_json(payload: bytes) -> dict[str, Any]:
    """Read what ``encode_json`` wrote.

    Raises:
        RecordingFormatError: If the bytes are damaged.
        RecordingVersionError: If a newer version wrote them.
    """
    value = parse_json(inflate(payload, MAX_JSON_BYTES))
    check_version(value.get("version"))
    return value


def encode_rows(layout: Layout, rows: Rows) -> bytes:
    """Compress rows without loss."""
    whole = [bool((np.abs(values) < INT64_BOUND).all() and (values == np.trunc(values)).all()) for values in rows.T]
    header = dump_json({"version": VERSION, "layout": layout_to_json(layout), "rows": len(rows), "whole": whole})
    deflater = zlib.compressobj(6)
    parts = [deflater.compress(struct.pack("<I", len(header)) + header)]
    for values, is_whole in zip(rows.T, whole, strict=True):  # one by one: a full copy would be our largest array
        integers = values.astype(np.int64) if is_whole else np.ascontiguousarray(values).view(np.int64)
        parts.append(deflater.compress(_pack(integers)))
    return b"".join((*parts, deflater.flush()))


def split_header(data: bytes, newest: int = VERSION) -> tuple[dict[str, Any], int]:
    """Read the JSON in front of a chunk's columns, and the offset at which they begin.

    Raises:
        RecordingVersionError: If a newer version wrote it.
        RecordingFormatError, struct.error: If it is damaged.
    """
    (length,) = struct.unpack_from("<I", data)
    header = parse_json(data[4 : 4 + min(length, MAX_JSON_BYTES + 1)])
    check_version(header.get("version"), newest)
    return header, 4 + length


def decode_rows(payload: bytes) -> tuple[Layout, Rows]:
    """Read what ``encode_rows`` wrote.

    Raises:
        RecordingFormatError: If the bytes are damaged.
        RecordingVersionError: If a newer version wrote them.
    """
    data = inflate(payload)
    try:
        header, start = split_header(data)
        layout = layout_from_json(header["layout"])
        num_rows, whole = checked(int, header["rows"], "rows"), checked(tuple[bool, ...], header["whole"], "whole")
        size = num_rows * len(whole) * 8
        if len(whole) != sum(column.size for column in layout) or size != len(data) - start or (num_rows and not whole):
            raise ValueError(f"{num_rows} rows of {len(whole)} values in {len(data) - start} bytes")
        planes = np.frombuffer(data, np.uint8, offset=start).reshape(len(whole), 8, num_rows)
    except RecordingVersionError:
        raise
    except (ValueError, KeyError, struct.error) as error:
        raise RecordingFormatError(f"Expected a chunk of rows. Received {len(payload)} bytes: {error}.") from error
    rows, are_whole = np.empty((num_rows, len(whole))), np.array(whole, bool)
    size = max(1, _AT_ONCE // max(1, num_rows))
    for begin in range(0, len(whole), size):
        some = slice(begin, begin + size)
        integers = _unpack(planes[some])
        rows[:, some] = np.where(are_whole[some, np.newaxis], integers, integers.view(np.float64)).T
    return layout, rows


def zigzag(integers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Map whole numbers near 0 to small naturals: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    return ((integers << 1) ^ (integers >> 63)).view(np.uint64)


def unzigzag(naturals: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The inverse of ``zigzag``."""
    return (naturals >> np.uint64(1)).view(np.int64) ^ -(naturals & np.uint64(1)).view(np.int64)


def inflate(payload: bytes, most_bytes: int | None = None) -> bytes:
    """Decompress a whole payload.

    Args:
        most_bytes: Largest size after decompression; by default the largest chunk or traced step.

    Raises:
        RecordingFormatError: If it is damaged, truncated, or larger than any part of a recording.
    """
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(payload, MAX_DECODED_BYTES if most_bytes is None else most_bytes)
    except zlib.error as error:
        raise RecordingFormatError(f"Expected compressed bytes. Received {len(payload)} bytes: {error}.") from error
    if not inflater.eof:
        wrong = f"more than {len(data)} bytes" if inflater.unconsumed_tail else f"one cut off after {len(payload)}"
        raise RecordingFormatError(f"Expected a whole payload of a recording. Received: {wrong}.")
    return data


def check_version(version: object, newest: int = VERSION) -> None:
    """Check a payload's format version against the newest of its kind that is known.

    Raises:
        RecordingFormatError: If it is not a version.
        RecordingVersionError: If it is newer.
    """
    if isinstance(version, bool) or not isinstance(version, int):
        raise RecordingFormatError(f"Expected a format version (int). Received: version={version!r}.")
    if version > newest:
        raise RecordingVersionError(
            f"Expected a recording of format version {newest} or older. Received: version={min(version, 10**9)}. "
            "Upgrade with: pip install -U kerasmemwatch"
        )


def _pack(integers: NDArray[np.int64]) -> bytes:
    return zigzag(np.diff(integers, prepend=np.int64(0))).view(np.uint8).reshape(-1, 8).T.tobytes()


def _unpack(planes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """``int64[num_columns, num_rows]`` of ``uint8[num_columns, 8, num_rows]``."""
    naturals = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(np.uint64)[..., 0]
    return np.cumsum(unzigzag(naturals), axis=1, dtype=np.int64)
