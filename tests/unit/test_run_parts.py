"""What is decoded of one run: possible rows only, and no more than its files can hold."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import append_payload, write_run
from runs import traced_steps
from timelines import realistic_step, step, timeline

from kerasmemwatch.errors import RecordingFormatError
from kerasmemwatch.recording import load
from kerasmemwatch.records.rows import ALWAYS
from kerasmemwatch.records.samples import Column
from kerasmemwatch.storage.codecs.row_codec import VERSION, encode_rows
from kerasmemwatch.storage.codecs.run_codec import decode_run
from kerasmemwatch.storage.codecs.step_codec import decode_step, encode_step
from kerasmemwatch.storage.files.journal import JOURNAL_NAME
from kerasmemwatch.storage.run_parts import Allowance, decode_chunk, possible_rows
from kerasmemwatch.storage.sinks.tensorboard import RUN_TAG, SAMPLES_TAG, STEPS_TAG
from kerasmemwatch.units import MIB

LAYOUT = (*ALWAYS[:5], Column("x"))
GOOD = [3.0, 2.0, 0.0, 0.0, 1.7e9, 5.0]
MOST_BYTES = 150 * MIB  # an interpreter with NumPy and TensorBoard's protocol takes some 90 more


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("step", [math.nan, math.inf, 0, -1, 1.5, 2.0**64]),
        ("train_step", [math.nan, math.inf, -1, 0.5, 2.0**64]),
        ("epoch", [math.inf, -1, 0.5]),
        ("stage", [math.nan, -1, 3, 99, 0.5]),
        ("time_s", [math.nan, math.inf, -1, 1e300]),
    ],
)
def test_rows_that_cannot_have_been_recorded(name: str, odd: list[float]) -> None:
    index = [column.name for column in LAYOUT].index(name)
    rows = np.array([GOOD, *[GOOD] * len(odd), GOOD])
    rows[1:-1, index] = odd
    assert possible_rows(LAYOUT, rows).tolist() == [True, *[False] * len(odd), True]
    with pytest.raises(RecordingFormatError, match=f"{len(odd)} of them"):
        decode_chunk(encode_rows(LAYOUT, rows))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 2.0**64])
def test_what_a_probe_gave_never_costs_the_row(value: float) -> None:
    rows = np.array([[*GOOD[:5], value]])
    assert np.array_equal(decode_chunk(encode_rows(LAYOUT, rows))[1], rows, equal_nan=True)


def test_rows_without_a_step_are_none() -> None:
    with pytest.raises(RecordingFormatError):
        decode_chunk(encode_rows((Column("x"),), np.ones((2, 1))))


def test_an_allowance_counts_what_joined_rows_take() -> None:
    allowance = Allowance()
    allowance.rows((Column("step"), Column("a", 200)), np.ones((1000, 201)))
    allowance.rows((Column("step"), Column("b", 200)), np.ones((1000, 201)))
    with pytest.raises(RecordingFormatError, match="Expected at most"):
        # 401 columns become 2,401 for each of 2,001 rows.
        allowance.rows((Column("step"), Column("c", 2000)), np.ones((1, 2001)))
    allowance.rows((Column("step"),), np.ones((1000, 1)))
    allowance.stored(MIB)
    allowance.rows((Column("step"), Column("c", 2000)), np.ones((1, 2001)))


def test_an_allowance_has_room_for_what_is_recorded() -> None:
    # The most that compresses: a day of eight idle GPUs, and a large step traced again and again.
    layout = (*ALWAYS[:5], *(Column(f"gpu{i}", 8) for i in range(8)))
    time = np.random.default_rng(0).random(8192).cumsum()
    rows = np.column_stack(
        [np.arange(1, 8193), np.arange(1, 8193), *np.zeros((2, 8192)), time, np.full((8192, 64), 1e9)]
    )
    chunk, step = encode_rows(layout, rows), realistic_step(50_000)
    payload = encode_step(step)
    allowance = Allowance()
    for _ in range(40):
        allowance.stored(len(chunk))
        allowance.rows(layout, rows)
        allowance.stored(len(payload))
        allowance.step(step)


# -- small files that would take all memory ------------------------------------------------------------------------


def chunk_of(header: dict[str, Any], body: bytes = b"") -> bytes:
    text = json.dumps({"version": VERSION, **header}).encode()
    return zlib.compress(struct.pack("<I", len(text)) + text + body, 9)


def long_step(planes: int, count: int) -> bytes:
    data = zlib.decompress(encode_step(traced_steps()[0]))
    (length,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + length])
    names = [name for name, _, _ in header["columns"]]
    return chunk_of(
        {**header, "columns": [[name, planes, count] for name in names]}, bytes(planes * count * len(names))
    )


def description(inside: bytes, count: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(b'{"version":1,"run":{"name":"x","created":1,"tags":[')]
    parts += [packer.compress(inside * 10_000) for _ in range(count // 10_000)]
    return b"".join([*parts, packer.compress(b'""]},"layers":[]}'), packer.flush()])


def wide_rows(num_rows: int, width: int) -> bytes:
    layout = [["step", None, True], ["x", width, False]]
    whole = [True] * (width + 1)
    return chunk_of({"layout": layout, "rows": num_rows, "whole": whole}, bytes(8 * num_rows * (width + 1)))


PAYLOADS: dict[str, tuple[Callable[[bytes], Any], Callable[[], bytes]]] = {
    "a step of empty columns": (decode_step, lambda: long_step(0, 50_000_000)),
    "a step of 2**64": (decode_step, lambda: long_step(0, 2**64)),
    "a step of as much as there may be": (decode_step, lambda: long_step(1, 2**19)),
    "rows without columns": (decode_chunk, lambda: chunk_of({"layout": [], "rows": 3 * 10**7, "whole": []})),
    "2**64 rows": (decode_chunk, lambda: chunk_of({"layout": [], "rows": 2**64, "whole": []})),
    "a layout of a million": (
        decode_chunk,
        lambda: chunk_of({"layout": [["a", 0, True]] * 10**6, "rows": 0, "whole": []}),
    ),
    "a column of 2**40": (decode_chunk, lambda: chunk_of({"layout": [["a", 2**40, True]], "rows": 1, "whole": []})),
    "rows of as much as there may be": (decode_chunk, lambda: wide_rows(8000, 500)),
    "rows of more": (decode_chunk, lambda: wide_rows(50_000, 500)),
    "a description of empty lists": (decode_run, lambda: description(b"[],", 70_000_000)),
    "a description of few empty lists": (decode_run, lambda: description(b"[],", 120_000)),
    "a description of one long word": (decode_run, lambda: description(b"x" * 1000, 200_000)),
}


@pytest.fixture(scope="module", params=PAYLOADS)
def bomb(request: pytest.FixtureRequest) -> tuple[Callable[[bytes], Any], bytes]:
    decode, make = PAYLOADS[request.param]
    return decode, make()


@pytest.fixture
def peak_bytes() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_small_payload_takes_little_memory(bomb: Any, peak_bytes: Callable[[], int]) -> None:
    decode, payload = bomb
    assert len(payload) < MIB
    try:
        decode(payload)
    except RecordingFormatError:
        pass
    assert peak_bytes() < MOST_BYTES


def assert_loads(folder: Path, peak_bytes: Callable[[], int]) -> list[str]:
    tracemalloc.reset_peak()
    recording = load(folder)
    assert recording.samples["step"].tolist()[:5] == [1, 2, 3, 4, 5]
    assert peak_bytes() < MOST_BYTES
    return [note for note in recording.run.notes if "cannot be read" in note]


@pytest.fixture
def many_parts(tmp_path: Path) -> Path:
    """Files of a run whose every part is possible, and takes far more memory than the file has bytes."""
    write_run(tmp_path, "run")
    step = large_step()
    for number in range(1, 21):
        append_payload(tmp_path / "run", f"{SAMPLES_TAG}{number:06d}", odd_rows(number, 4000, 400))
        append_payload(tmp_path / "run", f"{STEPS_TAG}{number:06d}", encode_step(replace(step, step=number)))
    assert sum(path.stat().st_size for path in (tmp_path / "run").iterdir()) < 2 * MIB
    return tmp_path


@pytest.mark.long
def test_many_parts_that_are_small_each_take_little_memory(many_parts: Path, peak_bytes: Callable[[], int]) -> None:
    notes = assert_loads(many_parts, peak_bytes)
    assert any(SAMPLES_TAG in note for note in notes) and any(STEPS_TAG in note for note in notes)
    assert all("from a run's files of this size" in note for note in notes)


def odd_rows(number: int, num_rows: int, width: int) -> bytes:
    """Rows that are possible, and compress to nearly nothing; the column is of this chunk only."""
    rows = np.zeros((num_rows, width + 5))
    rows[:, 0] = np.arange(num_rows) + 10 + number * num_rows
    rows[:, 4] = 1.7e9
    return encode_rows((*ALWAYS[:5], Column(f"x{number}", width)), rows)


def large_step() -> Any:
    lines = [(256, 0, 1, "dense", "weights", "forward", "MatMul")] * 100_000
    return step(timeline(lines, 100_000))


def test_a_journal_whose_head_is_larger_than_its_file(tmp_path: Path, peak_bytes: Callable[[], int]) -> None:
    write_run(tmp_path, "run")
    text = json.dumps([["step", None, True], ["x", 511, False]]).encode()
    for magic, capacity in ((b"KMWRING1", 1 << 20), (b"KMWRING2", 1 << 20), (b"KMWRING1", 8192), (b"KMWRING2", 8192)):
        fixed = struct.pack("<8sIII", magic, capacity, 512, len(text))
        header = fixed + struct.pack("<Iqq", zlib.crc32(fixed + text), capacity, 0) + text
        (tmp_path / "run" / JOURNAL_NAME).write_bytes(header.ljust(4096, b"\0"))
        [note] = assert_loads(tmp_path, peak_bytes)
        assert JOURNAL_NAME in note


def test_a_damaged_description_leaves_the_rows(tmp_path: Path, peak_bytes: Callable[[], int]) -> None:
    write_run(tmp_path, "run")
    append_payload(tmp_path / "run", RUN_TAG, description(b"[],", 70_000_000))
    [note] = assert_loads(tmp_path, peak_bytes)
    assert RUN_TAG in note
