"""Recording <-> bytes: nothing lost, and no bytes, however wrong, that do more than raise our error."""

from __future__ import annotations

import json
import math
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.errors import RecordingFormatError, RecordingVersionError
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import ENDED, to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Column
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS
from kerasmemwatch.storage.codecs import row_codec
from kerasmemwatch.storage.codecs.row_codec import (
    VERSION,
    decode_json,
    decode_rows,
    encode_json,
    encode_rows,
    layout_from_json,
    layout_to_json,
)
from kerasmemwatch.storage.codecs.run_codec import decode_run, encode_run

NAN = math.nan
STEP_AND = (*BASE_COLUMNS, Column("host_rss_bytes"))


def chunk(header: object, body: bytes = b"") -> bytes:
    raw = json.dumps(header).encode()
    return zlib.compress(struct.pack("<I", len(raw)) + raw + body)


def header(**changes: object) -> dict[str, object]:
    return {"version": VERSION, "layout": [["step", None, True]], "rows": 1, "whole": [True], **changes}


def row(step: float, *values: float, stage: float = 0, epoch: float = 0.0) -> list[float]:
    return [step, step, epoch, stage, 100.0 + step, *values]


# -- rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [],
        [0.0],
        [NAN, NAN],
        [1.0, -1.0, 2.0],
        [-(2.0**52), 2.0**53, 2.0**53 + 2, 2.0**62],
        [2.0**63, 2.0**64, -(2.0**63)],
        [1e300, -1e300, 5e-324],
        [math.inf, -math.inf, NAN, 0.5],
        [9e15, NAN, 9e15 + 2],
    ],
)
def test_any_float_comes_back(values: list[float]) -> None:
    rows = np.array(values, float).reshape(-1, 1)
    layout, decoded = decode_rows(encode_rows((Column("x"),), rows))
    assert layout == (Column("x"),)
    assert decoded.shape == rows.shape and np.array_equal(decoded, rows, equal_nan=True)


@pytest.mark.parametrize("seed", range(20))
def test_random_rows_with_wide_columns_come_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    layout = (Column("step"), Column("a", 3), Column("b", 1, integer=False), Column("c", integer=False))
    rows = random.normal(size=(random.integers(0, 50), 6)) * 10.0 ** random.integers(-5, 16)
    rows[:, :3] = np.round(rows[:, :3])
    rows[random.random(rows.shape) < 0.2] = NAN
    decoded_layout, decoded = decode_rows(encode_rows(layout, rows))
    assert decoded_layout == layout
    assert np.array_equal(decoded, rows, equal_nan=True)


def test_rows_that_are_a_slice_of_others_come_back() -> None:
    rows = np.arange(60.0).reshape(10, 6)[::2, ::2]
    assert np.array_equal(decode_rows(encode_rows((Column("x", 3),), rows))[1], rows)


def test_steady_rows_compress_well() -> None:
    rows = np.array([row(step, 4096.0 * 250_000) for step in range(4096)])
    assert len(encode_rows(STEP_AND, rows)) < rows.nbytes / 20


@pytest.mark.parametrize("cut", [0, 1, 10, -1])
def test_cut_off_chunks_are_told(cut: int) -> None:
    payload = encode_rows(STEP_AND, np.array([row(1, 5.0)]))
    with pytest.raises(RecordingFormatError):
        decode_rows(payload[:cut])


def test_every_flipped_bit_is_told_or_harmless() -> None:
    rows = np.array([row(step, step * 4096.0) for step in range(20)])
    payload = encode_rows(STEP_AND, rows)
    told = 0
    for position in range(len(payload)):
        damaged = bytearray(payload)
        damaged[position] ^= 1 << position % 8
        try:
            _, decoded = decode_rows(bytes(damaged))
        except RecordingFormatError:
            told += 1
        else:  # a bit that zlib does not use
            assert np.array_equal(decoded, rows, equal_nan=True)
    assert told > 0.95 * len(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        zlib.compress(b""),
        zlib.compress(b"\x00"),
        zlib.compress(struct.pack("<I", 2**32 - 1)),
        chunk([]),
        chunk("text"),
        chunk(header(version=None), bytes(8)),
        chunk(header(version="1"), bytes(8)),
        chunk(header(layout=None), bytes(8)),
        chunk(header(layout=[["step"]]), bytes(8)),
        chunk(header(layout=[["step", "x", True]]), bytes(8)),
        chunk(header(layout=[["step", -1, True]]), bytes(8)),
        chunk(header(layout=[["a", 2, True]]), bytes(8)),
        chunk(header(rows=2), bytes(8)),
        chunk(header(rows=-1), bytes(8)),
        chunk(header(rows=None), bytes(8)),
        chunk(header(rows=math.inf), bytes(8)),
        chunk(header(rows=10**12), bytes(8)),
        chunk(header(rows=10**30), bytes(8)),
        chunk(header(whole=3), bytes(8)),
        chunk(header(whole=[]), bytes(8)),
        chunk({"version": VERSION}),
        zlib.compress(struct.pack("<I", 200_000) + b"[" * 200_000),
    ],
)
def test_wrong_chunks_raise_our_error(payload: bytes) -> None:
    with pytest.raises(RecordingFormatError):
        decode_rows(payload)


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_codec, "MAX_DECODED_BYTES", 1 << 16)
    for decode in (decode_rows, decode_json, decode_run):
        with pytest.raises(RecordingFormatError):
            decode(zlib.compress(bytes(1 << 20)))
    assert len(zlib.compress(bytes(1 << 20))) < 2000


