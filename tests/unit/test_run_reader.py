"""A run's directory, whole and damaged: what can be read is, and what cannot is told."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeClock, FakeProbe, NoFlusher, append_payload, event_file, newer, recorder_on_disk, train, write_run

from kerasmemwatch.errors import RecordingVersionError
from kerasmemwatch.storage import run_reader, run_writer
from kerasmemwatch.storage.codecs.row_codec import VERSION, decode_rows
from kerasmemwatch.storage.files.event_file import frame, read_records
from kerasmemwatch.storage.files.journal import JOURNAL_NAME
from kerasmemwatch.storage.run_reader import StoredRun, is_run_dir, read_run, run_dirs
from kerasmemwatch.storage.sinks.tensorboard import RUN_TAG, SAMPLES_TAG


def steps(run: StoredRun) -> list[int]:
    return [int(step) for chunk in run.chunks for step in decode_rows(chunk)[1][:, 0]]


def chunked(tmp_path: Path, fits: int = 3) -> Path:
    """A run whose event file has one chunk for each of its fits, of two rows each."""
    target = recorder_on_disk(tmp_path)
    for _ in range(fits):
        train(target, 2)
    target.close()
    return tmp_path / "run"


def test_reads_description_and_chunks(tmp_path: Path) -> None:
    run = read_run(str(chunked(tmp_path)))
    assert run.run is not None and run.run.name == "run"
    assert len(run.chunks) == run.next_index == 3 and steps(run) == [1, 2, 3, 4, 5, 6]
    assert run.fresh is None and run.problems == ()


def test_may_read_the_description_alone(tmp_path: Path) -> None:
    run = read_run(str(chunked(tmp_path)), rows=False)
    assert run.run is not None and run.chunks == ()


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_a_cut_off_file_gives_the_rest_and_a_note(tmp_path: Path, cut: int) -> None:
    run_dir = chunked(tmp_path)
    path = event_file(run_dir)
    records = list(read_records(path.read_bytes()))
    [third] = [index for index, record in enumerate(records) if f"{SAMPLES_TAG}000002".encode() in record]
    whole = b"".join(map(frame, records[:third]))
    path.write_bytes(whole + frame(records[third])[:-cut])
    run = read_run(str(run_dir))
    assert steps(run) == [1, 2, 3, 4] and run.run is not None
    [note] = run.problems
    assert path.name in note and "cut off" in note


def test_a_damaged_chunk_costs_its_rows_only(tmp_path: Path) -> None:
    run_dir = chunked(tmp_path)
    path = event_file(run_dir)
    data = bytearray(path.read_bytes())
    data[data.index(f"{SAMPLES_TAG}000001".encode()) + 40] ^= 1
    path.write_bytes(data)
    run = read_run(str(run_dir))
    assert steps(run) == [1, 2, 5, 6] and len(run.problems) == 1
    assert (len(run.chunks), run.next_index) == (2, 3)


def test_a_run_continued_after_damage_loses_no_more(tmp_path: Path) -> None:
    # A chunk is found by its number: a number given twice would hide the older chunk.
    test_a_damaged_chunk_costs_its_rows_only(tmp_path)
    target = recorder_on_disk(tmp_path, clock=FakeClock(1_800_000_000.0))
    target.begin_stage("train")
    target.begin_epoch(1, resumed=True)
    target.batch_end(0)
    target.batch_end(1)
    target.end_stage()
    target.close()
    assert steps(read_run(str(tmp_path / "run"))) == [1, 2, 5, 6, 7, 8]


@pytest.mark.parametrize("payload", [b"", b"garbage", zlib.compress(b"garbage")])
@pytest.mark.parametrize("tag", [RUN_TAG, f"{SAMPLES_TAG}000001"])
def test_wrong_payloads_are_told_and_the_rest_is_read(tmp_path: Path, tag: str, payload: bytes) -> None:
    run_dir = chunked(tmp_path)
    append_payload(run_dir, tag, payload)
    run = read_run(str(run_dir))
    assert steps(run) == [1, 2, 3, 4, 5, 6] and run.run is not None
    [note] = run.problems
    assert tag in note


def test_a_record_that_is_no_event_is_told(tmp_path: Path) -> None:
    run_dir = chunked(tmp_path)
    with event_file(run_dir).open("ab") as file:
        file.write(frame(b"\xff" * 20))
    run = read_run(str(run_dir))
    assert steps(run) == [1, 2, 3, 4, 5, 6] and len(run.problems) == 1


@pytest.mark.parametrize("tag", [RUN_TAG, f"{SAMPLES_TAG}000003"])
def test_a_newer_version_is_an_error(tmp_path: Path, tag: str) -> None:
    run_dir = chunked(tmp_path)
    append_payload(run_dir, tag, newer(VERSION + 1, of_rows=tag != RUN_TAG))
    with pytest.raises(RecordingVersionError, match="Upgrade"):
        read_run(str(run_dir))


def test_tags_of_others_are_left_alone(tmp_path: Path) -> None:
    run_dir = chunked(tmp_path)
    append_payload(run_dir, "loss", b"x")
    append_payload(run_dir, f"{SAMPLES_TAG}later", decodable := read_run(str(run_dir)).chunks[0])
    run = read_run(str(run_dir))
    assert run.problems == () and run.next_index == 3 and decodable in run.chunks


def test_the_journal_gives_what_is_not_stored_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "FlushThread", NoFlusher)
    target = recorder_on_disk(tmp_path, probes=(FakeProbe(),))
    target.begin_stage("train")
    for batch in range(5):
        target.batch_end(batch)
    run = read_run(str(tmp_path / "run"))
    assert run.fresh is not None and run.fresh[1][:, 0].tolist() == [1, 2, 3, 4, 5]
    target.flush()
    run = read_run(str(tmp_path / "run"))
    assert steps(run) == [1, 2, 3, 4] and run.fresh is not None and run.fresh[1][:, 0].tolist() == [5]
    target.close()
    assert read_run(str(tmp_path / "run")).fresh is None


@pytest.mark.parametrize("data", [b"garbage", bytes(5000)])
def test_a_garbage_journal_is_told_and_the_rest_is_read(tmp_path: Path, data: bytes) -> None:
    run_dir = chunked(tmp_path)
    (run_dir / JOURNAL_NAME).write_bytes(data)
    run = read_run(str(run_dir))
    assert steps(run) == [1, 2, 3, 4, 5, 6] and run.fresh is None
    [note] = run.problems
    assert JOURNAL_NAME in note


def test_a_run_that_has_only_just_begun_has_no_rows_and_no_problem(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_NAME).touch()
    assert read_run(str(tmp_path)) == StoredRun()


def test_finds_runs_at_and_below_a_directory(tmp_path: Path) -> None:
    write_run(tmp_path, "b")
    write_run(tmp_path / "deep" / "er", "a")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "events.out.tfevents.1.host").touch()
    found = [str(tmp_path / "b"), str(tmp_path / "deep" / "er" / "a")]
    assert run_dirs(str(tmp_path)) == found
    assert run_dirs(found[0]) == [found[0]]
    assert [is_run_dir(path) for path in (*found, str(tmp_path), str(tmp_path / "none"))] == [True, True, False, False]


def test_nothing_there_reads_as_nothing(tmp_path: Path) -> None:
    assert read_run(str(tmp_path)) == read_run(str(tmp_path / "none")) == StoredRun()


def killed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, bytes, Any]:
    """A run of 300 rows that are in the journal only."""
    monkeypatch.setattr(run_writer, "FlushThread", NoFlusher)
    target = recorder_on_disk(tmp_path)
    target.begin_stage("train")
    target.begin_epoch(0)
    for batch in range(300):
        target.batch_end(batch)
    path = tmp_path / "run" / JOURNAL_NAME
    return path, path.read_bytes(), target


@pytest.mark.parametrize("page", range(1, 4))
def test_a_page_that_never_reached_the_disk_is_told_and_never_shown_as_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    path, data, target = killed_run(tmp_path, monkeypatch)
    layout, whole = read_run(str(tmp_path / "run")).fresh or ((), np.empty((0, 0)))
    assert len(whole) == 300
    path.write_bytes(data[: 4096 * page] + bytes(4096) + data[4096 * (page + 1) :])
    run = read_run(str(tmp_path / "run"))
    path.write_bytes(data)
    assert run.fresh is not None and run.fresh[0] == layout
    assert 0 < len(run.fresh[1]) < 300 and run.fresh[1].tolist() == [
        each for each in whole.tolist() if each[0] in run.fresh[1][:, 0]
    ]
    [note] = run.problems
    assert f"{300 - len(run.fresh[1])} of 300 rows cannot be read" in note
    target.close()


@pytest.mark.parametrize("writing", [True, False])
def test_a_row_that_is_being_written_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writing: bool
) -> None:
    _, data, target = killed_run(tmp_path, monkeypatch)
    torn = data[:4100] + b"\x55" + data[4101:]
    answers = [torn, data] if writing else [torn] * 2
    read = run_reader.read_bytes
    monkeypatch.setattr(
        run_reader, "read_bytes", lambda path, *most: answers.pop(0) if JOURNAL_NAME in path else read(path, *most)
    )
    run = read_run(str(tmp_path / "run"))
    assert run.fresh is not None and (len(run.fresh[1]), len(run.problems)) == ((300, 0) if writing else (299, 1))
    assert not answers
    target.close()
