"""Codec of traced steps: versioned, self-contained, numpy only, compressed with zlib (which also checks them).

A step is stored by column, each as whole numbers with as many bytes as its largest needs. Columns store only what
other columns do not imply: a death is stored as a lifetime, reserved bytes as the difference from rounding up, and
the allocator's running total as the difference from the sum of the allocations. Sizes and addresses have few distinct
values, so they are stored as a table and an index into it.

The step's main timeline comes first, then those of other devices, each with names and columns of its own.
Version 1 stored the main timeline only.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.errors import RecordingFormatError, RecordingVersionError
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep
from kerasmemwatch.storage.codecs.json_fields import checked, dump_json, field_types
from kerasmemwatch.storage.codecs.row_codec import MAX_DECODED_BYTES, inflate, split_header, unzigzag, zigzag

__all__ = ["STEP_VERSION", "decode_step", "encode_step"]

STEP_VERSION = 2

_Integers = NDArray[np.int64]
# Allocators usually round sizes up to multiples of this.
_CHUNK_BYTES = 256
_STEP_FIELDS = ("step", "stage", "epoch", "time_s", "mode", "reason")
_TIMELINE_FIELDS = ("device", "in_use_before_bytes")
_NAMES = ("owners", "classes", "ops")
_STEP_DETAILS = ("output_bytes", "gradient_bytes", "notes", "measured_in", "after", "batch_rows", "batch_bytes")
# Fields that the first versions lacked.
_ADDED: Mapping[str, Any] = {
    "gradient_bytes": {},
    "measured_in": None,
    "after": None,
    "batch_rows": None,
    "batch_bytes": None,
}
# Limits of a column's length. The first is five times the largest step seen; a payload with more bytes than that may
# have one number per byte (a step of a million events has three million bytes). The second is for a column that holds
# no bytes because all of its numbers are 0.
_MAX_NUMBERS, _FEW_NUMBERS = 2**19, 4096
_MAX_COLUMNS = 32
# Enough for sixteen GPUs and the host's memory.
_MAX_TIMELINES = 32
_INT64_MAX = 2**63 - 1
# Stored as differences, because neighbouring values are close.
_GRADUAL = frozenset({"birth", "sizes", "addresses", "time_ns", "unexplained"})


def encode_step(step: TracedStep) -> bytes:
    """Compress a traced step without loss; if it is too large, leave out other devices and add a note.

    Raises:
        RecordingFormatError: If it is larger than ``decode_step`` accepts.
    """
    for count in range(min(len(step.others), _MAX_TIMELINES - 1), 0, -1):
        with contextlib.suppress(RecordingFormatError):
            return _encoded(_with_others(step, count))
    return _encoded(_with_others(step, 0))


def _with_others(step: TracedStep, count: int) -> TracedStep:
    left_out = ", ".join(each.device for each in step.others[count:])
    note = f"What was alive on {left_out} is more than a recording stores of one step."
    return replace(step, others=step.others[:count], notes=(*step.notes, note)) if left_out else step


def _encoded(step: TracedStep) -> bytes:
    timelines = (step.timeline, *step.others)
    columns = [{name: _numbers(values, name) for name, values in _columns(each).items()} for each in timelines]
    head, *others = (
        {
            **{name: getattr(each, name) for name in (*_TIMELINE_FIELDS, *_NAMES)},
            "columns": [[name, *planes.shape] for name, planes in stored.items()],
        }
        for each, stored in zip(timelines, columns, strict=True)
    )
    header = {
        "version": STEP_VERSION,
        **{name: getattr(step, name) for name in _STEP_FIELDS},
        **head,
        "output_bytes": step.output_bytes,
        "gradient_bytes": step.gradient_bytes,
        "notes": step.notes,
        "measured_in": step.measured_in,
        "after": step.after,
        "batch_rows": step.batch_rows,
        "batch_bytes": step.batch_bytes,
        "others": [
            {**about, "gradient_bytes": each.gradient_bytes} for about, each in zip(others, step.others, strict=True)
        ],
    }
    text = dump_json(header, _plain)
    planes = [each for stored in columns for each in stored.values()]
    num_bytes = 4 + len(text) + sum(each.size for each in planes)
    deflater = zlib.compressobj(6)
    parts = [deflater.compress(struct.pack("<I", len(text)) + text)]
    parts += [deflater.compress(each.tobytes()) for each in planes]
    payload = b"".join((*parts, deflater.flush()))
    longest = max(max(each.num_allocations, each.num_events) for each in timelines)
    if longest > _longest(payload) or num_bytes > MAX_DECODED_BYTES:
        raise RecordingFormatError(
            f"Expected at most {_longest(payload)} allocations and events, and {MAX_DECODED_BYTES} bytes. "
            f"Received: {longest} of one device, and {num_bytes} bytes."
        )
    return payload


def _longest(payload: bytes) -> int:
    """Most numbers that a column may have."""
    return max(_MAX_NUMBERS, len(payload))


def decode_step(payload: bytes) -> TracedStep:
    """Read what ``encode_step`` wrote.

    Raises:
        RecordingFormatError: If the bytes are damaged.
        RecordingVersionError: If a newer version wrote them.
    """
    data = inflate(payload)
    try:
        header, offset = split_header(data, STEP_VERSION)
        head, offset = _timeline(header, data, offset, _longest(payload))
        others = []
        for about in _others(header):
            other, offset = _timeline(about, data, offset, _longest(payload))
            others.append(replace(other, **_fields(Timeline, ("gradient_bytes",), about)))
        if len({each.device for each in (head, *others)}) <= len(others):
            raise ValueError("two timelines of one device")
        return TracedStep(
            **_fields(TracedStep, _STEP_FIELDS, header),
            timeline=head,
            **_fields(TracedStep, _STEP_DETAILS, {**_ADDED, **header}),
            others=tuple(others),
        )
    except RecordingVersionError:
        raise
    except (ValueError, KeyError, struct.error) as error:
        raise RecordingFormatError(f"Expected a traced step. Received {len(payload)} bytes: {error!r}.") from error


def _fields(cls: type, names: tuple[str, ...], header: Mapping[str, Any]) -> dict[str, Any]:
    hints = field_types(cls)
    return {name: checked(hints[name], header[name], name) for name in names}


def _others(header: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The headers of other devices' timelines."""
    found = header.get("others", [])
    if not isinstance(found, list) or len(found) >= _MAX_TIMELINES or not all(isinstance(each, dict) for each in found):
        raise ValueError("invalid timelines of other devices, or too many")
    return tuple(found)