def test_a_newer_chunk_says_upgrade() -> None:
    with pytest.raises(RecordingVersionError, match=rf"version={VERSION + 1}.*pip install -U kerasmemwatch"):
        decode_rows(chunk(header(version=VERSION + 1), bytes(8)))


def test_unknown_fields_of_a_chunk_are_left_alone() -> None:
    layout, rows = decode_rows(chunk(header(colour="blue"), bytes(8)))
    assert (layout, rows.tolist()) == ((Column("step"),), [[0.0]])


def test_layout_round_trip() -> None:
    layout = (Column("a"), Column("b", 3), Column("c", 1, integer=False))
    assert layout_from_json(json.loads(json.dumps(layout_to_json(layout)))) == layout


def test_a_layout_that_is_nested_too_deeply_is_no_layout() -> None:
    nested: list[object] = []
    for _ in range(5 * sys.getrecursionlimit()):
        nested = [nested]
    with pytest.raises(ValueError, match="nested too deeply"):
        layout_from_json(nested)


# -- descriptions ----------------------------------------------------------------------------------------------


def a_run() -> RunInfo:
    return RunInfo(
        name="<b>run</b>",
        created=1.5,
        tags=("a", "b"),
        devices=(DeviceInfo("GPU:0", limit_bytes=2**40), DeviceInfo("CPU:0", "partial", 262_144, None, 0.5, "do x")),
        versions={"python": "3"},
        configuration={"sample_every": 2, "nested": {"deep": [1, None]}},
        host={"limit_bytes": 2**60},
        drivers=({"name": "H200", "total_bytes": 1},),
        notes=("one", "zwei \N{SNOWMAN}"),
    )


def test_a_description_comes_back() -> None:
    layers = (LayerMemory("a/b", "Dense", weights_bytes=4, total_bytes=0), LayerMemory("optimizer"))
    assert decode_run(encode_run(a_run(), layers)) == (a_run(), layers)


def test_an_unknown_creation_time_comes_back_as_nan() -> None:
    run, _ = decode_run(encode_run(RunInfo("x", NAN), ()))
    assert math.isnan(run.created)


def test_fields_of_a_later_version_are_left_out() -> None:
    raw = {
        "run": {"name": "x", "created": 1, "mood": "good", "devices": [{"name": "CPU:0", "mood": "good"}]},
        "layers": [{"path": "a", "mood": "good"}],
        "mood": "good",
    }
    assert decode_run(encode_json(raw)) == (RunInfo("x", 1, devices=(DeviceInfo("CPU:0"),)), (LayerMemory("a"),))


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"run": {}, "layers": []},
        {"run": None, "layers": []},
        {"run": {"name": "x", "created": 1}},
        {"run": {"name": "x", "created": 1}, "layers": 3},
        {"run": {"name": "x", "created": 1}, "layers": [None]},
        {"run": {"name": "x", "created": 1, "devices": [{}]}, "layers": []},
        {"run": {"name": "x", "created": 1, "notes": 3}, "layers": []},
    ],
)
def test_wrong_descriptions_raise_our_error(raw: dict[str, Any]) -> None:
    with pytest.raises(RecordingFormatError):
        decode_run(encode_json(raw))


@pytest.mark.parametrize(
    "payload", [b"", b"x", zlib.compress(b"{"), zlib.compress(b"\xff"), zlib.compress(b"[1]"), zlib.compress(b"{}")]
)
def test_wrong_json_raises_our_error(payload: bytes) -> None:
    with pytest.raises(RecordingFormatError):
        decode_json(payload)


def test_deeply_nested_json_raises_our_error() -> None:
    with pytest.raises(RecordingFormatError):
        decode_json(zlib.compress(b"[" * 200_000))


def test_a_newer_description_says_upgrade() -> None:
    newer = zlib.compress(json.dumps({"version": VERSION + 1}).encode())
    with pytest.raises(RecordingVersionError, match="Upgrade"):
        decode_run(newer)


# -- samples ---------------------------------------------------------------------------------------------------


