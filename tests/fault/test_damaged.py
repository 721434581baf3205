"""Recordings cut off, damaged, or of a newer version: what is intact is read, and the rest is told."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fault_kit import end_fit, is_toy_row, toy_recorder, train

from kerasmemwatch.errors import (
    MemWatchError,
    RecordingFormatError,
    RecordingNotFoundError,
    RecordingVersionError,
)
from kerasmemwatch.recording import Recording, load, runs
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.samples import Column
from kerasmemwatch.storage import run_writer
from kerasmemwatch.storage.codecs import row_codec
from kerasmemwatch.storage.files.event_file import frame, read_records
from kerasmemwatch.storage.files.journal import JOURNAL_NAME

CHUNK, NUM_CHUNKS, IN_JOURNAL = 40, 6, 25


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of the event file and the journal of a run that was killed: six chunks, then rows in the journal."""
    log_dir = tmp_path_factory.mktemp("whole")
    recorder = toy_recorder(log_dir, about={"tags": ("a",)})

    def store(step: int) -> None:
        if step == 1:
            recorder.describe([LayerMemory("head", "Dense", weights_bytes=144)])
        if step > 1 and step % CHUNK == 1:
            recorder.flush()

    with pytest.MonkeyPatch.context() as patched:
        # What is in which chunk shall not depend on a thread.
        patched.setattr(run_writer, "FlushThread", lambda _: SimpleNamespace(wake=lambda: None, stop=lambda: None))
        train(recorder, CHUNK * NUM_CHUNKS + IN_JOURNAL, lambda step: step <= CHUNK * NUM_CHUNKS + 1 and store(step))
    [events] = (log_dir / "run").glob("*tfevents*")
    data = events.read_bytes(), (log_dir / "run" / JOURNAL_NAME).read_bytes(), events.name
    recorder.close()
    return data


def run_of(folder: Path, whole, *, events: bytes | None = None, journal: bytes | None = None) -> Path:
    """A log dir with such a run; ``b""`` leaves a file out."""
    run = folder / "logs" / "run"
    run.mkdir(parents=True, exist_ok=True)
    for name, data in ((whole[2], whole[0] if events is None else events), (JOURNAL_NAME, journal)):
        data = whole[1] if data is None else data
        (run / name).unlink(missing_ok=True)
        if data:
            (run / name).write_bytes(data)
    return folder / "logs"


def checked(log_dir: Path) -> Recording:
    """Load, and use all that a recording offers."""
    recording = load(log_dir)
    assert (np.diff(recording.samples["step"]) > 0).all()
    assert str(recording.report) and recording.report.text(everything=True)
    json.dumps(recording.report.to_dict())
    assert runs(log_dir) == ["run"]
    return recording


def steps_of(recording: Recording) -> list[int]:
    assert all(is_toy_row(recording.samples, row) for row in range(recording.samples.num_samples))
    return recording.samples["step"].tolist()


def record_ends(data: bytes) -> list[int]:
    return np.cumsum([len(record) + 16 for record in read_records(data)]).tolist()


def ends_of_ours(data: bytes) -> list[int]:
    """Where the records end that hold a part of the recording, and the file's first."""
    records = list(read_records(data))
    ours = [not index or b"kerasmemwatch/" in record for index, record in enumerate(records)]
    return [end for end, is_ours in zip(record_ends(data), ours, strict=True) if is_ours]


def test_undamaged_it_has_no_notes(whole, tmp_path):
    recording = checked(run_of(tmp_path, whole))
    assert steps_of(recording) == list(range(1, CHUNK * NUM_CHUNKS + IN_JOURNAL + 1))
    assert recording.run.notes == ()
    assert [layer.path for layer in recording.layers] == ["head"]


def test_an_event_file_cut_off_anywhere_gives_the_chunks_before(whole, tmp_path):
    events = whole[0]
    ends = record_ends(events)
    around = {end + by for end in ends_of_ours(events) for by in (-90, -5, -4, -1, 0, 1, 7, 8, 11, 12, 13)}
    offsets = sorted({*around, 1, 2, 8, 12, len(events) - 1, len(events)})
    for size in (size for size in offsets if 0 < size <= len(events)):
        log_dir = run_of(tmp_path, whole, events=events[:size], journal=b"")
        recording = checked(log_dir)
        steps = steps_of(recording)
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) % CHUNK == 0
        assert bool(recording.run.notes) == (size not in ends), size
        assert all("cut off" in note and str(size) in note for note in recording.run.notes)
        if size == len(events):
            assert len(steps) == CHUNK * NUM_CHUNKS


