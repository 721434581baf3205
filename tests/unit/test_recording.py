"""Loading by log dir and name, without TensorFlow."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import FakeClock, append_payload, event_file, newer, write_run

from kerasmemwatch.errors import RecordingNotFoundError, RecordingVersionError
from kerasmemwatch.recording import load, runs, unreadable_runs
from kerasmemwatch.records.run import WorkerInfo
from kerasmemwatch.storage.codecs.row_codec import VERSION, encode_json
from kerasmemwatch.storage.files.event_file import frame, read_records
from kerasmemwatch.storage.files.journal import JOURNAL_NAME
from kerasmemwatch.storage.run_reader import read_run
from kerasmemwatch.storage.sinks.tensorboard import RUN_TAG, SAMPLES_TAG, STEPS_TAG

ROOT = Path(__file__).parents[2]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Three runs, of 1, 2 and 3 batches, whose names are not in the order of their creation."""
    for batches, name in enumerate(("zebra", "mouse", "ape"), 1):
        write_run(tmp_path / "logs", name, batches, clock=FakeClock(1000.0 * batches))
    return tmp_path / "logs"


def test_runs_are_listed_oldest_first(logs: Path) -> None:
    assert runs(logs) == runs(str(logs)) == ["zebra", "mouse", "ape"]


def test_the_newest_is_loaded(logs: Path) -> None:
    recording = load(logs)
    assert recording.run.name == "ape" and recording.samples.num_samples == 3
    # By creation, not by when somebody last touched the files.
    os.utime(event_file(logs / "zebra"))
    assert load(str(logs)).run.name == "ape"


@pytest.mark.parametrize(("name", "batches"), [("zebra", 1), ("mouse", 2), ("ape", 3)])
def test_a_run_is_loaded_by_name(logs: Path, name: str, batches: int) -> None:
    assert load(logs, name).samples["step"].tolist() == list(range(1, batches + 1))


def test_a_directory_above_has_paths_as_names(logs: Path) -> None:
    assert runs(logs.parent) == ["logs/zebra", "logs/mouse", "logs/ape"]
    assert load(logs.parent, "logs/mouse").samples.num_samples == 2
    assert load(logs.parent).run.name == "ape"


