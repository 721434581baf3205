"""The ring of newest rows: what a reader finds at any moment."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.errors import RecordingFormatError, RecordingVersionError
from kerasmemwatch.records.samples import Column
from kerasmemwatch.storage.files.journal import JOURNAL_NAME, Journal, read_journal

LAYOUT = (Column("step"), Column("x", 2))
ROW_BYTES = 32  # three values and a checksum


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / JOURNAL_NAME


def row(step: int) -> list[float]:
    return [float(step), step + 0.25, step + 0.5]


def fill(journal: Journal, start: int, stop: int) -> None:
    for step in range(start, stop):
        journal.append(row(step))


def steps(path: Path) -> list[int]:
    layout, rows = read_journal(path.read_bytes())
    assert layout == LAYOUT
    assert rows[:, 1:].tolist() == [row(int(step))[1:] for step in rows[:, 0]]
    return [int(step) for step in rows[:, 0]]


def test_rows_are_in_the_file_as_soon_as_they_are_appended(path: Path) -> None:
    journal = Journal(LAYOUT, path, 8)
    seen = [steps(path)]
    for step in range(3):
        journal.append(row(step))
        seen.append(steps(path))
    assert seen == [[], [0], [0, 1], [0, 1, 2]]
    journal.close()


def test_released_rows_are_not_read_again(path: Path) -> None:
    journal = Journal(LAYOUT, path, 8)
    fill(journal, 0, 5)
    journal.release(3)
    assert steps(path) == [3, 4]
    journal.close()


def test_the_ring_wraps(path: Path) -> None:
    journal = Journal(LAYOUT, path, 8)
    fill(journal, 0, 6)
    journal.release(6)
    fill(journal, 6, 14)
    assert journal.full
    assert steps(path) == list(range(6, 14))
    assert journal.rows(6, 14)[:, 0].tolist() == list(range(6, 14))
    journal.release(10)
    assert not journal.full
    fill(journal, 14, 18)
    assert steps(path) == list(range(10, 18))
    journal.close()


def test_is_full_when_the_next_row_would_overwrite_one() -> None:
    journal = Journal(LAYOUT, None, 4)
    filled = []
    for step in range(4):
        filled.append(journal.full)
        journal.append(row(step))
    assert filled == [False] * 4 and journal.full
    journal.release(1)
    assert not journal.full
    journal.close()


def test_nothing_is_written_at_the_limit() -> None:
    journal = Journal(LAYOUT, None, 4)
    journal.limit = 2
    assert [journal.append(row(step)) for step in range(3)] == [True, True, False]
    assert journal.head == 2
    journal.limit = 3
    assert journal.append(row(2)) and journal.rows(0, 3).tolist() == [row(0), row(1), row(2)]
    journal.close()


@pytest.mark.parametrize(
    "wrong", [[], [1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, "x"], [1.0, None, 2.0], [1.0, 2.0, 10**400]]
)
def test_what_is_no_row_is_refused_and_no_other_row_suffers(path: Path, wrong: list[Any]) -> None:
    journal = Journal(LAYOUT, path, 4)
    fill(journal, 0, 3)
    with pytest.raises((TypeError, ValueError)):
        journal.append(wrong)
    assert steps(path) == [0, 1, 2]
    assert journal.append(row(3))
    assert steps(path) == [0, 1, 2, 3]
    journal.close()


def test_rows_are_copies_that_later_rows_leave_alone() -> None:
    journal = Journal(LAYOUT, None, 4)
    fill(journal, 0, 4)
    rows = journal.rows(0, 4)
    journal.release(4)
    fill(journal, 4, 8)
    assert rows[:, 0].tolist() == [0, 1, 2, 3]
    journal.close()


def test_amending_changes_the_newest_row_only(path: Path) -> None:
    journal = Journal(LAYOUT, path, 4)
    fill(journal, 0, 6)
    assert journal.amend(2, [7.0])
    assert read_journal(path.read_bytes())[1].tolist() == [row(2), row(3), row(4), [5.0, 5.25, 7.0]]
    assert journal.amend(1, [8.0, 9.0])
    assert journal.rows(5, 6).tolist() == [[5.0, 8.0, 9.0]]
    journal.close()


def test_a_stored_row_is_amended_no_more() -> None:
    journal = Journal(LAYOUT, None, 4)
    assert not journal.amend(0, [1.0])
    fill(journal, 0, 1)
    journal.release(1)
    assert not journal.amend(0, [1.0])
    journal.close()


def test_a_row_that_is_being_written_is_not_read(path: Path) -> None:
    journal = Journal(LAYOUT, path, 4)
    fill(journal, 0, 2)
    data = bytearray(path.read_bytes())
    # The row comes before the counter, so a reader or a crash in between sees the row without the counter.
    struct.pack_into("<3d", data, 4096 + 2 * ROW_BYTES, 99, 99, 99)
    assert read_journal(bytes(data))[1][:, 0].tolist() == [0, 1]
    journal.close()


def test_a_reader_that_is_overtaken_gets_the_rows_that_are_there(path: Path) -> None:
    # head says 9, tail still 0: the writer released and went on between two reads.
    journal = Journal(LAYOUT, path, 4)
    fill(journal, 0, 9)
    assert steps(path) == [5, 6, 7, 8]
    journal.close()


@pytest.mark.parametrize(("released", "stays"), [(0, True), (2, True), (3, False)])
def test_the_file_goes_when_all_its_rows_are_stored(path: Path, released: int, stays: bool) -> None:
    journal = Journal(LAYOUT, path, 4)
    fill(journal, 0, 3)
    journal.release(released)
    journal.close()
    assert path.exists() == stays


def test_a_file_that_somebody_removed_is_no_error(path: Path) -> None:
    journal = Journal(LAYOUT, path, 4)
    path.unlink()
    journal.append(row(0))
    journal.release(1)
    journal.close()


def test_the_whole_file_is_allocated_at_once(path: Path) -> None:
    journal = Journal(LAYOUT, path, 1024)
    assert path.stat().st_size == journal.size_bytes == 4096 + 1024 * ROW_BYTES
    assert path.stat().st_blocks * 512 >= journal.size_bytes
    journal.close()


def test_a_full_disk_is_told_at_creation_and_leaves_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        Journal(LAYOUT, path, 8)
    assert not path.exists()
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_system_without_allocation_still_gets_a_journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    journal = Journal(LAYOUT, path, 8)
    fill(journal, 0, 2)
    assert steps(path) == [0, 1]
    journal.close()


def test_a_layout_too_long_for_the_header_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="Expected a layout of at most 4088 bytes"):
        Journal(tuple(Column(f"column_{i}") for i in range(500)), path, 8)
    assert not path.exists()


def journal_bytes(path: Path) -> bytes:
    journal = Journal(LAYOUT, path, 8)
    fill(journal, 0, 5)
    data = path.read_bytes()
    journal.close()
    return data


@pytest.mark.parametrize("size", [0, 1, 39, 40, 60])
def test_a_file_cut_off_in_its_header_raises_our_error(path: Path, size: int) -> None:
    with pytest.raises(RecordingFormatError):
        read_journal(journal_bytes(path)[:size])


@pytest.mark.parametrize(
    ("size", "whole"), [(4095, 0), (4096, 0), (4096 + 31, 0), (4096 + 32, 1), (4096 + 4 * 32 + 1, 4)]
)
def test_a_file_cut_off_in_its_rows_gives_the_whole_ones(path: Path, size: int, whole: int) -> None:
    _, rows = read_journal(journal_bytes(path)[:size])
    assert rows[:whole].tolist() == [row(step) for step in range(whole)]
    assert np.isnan(rows[whole:]).all() and len(rows) == 5


@pytest.mark.parametrize(
    ("offset", "packed"),
    [
        (0, b"KMWRING9"),
        (8, struct.pack("<I", 0)),  # capacity
        (8, struct.pack("<I", 2**32 - 1)),
        (12, struct.pack("<I", 4)),  # values a row
        (12, struct.pack("<I", 2**32 - 1)),
        (16, struct.pack("<I", 3)),  # JSON bytes
        (24, struct.pack("<q", -1)),  # head
        (32, struct.pack("<q", 6)),  # tail, behind head
        (32, struct.pack("<q", -1)),
        (40, b"{" * 20),
        (40, b"\xff" * 20),
    ],
)
def test_a_damaged_header_raises_our_error(path: Path, offset: int, packed: bytes) -> None:
    data = bytearray(journal_bytes(path))
    data[offset : offset + len(packed)] = packed
    with pytest.raises(RecordingFormatError):
        read_journal(bytes(data))


def test_a_journal_of_the_first_version_is_read(path: Path) -> None:
    # It had no checksums.
    text = b'[["step",null,true],["x",2,true]]'
    header = struct.pack("<8sIIIIqq", b"KMWRING1", 8, 3, len(text), 0, 10, 7) + text
    ring = np.array([row(step) for step in (8, 9, 2, 3, 4, 5, 6, 7)])
    data = header.ljust(4096, b"\0") + ring.tobytes()
    layout, rows = read_journal(data)
    assert layout == LAYOUT and rows.tolist() == [row(7), row(8), row(9)]
    ring[0, 1] = 1e300
    _, rows = read_journal(header.ljust(4096, b"\0") + ring.tobytes())
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("version", [b"3", b"9"])
def test_a_newer_journal_says_upgrade(path: Path, version: bytes) -> None:
    data = bytearray(journal_bytes(path))
    data[7:8] = version
    with pytest.raises(RecordingVersionError, match="pip install -U kerasmemwatch"):
        read_journal(bytes(data))


def long_journal(path: Path) -> tuple[bytes, np.ndarray]:
    """The second lap of a ring of several pages, and its rows."""
    journal = Journal(LAYOUT, path, 1024)
    fill(journal, 1, 1025)
    journal.release(600)
    fill(journal, 1025, 1500)
    journal.amend(2, [-7.0])
    data = path.read_bytes()
    journal.close()
    return data, read_journal(data)[1]


def assert_right_or_unknown(found: np.ndarray, whole: np.ndarray) -> int:
    """Each row is as it was recorded, or unknown as a whole; how many are unknown."""
    assert found.shape == whole.shape
    unknown = np.isnan(found).all(axis=1)
    assert np.array_equal(found[~unknown], whole[~unknown])
    return int(unknown.sum())


@pytest.mark.parametrize("page", range(1, 9))
@pytest.mark.parametrize("kind", ["zeros", "older rows", "noise"])
def test_a_page_that_never_reached_the_disk_is_unknown(path: Path, page: int, kind: str) -> None:
    data, whole = long_journal(path)
    assert whole[:, 0].tolist() == list(range(601, 1500))
    older = Journal(LAYOUT, None, 1024)
    fill(older, 1, 1025)
    place = slice(4096 * page, 4096 * (page + 1))
    lost = {
        "zeros": bytes(4096),
        "older rows": bytes(older._map[place]),
        "noise": np.random.default_rng(page).bytes(4096),
    }
    older.close()
    unknown = assert_right_or_unknown(read_journal(data[: place.start] + lost[kind] + data[place.stop :])[1], whole)
    # Slots 0 to 474 hold rows of the second lap, which an older page lacks; slots 600 on those of the first.
    slots = range(128 * (page - 1), 128 * page)
    assert unknown == sum(slot < 475 or (slot >= 600 and kind != "older rows") for slot in slots)


@pytest.mark.parametrize("seed", range(100))
def test_a_flipped_bit_is_never_a_measurement(path: Path, seed: int) -> None:
    data, whole = long_journal(path)
    random = np.random.default_rng(seed)
    damaged = bytearray(data)
    place = int(random.integers(4096, len(data)) if seed % 4 else random.integers(0, 90))
    damaged[place] ^= 1 << int(random.integers(8))
    try:
        layout, rows = read_journal(bytes(damaged))
    except RecordingFormatError:
        assert place < 4096
        return
    assert layout == LAYOUT
    known = rows[~np.isnan(rows).all(axis=1)]
    of_step = {int(each[0]): each for each in [*whole, *(np.array(row(step)) for step in range(1, 601))]}
    assert all(np.array_equal(each, of_step[int(each[0])]) for each in known)


def test_a_head_beyond_its_file_costs_no_memory(path: Path) -> None:
    text = b'[["step",null,true],["x",511,false]]'
    fixed = struct.pack("<8sIII", b"KMWRING2", 1 << 20, 512, len(text))
    header = fixed + struct.pack("<Iqq", zlib.crc32(fixed + text), 1 << 20, 0) + text
    with pytest.raises(RecordingFormatError, match="capacity=1048576"):
        read_journal(header.ljust(4096, b"\0"))


@pytest.mark.parametrize("seed", range(200))
def test_random_damage_of_the_header_never_escapes_our_error(path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(journal_bytes(path))
    for _ in range(3):
        data[random.integers(0, 90)] = random.integers(0, 256)
    try:
        layout, rows = read_journal(bytes(data))
    except RecordingFormatError:
        return
    assert rows.shape[1] == sum(column.size for column in layout)