def test_rows_in_the_journal_outlive_the_event_file(whole, tmp_path):
    for events in (b"", whole[0][:3], b"garbage" * 100):
        recording = checked(run_of(tmp_path, whole, events=events))
        assert steps_of(recording)[-IN_JOURNAL:] == list(
            range(CHUNK * NUM_CHUNKS + 1, CHUNK * NUM_CHUNKS + IN_JOURNAL + 1)
        )
        assert bool(recording.run.notes) == bool(events)


@pytest.mark.long
def test_a_journal_cut_off_anywhere_gives_its_rows_before(whole, tmp_path):
    journal = whole[1]
    chunked = CHUNK * NUM_CHUNKS
    row_bytes = (len(journal) - 4096) // 8192
    first = 4096 + chunked * row_bytes
    around_rows = {first + row * row_bytes + by for row in range(IN_JOURNAL + 2) for by in (-1, 0, 1, 9)}
    seen = set()
    for size in sorted({*range(1, 200), *range(200, 5000, 97), 4095, 4096, 4097, *around_rows, len(journal) - 1}):
        recording = checked(run_of(tmp_path, whole, journal=journal[:size]))
        fresh = max(0, min(IN_JOURNAL, (size - first) // row_bytes))
        seen.add(fresh)
        assert steps_of(recording) == list(range(1, chunked + fresh + 1))
        assert bool(recording.run.notes) == (fresh < IN_JOURNAL)
        assert all(JOURNAL_NAME in note and "cannot be read" in note for note in recording.run.notes)
    assert seen == set(range(IN_JOURNAL + 1))


def test_rows_that_never_reached_the_disk_are_left_out(whole, tmp_path):
    # After a crash of the machine: the header's page was written, some rows' pages were not.
    row_bytes = (len(whole[1]) - 4096) // 8192
    first = 4096 + (CHUNK * NUM_CHUNKS + 10) * row_bytes
    journal = whole[1][:first] + bytes(5 * row_bytes) + whole[1][first + 5 * row_bytes :]
    recording = checked(run_of(tmp_path, whole, journal=journal))
    lost = set(range(CHUNK * NUM_CHUNKS + 11, CHUNK * NUM_CHUNKS + 16))
    assert set(range(1, CHUNK * NUM_CHUNKS + IN_JOURNAL + 1)) - set(steps_of(recording)) == lost
    assert [note for note in recording.run.notes if "5 of 25 rows" in note]


def test_a_damaged_record_costs_only_itself(whole, tmp_path):
    events = whole[0]
    lost = []
    for end in ends_of_ours(events):
        middle = end - 10
        damaged = events[:middle] + bytes([events[middle] ^ 0x10]) + events[middle + 1 :]
        recording = checked(run_of(tmp_path, whole, events=damaged, journal=b""))
        lost.append(CHUNK * NUM_CHUNKS - len(steps_of(recording)))
        assert [note for note in recording.run.notes if "damaged" in note]
    assert sum(lost) == CHUNK * NUM_CHUNKS and set(lost) == {0, CHUNK}


@pytest.mark.long
def test_flipped_bits_never_give_a_traceback(whole, tmp_path):
    generator = random.Random(20)
    for _ in range(150):
        events, journal = bytearray(whole[0]), bytearray(whole[1])
        for _ in range(generator.choice((1, 1, 8))):
            events[generator.randrange(len(events))] ^= 1 << generator.randrange(8)
        for _ in range(generator.choice((1, 8))):
            # Where it matters: the counters and the layout, and the rows that are fresh.
            first = 4096 + CHUNK * NUM_CHUNKS * ((len(journal) - 4096) // 8192)
            where = generator.choice((generator.randrange(500), first + generator.randrange(2000)))
            journal[where] ^= 1 << generator.randrange(8)
        checked(run_of(tmp_path, whole, events=bytes(events), journal=bytes(journal)))


@pytest.mark.every
@pytest.mark.parametrize("value", [0, 1, 2**31 - 1, 2**32 - 1, -1, 2**62, -(2**63)])
@pytest.mark.parametrize("offset", [8, 12, 16, 24, 32], ids=["capacity", "values", "length", "head", "tail"])
def test_impossible_counters_of_a_journal(whole, tmp_path, offset, value):
    layout = "<q" if offset >= 24 else "<I"
    packed = struct.pack(layout, value if offset >= 24 else value % 2**32)
    journal = whole[1][:offset] + packed + whole[1][offset + len(packed) :]
    recording = checked(run_of(tmp_path, whole, journal=journal))
    assert recording.samples["step"][: CHUNK * NUM_CHUNKS].tolist() == list(range(1, CHUNK * NUM_CHUNKS + 1))


def newer(monkeypatch, part: str) -> bytes:
    with monkeypatch.context() as patched:
        patched.setattr(row_codec, "VERSION", row_codec.VERSION + 1)
        if part == "run":
            return row_codec.encode_json({"run": {"anything": "else"}, "layers": 1})
        return row_codec.encode_rows((Column("step"),), np.ones((1, 1)))


@pytest.mark.parametrize("part", ["run", "rows"])
def test_a_newer_version_is_told_with_the_remedy(tmp_path, monkeypatch, part):
    from kerasmemwatch.storage.sinks.base import Update
    from kerasmemwatch.storage.sinks.tensorboard import TensorBoardSink, _tensor_event

    run = tmp_path / "logs" / "run"
    run.mkdir(parents=True)
    sink = TensorBoardSink(str(run))
    sink.write(Update(None, (), np.empty((0, 1)), b"", 1, 1.0))
    tag = "kerasmemwatch/run" if part == "run" else "kerasmemwatch/samples/000000"
    event = _tensor_event(tag, newer(monkeypatch, part), Update(None, (), np.empty((0, 1)), b"", 1, 1.0))
    sink.close()
    [path] = run.iterdir()
    path.write_bytes(path.read_bytes() + frame(event.SerializeToString()))
    with pytest.raises(RecordingVersionError, match="pip install -U kerasmemwatch"):
        load(tmp_path / "logs")


def test_chunks_that_inflate_beyond_all_measure_are_refused(monkeypatch):
    rows = np.arange(1000.0).reshape(-1, 1)
    chunk = row_codec.encode_rows((Column("step"),), rows)
    assert np.array_equal(row_codec.decode_rows(chunk)[1], rows)
    monkeypatch.setattr(row_codec, "MAX_DECODED_BYTES", 1000)
    with pytest.raises(RecordingFormatError):
        row_codec.decode_rows(chunk)


@pytest.mark.parametrize("log_dir", ["nothing", "file", "empty", "foreign"])
def test_what_is_no_recording(tmp_path, log_dir):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "events.out.tfevents.1.host").write_bytes(b"x")
    with pytest.raises(RecordingNotFoundError, match=log_dir):
        load(tmp_path / log_dir)


@pytest.mark.every
@pytest.mark.parametrize("run", ["..", "../run", "/", "", ".", "no", "ru\0n", "run/..", "x" * 300])
def test_names_that_are_no_run(whole, tmp_path, run):
    log_dir = run_of(tmp_path, whole)
    with pytest.raises(MemWatchError):
        load(log_dir, run)


def test_a_killed_run_is_continued_without_its_damaged_rows(whole, tmp_path):
    log_dir = run_of(tmp_path, whole, events=whole[0][:-700], journal=b"")
    before = steps_of(load(log_dir))
    recorder = toy_recorder(log_dir)
    recorder.begin_stage("train")
    recorder.begin_epoch(3, resumed=True)
    for batch in range(10):
        recorder.batch_begin()
        recorder.batch_end(batch)
    end_fit(recorder)
    recorder.close()
    assert load(log_dir).samples["step"].tolist() == [*before, *range(before[-1] + 1, before[-1] + 11)]
    assert runs(log_dir) == ["run"]