def _decoded(header: Mapping[str, Any], data: bytes, offset: int, most: int) -> tuple[dict[str, _Integers], int]:
    """Read the columns of a timeline, and the offset at which they end.

    A column of zeros holds no bytes, so its length is limited to that of the longest other column, or to a few numbers.
    """
    described = checked(tuple[tuple[Any, ...], ...], header["columns"], "columns")
    if len(described) > _MAX_COLUMNS or any(len(column) != 3 for column in described):
        raise ValueError(f"{len(described)} columns")
    layout = [
        (checked(str, name, "name"), checked(int, planes, "plane_count"), checked(int, count, "count"))
        for name, planes, count in described
    ]
    longest = max((count for _, num_planes, count in layout if num_planes), default=0)
    columns = {}
    for name, num_planes, count in layout:
        if num_planes > 8 or count > min(most, max(longest, _FEW_NUMBERS)):
            raise ValueError(f"a column of {count} numbers of {num_planes} bytes in {len(data)} bytes")
        planes = np.frombuffer(data, np.uint8, num_planes * count, offset).reshape(num_planes, count)
        columns[name], offset = _values(planes, name), offset + num_planes * count
    return columns, offset


def _columns(timeline: Timeline) -> dict[str, _Integers]:
    """Columns that store a timeline's arrays."""
    sizes, size = np.unique(timeline.requested_bytes, return_inverse=True)
    addresses, address = np.unique(timeline.address, return_inverse=True)
    return {
        "birth": timeline.birth,
        "lifetime": timeline.death - timeline.birth,
        "sizes": sizes,
        "size": size.astype(np.int64),
        "padding": timeline.reserved_bytes - _rounded_up(timeline.requested_bytes),
        "addresses": addresses.view(np.int64),
        "address": address.astype(np.int64),
        "owner": timeline.owner.astype(np.int64),
        "category": timeline.category.astype(np.int64),
        "phase": timeline.phase.astype(np.int64),
        "op": timeline.op.astype(np.int64),
        "time_ns": timeline.time_ns,
        "unexplained": timeline.in_use_bytes
        - _explained(timeline.birth, timeline.death, timeline.reserved_bytes, timeline.num_events),
    }