def test_complete_whole_numbers_are_int64_and_others_float64() -> None:
    layout = (*STEP_AND, Column("full", 2), Column("gaps", 2), Column("share", integer=False))
    rows = np.array([row(1, 2.0**60, 1, 2, 3, NAN, 1), row(2, 7, 3, 4, 5, 6, 2)])
    samples = to_samples([(layout, rows)])
    kinds = {name: (values.dtype.name, values.shape) for name, values in samples.items()}
    assert kinds == {
        "step": ("int64", (2,)),
        "train_step": ("int64", (2,)),
        "epoch": ("float64", (2,)),
        "stage": ("str224", (2,)),
        "time_s": ("float64", (2,)),
        "ended": ("bool", (2,)),
        "host_rss_bytes": ("int64", (2,)),
        "full": ("int64", (2, 2)),
        "gaps": ("float64", (2, 2)),
        "share": ("float64", (2,)),
        # Not measured here: no device, and so no column.
        "device_in_use_bytes": ("int64", (2, 0)),
        "device_peak_bytes": ("int64", (2, 0)),
        "device_between_peak_bytes": ("int64", (2, 0)),
    }
    assert samples["host_rss_bytes"][0] == 2**60
    assert np.isnan(samples["gaps"][0, 1])


def test_steps_of_recordings_without_that_column_ended() -> None:
    newer = (*STEP_AND[:5], ENDED, *STEP_AND[5:])
    old, new = np.array([row(1, 10)]), np.array([[*row(2, 20)[:5], 0, 20.0]])
    assert to_samples([(STEP_AND, old)])["ended"].tolist() == [True]
    assert to_samples([(STEP_AND, old), (newer, new)])["ended"].tolist() == [True, False]
    assert to_samples([])["ended"].dtype == bool


def test_whether_a_step_ended_may_be_unknown() -> None:
    rows = np.array([[*row(step, 10)[:5], ended, 10.0] for step, ended in ((1, 1), (2, NAN), (3, 0))])
    samples = to_samples([((*STEP_AND[:5], ENDED, *STEP_AND[5:]), rows)])
    assert np.array_equal(samples["ended"], [1, NAN, 0], equal_nan=True)


@pytest.mark.parametrize("name", ["ended", "stage", "step", "host_rss_bytes"])
@pytest.mark.parametrize("width", [0, 3])
def test_a_plain_column_of_another_width_is_read_as_far_as_it_goes(name: str, width: int) -> None:
    layout = tuple(
        Column(one.name, width) if one.name == name else one for one in (*STEP_AND[:5], ENDED, *STEP_AND[5:])
    )
    size = sum(column.size for column in layout)
    samples = to_samples([(layout, np.arange(2.0 * size).reshape(2, size))])
    assert {values.ndim for column, values in samples.items() if not column.startswith("device")} == {1}


def test_stages_are_words() -> None:
    rows = np.array(
        [row(1, 0, stage=0), row(2, 0, stage=1), row(3, 0, stage=2), row(4, 0, stage=NAN), row(5, 0, stage=99)]
    )
    samples = to_samples([(STEP_AND, rows)])
    assert samples["stage"].dtype.kind == "U"
    assert samples["stage"].tolist() == ["train", "test", "predict", "train", "predict"]


def test_chunks_are_sorted_and_each_step_counts_once() -> None:
    early = np.array([row(1, 10), row(2, 20), row(3, 30)])
    late = np.array([row(3, 99), row(4, 40)])
    assert to_samples([(STEP_AND, early), (STEP_AND, late)])["host_rss_bytes"].tolist() == [10, 20, 30, 40]
    assert to_samples([(STEP_AND, late), (STEP_AND, early)])["host_rss_bytes"].tolist() == [10, 20, 99, 40]


def test_chunks_of_other_layouts_are_aligned_by_name() -> None:
    one = (*BASE_COLUMNS, Column("a", 1), Column("host_rss_bytes"))
    two = (*BASE_COLUMNS, Column("host_rss_bytes"), Column("a", 2), Column("b"))
    samples = to_samples([(one, np.array([row(1, 5, 50)])), (two, np.array([row(2, 60, 6, 7, 8)]))])
    assert samples["host_rss_bytes"].tolist() == [50, 60]
    assert np.array_equal(samples["a"], [[5, NAN], [6, 7]], equal_nan=True)
    assert np.array_equal(samples["b"], [NAN, 8], equal_nan=True)


def test_nothing_recorded_has_no_rows() -> None:
    for parts in ([], [(STEP_AND, np.empty((0, 6)))]):
        samples = to_samples(parts)
        assert samples.num_samples == 0 and samples["step"].dtype == np.int64
        assert {len(values) for values in samples.values()} == {0}


def test_a_wrong_column_name_lists_the_right_ones() -> None:
    with pytest.raises(KeyError, match=r"Expected one of \[.*'host_rss_bytes'.*\]. Received: 'rss'"):
        to_samples([])["rss"]
