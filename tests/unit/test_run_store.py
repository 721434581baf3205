"""Names of runs and their directories."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeSink, write_run

from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError
from kerasmemwatch.storage import run_claim
from kerasmemwatch.storage.run_reader import StoredRun
from kerasmemwatch.storage.run_store import check_run_name, open_store
from kerasmemwatch.storage.sinks.tensorboard import TensorBoardSink

ROOT = Path(__file__).parents[2]
HTML = "<script>alert(1)<br>"
LONG = "x" * 200


@pytest.mark.parametrize("name", ["run", "a b", ".hidden", "...", HTML, LONG, "é" * 120, "[red]x[", "-", "x" * 255])
def test_names_of_directories_are_taken(name: str) -> None:
    check_run_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "../x", "a\\b", "a\0b", "x" * 256, "é" * 128, "\ud800"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"Expected run_name .*Received:"):
        check_run_name(name)


@pytest.mark.parametrize("name", [None, 1, b"run", Path("run"), ["run"]])
def test_other_types_are_refused(name: Any) -> None:
    with pytest.raises(InvalidTypeError, match=r"Expected run_name .*Received: run_name="):
        check_run_name(name)


def test_without_a_log_dir_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named, unnamed = open_store(None, "mine", created=0.0), open_store(None, None, created=0.0)
    assert (named.name, unnamed.name) == ("mine", "memwatch-19700101T000000Z")
    assert named.sinks == () and named.journal_path is None
    assert list(tmp_path.iterdir()) == []


def test_runs_without_a_name_are_numbered_within_a_second(tmp_path: Path) -> None:
    names = [open_store(str(tmp_path), None, created=1_700_000_000.0 + second).name for second in (0, 0.5, 1)]
    assert names == ["memwatch-20231114T221320Z-0", "memwatch-20231114T221320Z-1", "memwatch-20231114T221321Z-0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    for _ in range(3):
        write_run(tmp_path, "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine-2", "mine-3"]


def test_a_directory_without_a_run_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "events.out.tfevents.1.keras").touch()  # beside keras.callbacks.TensorBoard, say
    assert open_store(str(tmp_path), "mine", created=0.0).name == "mine"


@pytest.mark.parametrize("name", [HTML, LONG])
def test_odd_names_are_directories(tmp_path: Path, name: str) -> None:
    opened = open_store(str(tmp_path), name, created=0.0)
    assert opened.name == name and (tmp_path / name).is_dir()


def test_a_resumed_run_is_continued(tmp_path: Path) -> None:
    write_run(tmp_path, "mine", batches=4)
    released: list[str] = []
    store = open_store(str(tmp_path), "mine", created=0.0, resume=True, release=released.append)
    assert store.name == "mine" and store.previous.run is not None and len(store.previous.chunks) == 1
    assert released == [str(tmp_path / "mine")]


def test_there_may_be_nothing_to_resume(tmp_path: Path) -> None:
    released: list[str] = []
    store = open_store(str(tmp_path), "mine", created=0.0, resume=True, release=released.append)
    assert (store.name, store.previous, released) == ("mine", StoredRun(), [])
    assert open_store(str(tmp_path), None, created=0.0, resume=True).previous == StoredRun()


def test_the_default_sink_writes_into_the_runs_directory(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), "mine", created=0.0)
    [sink] = store.sinks
    assert isinstance(sink, TensorBoardSink) and sink.directory == str(tmp_path / "mine")
    assert store.journal_path == tmp_path / "mine" / "rows.journal"


def test_given_sinks_take_its_place(tmp_path: Path) -> None:
    sink = FakeSink()
    assert open_store(str(tmp_path), "mine", created=0.0, sinks=[sink]).sinks == (sink,)
    assert open_store(None, "mine", created=0.0, sinks=[sink]).sinks == (sink,)
    assert open_store(str(tmp_path), "other", created=0.0, sinks=[]).sinks == ()


def test_a_file_in_the_way_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with pytest.raises(OSError):
        open_store(str(tmp_path / "logs"), None, created=0.0)


def test_of_two_processes_that_begin_at_once_only_one_has_a_directory(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()  # as the other process leaves it for a moment
    first, second = (open_store(str(tmp_path), "run", created=0.0) for _ in range(2))
    assert [first.name, second.name] == ["run", "run-2"]


def test_of_two_that_resume_a_run_at_once_the_second_has_one_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path, "mine", batches=4)
    first, second, third = (open_store(str(tmp_path), "mine", created=0.0, resume=True) for _ in range(3))
    assert (first.name, first.occupied, len(first.previous.chunks)) == ("mine", "", 1)
    assert (second.name, second.occupied, second.previous) == ("mine-2", "mine", StoredRun())
    assert (third.name, third.occupied) == ("mine-3", "mine")
    first.unlock()
    again = open_store(str(tmp_path), "mine", created=0.0, resume=True)
    assert (again.name, again.occupied) == ("mine", "")


def test_where_nothing_can_be_locked_a_run_is_resumed_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(path: str) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    write_run(tmp_path, "mine", batches=4)
    monkeypatch.setattr(run_claim, "DirectoryLock", unsupported)
    resumed = open_store(str(tmp_path), "mine", created=0.0, resume=True)
    assert (resumed.name, resumed.claim, len(resumed.previous.chunks)) == ("mine", None, 1)


def test_a_run_is_another_processs_until_that_ends_however_it_ends(tmp_path: Path) -> None:
    write_run(tmp_path, "mine", batches=4)
    script = (
        "import sys\n"
        "from kerasmemwatch.storage.run_store import open_store\n"
        "held = open_store(sys.argv[1], 'mine', created=0.0, resume=True)\n"
        "print(held.name, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    other = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "mine\n"
        assert open_store(str(tmp_path), "mine", created=0.0, resume=True).name == "mine-2"
    finally:
        other.kill()
        other.communicate()
    assert open_store(str(tmp_path), "mine", created=0.0, resume=True).name == "mine"
