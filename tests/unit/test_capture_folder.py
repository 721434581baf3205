"""Folders of captures: removed after use, and what a killed process left is removed by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kerasmemwatch.attribution.events import capture_folder
from kerasmemwatch.attribution.events.capture_folder import CaptureFolder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs flock")

ROOT = Path(__file__).parents[2]
OTHER = """
import sys, tempfile
from kerasmemwatch.attribution.events import capture_folder
tempfile.tempdir = capture_folder._MEMORY_DISK = sys.argv[1]
folder = capture_folder.CaptureFolder()
open(folder.path + "/part", "w").close()
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A memory disk and a temporary directory of the test's own; this process has not swept yet."""
    monkeypatch.setattr(capture_folder, "_MEMORY_DISK", str(tmp_path))
    monkeypatch.setattr(capture_folder, "_swept", set())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def other(places: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that captures, and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(places)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_a_folder_is_removed_and_may_be_so_twice(places: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    folder = CaptureFolder()
    Path(folder.path, "part").touch()
    folder.remove()
    folder.remove()
    assert list(places.iterdir()) == []
    assert len(os.listdir("/dev/fd")) == before


def test_the_next_process_removes_what_a_killed_one_left(other: tuple[subprocess.Popen[str], Path]) -> None:
    process, left = other
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (left / "part").exists()
    folder = CaptureFolder()
    assert not left.exists() and os.path.isdir(folder.path)
    folder.remove()


def test_a_folder_that_is_in_use_stays(other: tuple[subprocess.Popen[str], Path]) -> None:
    _, used = other
    own = CaptureFolder()
    capture_folder._swept.clear()
    CaptureFolder().remove()
    assert (used / "part").exists() and os.path.isdir(own.path)
    own.remove()


def test_what_is_not_ours_stays(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "kerasmemwatch-logs").mkdir()
    (places / "kerasmemwatch-capture-file").touch()
    kept = places / "kept"
    kept.mkdir()
    (places / "kerasmemwatch-capture-link").symlink_to(kept)
    before = sorted(places.iterdir())
    CaptureFolder().remove()
    assert sorted(places.iterdir()) == before
    left = places / "kerasmemwatch-capture-1-x"
    left.mkdir()
    capture_folder._swept.clear()
    with monkeypatch.context() as another_user:
        another_user.setattr(os, "getuid", lambda: os.geteuid() + 1)
        CaptureFolder().remove()
    assert left.exists()
    capture_folder._swept.clear()
    CaptureFolder().remove()
    assert not left.exists()


def test_a_folder_that_is_swept_before_it_is_locked_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, taken = capture_folder.DirectoryLock, list[str]()

    def swept(path: str) -> capture_folder.DirectoryLock:
        if not taken:
            taken.append(path)
            os.rmdir(path)
        return lock(path)

    capture_folder._swept.add(os.getpid())
    monkeypatch.setattr(capture_folder, "DirectoryLock", swept)
    folder = CaptureFolder()
    assert taken and folder.path not in taken and os.path.isdir(folder.path)
    folder.remove()
