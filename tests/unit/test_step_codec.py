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
from runs import traced_steps, two_device_steps
from timelines import MADE, STEP, assert_same_step, realistic_step, step, timeline

from kerasmemwatch.errors import RecordingFormatError, RecordingVersionError
from kerasmemwatch.records.timeline import Timeline
from kerasmemwatch.storage.codecs import step_codec
from kerasmemwatch.storage.codecs.step_codec import STEP_VERSION, decode_step, encode_step
from kerasmemwatch.storage.run_parts import Allowance

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
        decode_step(rewritten(PAYLOAD, version=STEP_VERSION + 1, columns="of another kind"))


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


# -- several devices -----------------------------------------------------------------------------------------------

TWO = replace(
    two_device_steps()[1],
    others=tuple(
        replace(each, gradient_bytes={"embedding": size}) for size, each in enumerate(two_device_steps()[1].others)
    ),
)


def test_a_step_on_several_devices_comes_back_whole() -> None:
    found = decode_step(encode_step(TWO))
    assert list(found.timelines) == ["GPU:0", "CPU:0", "GPU host (pinned)"]
    assert_same_step(found, TWO)


@pytest.mark.parametrize("made", MADE)
def test_any_timeline_may_stand_beside_any_other(made: Timeline) -> None:
    expected = step(STEP, others=(replace(made, device="GPU:0"), replace(STEP, device="GPU:1")))
    assert_same_step(decode_step(encode_step(expected)), expected)


def test_a_step_of_version_1_is_read_and_has_one_device() -> None:
    # As version 1 wrote it; there is a whole run of it in test_old_recordings.
    header = {**json.loads(_text_of(encode_step(step(STEP)))), "version": 1}
    del header["others"], header["after"]
    text = json.dumps(header).encode()
    data = zlib.decompress(PAYLOAD)
    (length,) = struct.unpack_from("<I", data)
    found = decode_step(zlib.compress(struct.pack("<I", len(text)) + text + data[4 + length :]))
    assert_same_step(found, step(STEP))
    assert list(found.timelines) == ["CPU:0"] and found.others == ()


def _text_of(payload: bytes) -> bytes:
    data = zlib.decompress(payload)
    (length,) = struct.unpack_from("<I", data)
    return data[4 : 4 + length]


def test_any_flipped_byte_of_several_devices_is_told() -> None:
    payload = encode_step(TWO)
    for place in range(len(payload)):
        damaged = bytearray(payload)
        damaged[place] ^= 0x55
        with pytest.raises(RecordingFormatError):
            decode_step(bytes(damaged))


_OTHER = json.loads(_text_of(encode_step(TWO)))["others"][0]


@pytest.mark.parametrize(
    "others",
    [
        3,
        {},
        None,
        [3],
        [[]],
        [{}],
        [_OTHER] * 40,
        [_OTHER, _OTHER],
        [{**_OTHER, "device": "GPU:0"}],
        [{**_OTHER, "device": 3}],
        [{**_OTHER, "gradient_bytes": {"a": -1.5}}],
        [{**_OTHER, "owners": []}],
        [{**_OTHER, "columns": [["birth", 8, 2**40]]}],
        [{**_OTHER, "columns": []}],
    ],
)
def test_other_devices_that_do_not_fit_are_told(others: Any) -> None:
    with pytest.raises(RecordingFormatError):
        decode_step(rewritten(encode_step(TWO), others=others))


def test_what_other_devices_decode_to_counts_towards_the_allowance() -> None:
    big = realistic_step(250_000, num_ops=10).timeline
    Allowance().step(step(big))
    with pytest.raises(RecordingFormatError, match="Expected at most"):
        Allowance().step(step(big, others=(replace(big, device="GPU:1"),)))


def test_devices_that_make_a_step_too_large_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [TWO, replace(TWO, others=TWO.others[:1]), replace(TWO, others=())]
    sizes = [len(zlib.decompress(encode_step(one))) for one in steps]
    monkeypatch.setattr(step_codec, "MAX_DECODED_BYTES", sizes[0] - 1)
    found = decode_step(encode_step(TWO))
    assert list(found.timelines) == ["GPU:0", "CPU:0"]
    assert found.notes == ("What was alive on GPU host (pinned) is more than a recording stores of one step.",)
    monkeypatch.setattr(step_codec, "MAX_DECODED_BYTES", 16)
    with pytest.raises(RecordingFormatError, match=r"Received: .* bytes"):
        encode_step(TWO)


def test_more_devices_than_are_read_are_left_out_and_named() -> None:
    many = tuple(replace(STEP, device=f"GPU:{index}") for index in range(40))
    found = decode_step(encode_step(step(STEP, others=many)))
    assert len(found.timelines) == 32 and "GPU:39" in found.notes[-1] and "GPU:30" not in found.notes[-1]


def test_a_second_device_adds_what_its_events_take() -> None:
    alone, beside = (len(encode_step(one)) for one in (traced_steps()[1], TWO))
    assert beside < 2.5 * alone
