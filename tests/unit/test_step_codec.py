"""A traced step as bytes: nothing is lost, little is stored, and what is damaged is told."""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from timelines import MADE, STEP, assert_same_step, realistic_step, step, timeline

from kerasmemwatch import step_codec
from kerasmemwatch.errors import RecordingFormatError, RecordingVersionError
from kerasmemwatch.schema import VERSION
from kerasmemwatch.step_codec import decode_step, encode_step
from kerasmemwatch.timeline import Timeline

MIB = 2**20


def rewritten(payload: bytes, **changed: Any) -> bytes:
    """The payload with other values in its header."""
    data = zlib.decompress(payload)
    (length,) = struct.unpack_from("<I", data)
    text = json.dumps({**json.loads(data[4 : 4 + length]), **changed}).encode()
    return zlib.compress(struct.pack("<I", len(text)) + text + data[4 + length :])


@pytest.mark.parametrize("made", [STEP, *MADE])
def test_a_step_comes_back_whole(made: Timeline) -> None:
    expected = step(made, output_bytes={"dense": 40}, notes=("one", "two"))
    assert_same_step(decode_step(encode_step(expected)), expected)


def test_what_is_rare_comes_back_too() -> None:
    rare = replace(
        STEP,
        device="GPU:0 \u2028\ud800",
        requested_bytes=np.array([0, 1, 2**62, 255, 257]),
        reserved_bytes=np.array([0, 256, 2**62, 0, 1 << 40]),
        address=np.array([0, 2**64 - 1, 2**63, 1, 0], np.uint64),
        time_ns=np.array([5, 4, 4, -3, 2**60]),
        in_use_bytes=np.array([0, -1, 2**61, 7, 7]),
        in_use_before_bytes=2**62,
        ops=('"\\', "\x00", "é" * 300, "", "x"),
    )
    expected = step(rare, epoch=None, stage="predict", mode="xla", reason="", time_s=0.1 + 0.2)
    assert_same_step(decode_step(encode_step(expected)), expected)
    assert math.isnan(decode_step(encode_step(step(STEP, time_s=math.nan))).time_s)


def test_numbers_of_numpys_become_pythons() -> None:
    found = decode_step(encode_step(step(STEP, np.int64(7), output_bytes={"a": np.int64(5)}, epoch=np.int32(2))))
    assert [type(value) for value in (found.step, found.output_bytes["a"], found.epoch)] == [int, int, int]


def test_a_hundred_thousand_events_take_at_most_two_mebibytes() -> None:
    expected = realistic_step()
    assert expected.timeline.num_events == 100_000 and len(expected.timeline.ops) == 5_000
    payload = encode_step(expected)
    assert len(payload) <= 2 * MIB
    assert_same_step(decode_step(payload), expected)


def test_a_step_of_a_million_events_comes_back() -> None:
    expected = realistic_step(1_000_000)
    assert_same_step(decode_step(encode_step(expected)), expected)


# -- damage --------------------------------------------------------------------------------------------------------

PAYLOAD = encode_step(step(STEP))


@pytest.mark.parametrize("cut", [0, 1, 10, len(PAYLOAD) - 1])
def test_a_cut_off_step_is_told(cut: int) -> None:
    with pytest.raises(RecordingFormatError):
        decode_step(PAYLOAD[:cut])


def test_any_flipped_byte_is_told() -> None:
    for place in range(len(PAYLOAD)):
        damaged = bytearray(PAYLOAD)
        damaged[place] ^= 0x55
        with pytest.raises(RecordingFormatError):
            decode_step(bytes(damaged))


@pytest.mark.parametrize("data", [b"", b"\1\0\0\0", b"\2\0\0\0{}", b"\1\0\0\0[", b"\xff\xff\xff\x7f{}"])
def test_other_bytes_are_told(data: bytes) -> None:
    with pytest.raises(RecordingFormatError):
        decode_step(zlib.compress(data))


@pytest.mark.parametrize(
    "changed",
    [
        {"version": None},
        {"columns": []},
        {"columns": [["birth", 1, 10**12]]},
        {"columns": [["birth", -1, 1]]},
        {"columns": [["birth", 9, 1]]},
        {"columns": 3},
        {"owners": []},
        {"classes": ["Dense"]},
        {"ops": []},
        {"notes": 3},
        {"output_bytes": [1]},
        {"output_bytes": {"a": "x"}},
        {"in_use_before_bytes": None},
    ],
)
def test_a_header_that_does_not_fit_is_told(changed: dict[str, Any]) -> None:
    with pytest.raises(RecordingFormatError):
        decode_step(rewritten(PAYLOAD, **changed))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("birth", -2),
        ("birth", 3),
        ("death", 4),
        ("death", -1),
        ("death", 0),  # before its birth
        ("owner", 1),
        ("owner", -1),
        ("category", 8),
        ("phase", 5),
        ("op", 9),
    ],
)
def test_an_index_out_of_bounds_is_told(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever looks up an owner by such an index would fail far from here, or name the wrong one.
    good = timeline([(4, 1, 2, "dense", "weights", "forward", "MatMul")], 3)
    bad = replace(good, **{name: np.array([value], getattr(good, name).dtype)})
    monkeypatch.setattr(step_codec, "_explained", lambda *columns: np.zeros(columns[-1], np.int64))
    decode_step(encode_step(step(good)))
    with pytest.raises(RecordingFormatError, match="death|lifetime" if name == "death" else name):
        decode_step(encode_step(step(bad)))


def test_a_newer_step_is_told_as_such() -> None:
    with pytest.raises(RecordingVersionError, match="pip install -U"):
        decode_step(rewritten(PAYLOAD, version=VERSION + 1, columns="of another kind"))


def test_more_in_the_header_is_ignored() -> None:
    assert_same_step(decode_step(rewritten(PAYLOAD, later="field")), step(STEP))


@pytest.mark.parametrize("run", [None, "", "trial-1"])
def test_whose_step_it_is_comes_back(run: str | None) -> None:
    assert decode_step(encode_step(step(STEP, measured_in=run))).measured_in == run


@pytest.mark.parametrize("after", [None, 0, 20])
def test_a_gap_comes_back_as_one(after: int | None) -> None:
    assert decode_step(encode_step(step(STEP, 21, after=after))).after == after


def test_a_step_of_before_fits_shared_steps_is_its_own_runs() -> None:
    payload = encode_step(step(STEP, measured_in="other"))
    data = zlib.decompress(payload)
    (length,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + length])
    del header["measured_in"], header["after"]
    text = json.dumps(header).encode()
    found = decode_step(zlib.compress(struct.pack("<I", len(text)) + text + data[4 + length :]))
    assert (found.measured_in, found.after) == (None, None)
