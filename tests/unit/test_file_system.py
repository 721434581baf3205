"""The few file operations: what can be told early, and appends that are all or nothing."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import pytest
from fakes import write_run

from kerasmemwatch.cli import main
from kerasmemwatch.comparison import compare
from kerasmemwatch.errors import LogDirError
from kerasmemwatch.recording import load, runs
from kerasmemwatch.storage.files import file_system
from kerasmemwatch.storage.files.file_system import (
    check_log_dir,
    is_remote,
    join,
    make_new_dir,
    open_for_append,
    read_bytes,
    walk,
)
from kerasmemwatch.watch.options import Options


def test_a_directory_that_exists_or_can_be_made_is_fine(tmp_path: Path) -> None:
    check_log_dir(str(tmp_path))
    check_log_dir(str(tmp_path / "a" / "b" / "c"))
    check_log_dir("gs://bucket/anything")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_file_in_the_way_is_told(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LogDirError, match=r"Expected log_dir .*Received: log_dir=.*file' is a file\. Choose another"):
        check_log_dir(str(tmp_path / "file" / below).rstrip("/"))


def test_a_dangling_link_is_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(LogDirError):
        check_log_dir(str(tmp_path / "link"))


def test_a_link_to_a_directory_is_fine(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    check_log_dir(str(tmp_path / "link" / "logs"))


def test_a_directory_of_somebody_else_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(LogDirError, match=r"Expected a log_dir that may be written to. Received: .*not writable"):
        check_log_dir(str(tmp_path / "logs"))


@pytest.mark.skipif(os.name == "nt", reason="a working directory cannot be deleted there")
def test_a_working_directory_that_was_deleted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    write_run(tmp_path / "logs", "run")
    for used in (check_log_dir, lambda path: Options(log_dir=path), load, runs, partial(load, run="run"), compare_with):
        for relative in ("logs", ".", "../logs"):
            with pytest.raises(LogDirError, match=r"Expected log_dir to be absolute.* Give an absolute path"):
                used(relative)
    assert runs(tmp_path / "logs") == ["run"] and load(str(tmp_path / "logs"), "run").run.name == "run"
    Options(log_dir=str(tmp_path / "logs"))


@pytest.mark.skipif(os.name == "nt", reason="a working directory cannot be deleted there")
@pytest.mark.parametrize("arguments", ["show logs", "show logs --list", "report logs", "compare a b", "run x.py"])
def test_the_command_line_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert main(arguments.split()) == 2
    assert "working directory that cannot be found" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="a working directory cannot be deleted there")
def test_a_report_that_leads_nowhere_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "logs", "run")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["report", str(tmp_path / "logs"), "-o", "report.html"]) == 2
    said = capsys.readouterr()
    assert "Expected the report's path to be absolute, or the working directory to exist" in said.err
    assert "Give an absolute path" in said.err and not said.out
    assert main(["report", str(tmp_path / "logs"), "-o", str(tmp_path / "report.html")]) == 0
    assert (tmp_path / "report.html").exists()


def compare_with(path: str) -> object:
    return compare(path, path)


def test_joins_with_the_separator_of_the_file_system() -> None:
    assert join("gs://bucket/logs/", "run") == "gs://bucket/logs/run"
    assert join("logs", "run") == os.path.join("logs", "run")
    assert is_remote("s3://x") and not is_remote("/tmp/x") and not is_remote("C:\\x")


def test_makes_parents_and_tells_whether_the_directory_is_new(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert make_new_dir(str(path)) and path.is_dir()
    assert not make_new_dir(str(path))


def test_walks_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    (tmp_path / "run" / "loop").symlink_to(tmp_path)
    assert sorted(walk(str(tmp_path))) == [(str(tmp_path), []), (str(tmp_path / "run"), ["file"])]
    assert list(walk(str(tmp_path / "none"))) == []


def test_appends_and_reads_back(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    file = open_for_append(path)
    file.append(b"one")
    assert read_bytes(path) == b"one"
    file.append(b"")
    file.append(b"two")
    file.close()
    assert read_bytes(path) == b"onetwo"


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        open_for_append(str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"mine"


class FullDisk:
    """A file on a disk that has room for so many bytes, taken in pieces."""

    def __init__(self, file: object, room: int, error: BaseException) -> None:
        self._inner, self.room, self._error = file, room, error

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def write(self, data: memoryview) -> int:
        if not self.room:
            raise self._error
        taken = min(2, self.room, len(data))
        self.room -= taken
        return int(self._inner.write(data[:taken]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("room", range(7))
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_append_is_all_or_nothing(tmp_path: Path, room: int, error: BaseException) -> None:
    path = str(tmp_path / "file")
    file = file_system._LocalFile(path)
    file.append(b"before")
    disk = FullDisk(file._file, room, error)
    file._file = disk  # type: ignore[assignment]
    with pytest.raises(type(error)):
        file.append(b"1234567")
    assert read_bytes(path) == b"before"
    disk.room = 100
    file.append(b"after")
    file.close()
    assert read_bytes(path) == b"beforeafter"


def test_short_writes_are_continued(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    file = file_system._LocalFile(path)
    file._file = FullDisk(file._file, 100, OSError())  # type: ignore[assignment]
    file.append(b"1234567")
    file.close()
    assert read_bytes(path) == b"1234567"


def test_a_file_that_somebody_removed_is_told(tmp_path: Path) -> None:
    file = open_for_append(str(tmp_path / "file"))
    (tmp_path / "file").unlink()
    with pytest.raises(FileNotFoundError, match="was removed"):
        file.append(b"x")
    file.close()


def test_a_discarded_file_is_gone_even_if_somebody_was_faster(tmp_path: Path) -> None:
    file = open_for_append(str(tmp_path / "file"))
    file.discard()
    assert list(tmp_path.iterdir()) == []
    file = open_for_append(str(tmp_path / "file"))
    (tmp_path / "file").unlink()
    file.discard()