def test_a_runs_own_directory_is_a_log_dir_of_one(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs(logs / "mouse") == ["mouse"]
    assert load(logs / "mouse").samples.num_samples == 2
    monkeypatch.chdir(logs / "mouse")
    assert runs(".") == ["mouse"] and load(".").run.name == "mouse"


def test_a_log_dir_without_runs_says_how_to_record(tmp_path: Path) -> None:
    assert runs(tmp_path) == []
    with pytest.raises(RecordingNotFoundError, match=r"Expected a recording.*Received: log_dir=.*MemoryWatch"):
        load(tmp_path)


@pytest.mark.parametrize("function", [load, runs])
def test_a_missing_log_dir_is_told(tmp_path: Path, function: object) -> None:
    (tmp_path / "file").touch()
    for name in ("none", "file"):
        with pytest.raises(RecordingNotFoundError, match=r"Expected a directory.*Received: log_dir="):
            function(tmp_path / name)  # type: ignore[operator]


def test_a_missing_run_lists_those_there_are(logs: Path) -> None:
    with pytest.raises(RecordingNotFoundError, match=r"'zebra', 'mouse', 'ape'. Received: run='cat'"):
        load(logs, "cat")


@pytest.mark.parametrize(
    "run", ["../secret", "../logs/../secret", "..", ".", "", "ape/../../secret", "/etc", "link", "a\0b"]
)
def test_what_lies_outside_of_the_log_dir_is_refused(logs: Path, run: str) -> None:
    write_run(logs.parent, "secret")
    (logs / "link").symlink_to(logs.parent / "secret")
    with pytest.raises(RecordingNotFoundError, match="Expected the name of a run"):
        load(logs, run)


def test_an_absolute_path_to_a_run_outside_is_refused(logs: Path) -> None:
    write_run(logs.parent, "secret")
    with pytest.raises(RecordingNotFoundError):
        load(logs, str(logs.parent / "secret"))


def test_a_log_dir_that_is_a_link_works(logs: Path) -> None:
    link = logs.parent / "link"
    link.symlink_to(logs)
    assert load(link, "ape").samples.num_samples == 3


def test_what_could_not_be_read_is_among_the_notes(logs: Path) -> None:
    path = event_file(logs / "ape")
    path.write_bytes(path.read_bytes()[:-3])
    recording = load(logs, "ape")
    assert recording.samples.num_samples > 0 and recording.run.name == "ape"
    assert path.name in recording.run.notes[-1] and recording.report.notes[-1] == recording.run.notes[-1]


def test_a_run_whose_description_is_lost_goes_by_its_directory(logs: Path) -> None:
    path = event_file(logs / "ape")
    path.write_bytes(path.read_bytes()[:60])
    recording = load(logs, "ape")
    assert recording.run.name == "ape" and recording.samples.num_samples == 0
    assert runs(logs)[0] == "ape"
    assert load(logs).run.name == "mouse"


def test_a_newer_version_is_told(logs: Path) -> None:
    append_payload(logs / "ape", RUN_TAG, newer(VERSION + 1, of_rows=False))
    with pytest.raises(RecordingVersionError, match="pip install -U kerasmemwatch"):
        load(logs, "ape")
    with pytest.raises(RecordingVersionError):
        load(logs)
    assert load(logs, "mouse").run.name == "mouse"
    assert runs(logs) == ["zebra", "mouse", "ape"]


@pytest.mark.parametrize("code", ["kmw.load(path)", "print(kmw.load(path).report)", "kmw.runs(path)"])
def test_neither_tensorflow_nor_keras_is_loaded(logs: Path, code: str) -> None:
    script = (
        "import sys, kerasmemwatch as kmw\n"
        f"path = {str(logs)!r}\n"
        f"{code}\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'kerasmemwatch.recording' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- one odd run among others --------------------------------------------------------------------------------------

ODD_RUNS: tuple[dict[str, object], ...] = (
    *({"created": value} for value in (None, "abc", [], {}, math.inf, -1, 2**64, True)),
    {"name": 7},
    {"devices": [{"name": "CPU:0", "limit_bytes": "12 GiB"}]},
    {"devices": [None]},
    {"tags": [1]},
    {"notes": "x"},
    {"configuration": {"sample_every": "2"}},
    {"configuration": {"sample_every": 0}},
    {"configuration": []},
    {"host": {"limit_bytes": [1]}},
    {"host": {"limit_source": {}}},
    {"drivers": [{"name": 3}]},
    {"versions": {"keras": None}},
    {"worker": {"cluster": "c", "type": "worker", "index": 2**64, "count": 2}},
)


def odd_description(changes: dict[str, object]) -> bytes:
    return encode_json({"run": {"name": "odd", "created": 9e8, **changes}, "layers": []})


@pytest.mark.parametrize("changes", ODD_RUNS, ids=str)
def test_an_odd_description_leaves_every_other_run_alone(logs: Path, changes: dict[str, object]) -> None:
    write_run(logs, "odd", 4, clock=FakeClock(9000.0))
    path = event_file(logs / "odd")
    first, *_ = read_records(path.read_bytes())
    path.write_bytes(frame(first))
    append_payload(logs / "odd", RUN_TAG, odd_description(changes))
    assert runs(logs) == ["odd", "zebra", "mouse", "ape"]
    assert list(unreadable_runs(logs)) == ["odd"]
    newest = load(logs)
    assert newest.run.name == "ape" and newest.samples.num_samples == 3
    [note] = [note for note in newest.run.notes if "odd" in note]
    assert "'odd'" in note and "cannot be read" in note and next(iter(changes)) in f"{note} {changes}"
    assert load(logs, "mouse").run.notes == ()
    # By its name it gives what is intact, and says what is not.
    odd = load(logs, "odd")
    assert odd.run.name == "odd" and [note for note in odd.run.notes if RUN_TAG in note]
    assert str(odd.report) and json.dumps(odd.report.to_dict())


@pytest.mark.parametrize("tag", [SAMPLES_TAG + "9" * 5000, STEPS_TAG + "9" * 5000, SAMPLES_TAG + "\u0663" * 4400])
def test_a_tag_of_a_huge_number_is_no_number(logs: Path, tag: str) -> None:
    chunk = read_run(str(logs / "ape")).chunks[0]
    append_payload(logs / "ape", tag, chunk)
    assert load(logs).samples["step"].tolist() == [1, 2, 3]
    assert read_run(str(logs / "ape")).next_index == 1
    assert all(len(note) < 400 for note in load(logs).run.notes)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_no_file_is_told_and_never_waited_for(logs: Path) -> None:
    os.mkfifo(logs / "ape" / "events.out.tfevents.9.x.kerasmemwatch")
    os.mkfifo(logs / "ape" / JOURNAL_NAME)
    recording = load(logs)
    assert recording.samples.num_samples == 3
    assert len([note for note in recording.run.notes if "Expected a file" in note]) == 2


def test_a_newer_run_is_named(logs: Path) -> None:
    append_payload(logs / "mouse", RUN_TAG, newer(VERSION + 1, of_rows=False))
    with pytest.raises(RecordingVersionError, match="The run 'mouse' cannot be read"):
        load(logs)
    assert load(logs, "ape").samples.num_samples == 3
    assert list(unreadable_runs(logs)) == ["mouse"]


def test_a_worker_whose_rows_are_of_a_newer_version_is_a_worker_without_rows(tmp_path: Path) -> None:
    for index in range(2):
        worker = WorkerInfo("c0ffee", "worker", index, 2)
        write_run(tmp_path, f"mine-worker-{index}", 3, about={"worker": worker})
    append_payload(tmp_path / "mine-worker-0", f"{SAMPLES_TAG}000001", newer(VERSION + 1, of_rows=True))
    recording = load(tmp_path, "mine")
    assert len(recording.workers) == 2 and recording.samples.num_samples == 3
    assert [note for note in recording.run.notes if "mine-worker-0" in note and "Upgrade" in note]