def _timeline(header: Mapping[str, Any], data: bytes, offset: int, most: int) -> tuple[Timeline, int]:
    """Read a timeline, and the offset at which its columns end."""
    columns, end = _decoded(header, data, offset, most)
    return _joined(_fields(Timeline, (*_TIMELINE_FIELDS, *_NAMES), header), columns), end


def _joined(names: Mapping[str, Any], columns: Mapping[str, _Integers]) -> Timeline:
    """The inverse of ``_columns``; raises ``ValueError`` if the arrays are inconsistent."""
    num_events, num_allocations = len(columns["time_ns"]), len(columns["birth"])
    bounds = {
        "size": len(columns["sizes"]),
        "address": len(columns["addresses"]),
        "owner": len(names["owners"]),
        "category": len(CATEGORIES),
        "phase": len(PHASES),
        "op": len(names["ops"]),
    }
    for name, bound in bounds.items():
        _check(name, columns[name], 0, bound - 1, num_allocations)
    birth, death = columns["birth"], columns["birth"] + columns["lifetime"]
    _check("birth", birth, -1, num_events - 1, num_allocations)
    _check("death", death, 0, num_events, num_allocations)
    _check("lifetime", columns["lifetime"], 0, num_events + 1, num_allocations)
    _check("classes", np.zeros(len(names["classes"]), np.int64), 0, 0, len(names["owners"]))
    requested = columns["sizes"][columns["size"]]
    reserved = columns["padding"] + _rounded_up(requested)
    for name, sizes in (("requested", requested), ("reserved", reserved)):
        _check(name, sizes, 0, _INT64_MAX, num_allocations)
        if sizes.sum(dtype=float) > _INT64_MAX:  # a total would wrap around and look small
            raise ValueError(f"{name} bytes come to more than 64 bits hold")
    _check("unexplained", columns["unexplained"], -_INT64_MAX - 1, _INT64_MAX, num_events)
    return Timeline(
        requested_bytes=requested,
        reserved_bytes=reserved,
        birth=birth,
        death=death,
        address=columns["addresses"].view(np.uint64)[columns["address"]],
        owner=columns["owner"].astype(np.int32),
        category=columns["category"].astype(np.int8),
        phase=columns["phase"].astype(np.int8),
        op=columns["op"].astype(np.int32),
        time_ns=columns["time_ns"],
        in_use_bytes=columns["unexplained"] + _explained(birth, death, reserved, num_events),
        **names,
    )


def _rounded_up(sizes: _Integers) -> _Integers:
    return -(-sizes // _CHUNK_BYTES) * _CHUNK_BYTES


def _explained(birth: _Integers, death: _Integers, reserved: _Integers, num_events: int) -> _Integers:
    """Running total of live chunks after each event."""
    change = np.zeros(num_events + 2, np.int64)
    np.add.at(change, birth + 1, reserved)
    np.subtract.at(change, death + 1, reserved)
    return np.cumsum(change)[1:-1]


def _numbers(values: _Integers, name: str) -> NDArray[np.uint8]:
    """Byte planes, ``uint8[num_bytes, len(values)]``: the lowest byte of each number, then the next, as needed."""
    naturals = zigzag(np.diff(values, prepend=np.int64(0)) if name in _GRADUAL else values.astype(np.int64))
    num_bytes = -(-int(naturals.max(initial=0)).bit_length() // 8)
    return naturals.astype("<u8").view(np.uint8).reshape(-1, 8).T[:num_bytes]


def _values(planes: NDArray[np.uint8], name: str) -> _Integers:
    """The inverse of ``_numbers``."""
    wide = np.zeros((planes.shape[1], 8), np.uint8)
    wide[:, : len(planes)] = planes.T
    integers = unzigzag(wide.view("<u8").ravel().astype(np.uint64))
    return np.cumsum(integers, dtype=np.int64) if name in _GRADUAL else integers


def _check(name: str, values: _Integers, low: int, high: int, count: int) -> None:
    if len(values) != count or (count and not (low <= int(values.min()) and int(values.max()) <= high)):
        raise ValueError(f"{name} has {len(values)} values for {count}, or some outside {low} to {high}")


def _plain(value: object) -> object:
    """Convert a numpy scalar to a Python number, for JSON."""
    return value.item() if isinstance(value, np.generic) else str(value)
