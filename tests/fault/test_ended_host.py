"""How processes end whose host memory is short, or is not: each one real."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kerasmemwatch.cli import main
from kerasmemwatch.recording import load
from kerasmemwatch.storage.files.signal_mark import MARK_NAME
from kerasmemwatch.units import MIB

WARNING = "host memory: "


@pytest.fixture(scope="module")
def end(execute_forked: Any) -> Any:
    def run(folder: Path, ending: str, share: float) -> Any:
        cgroup = folder / "cgroup"
        cgroup.mkdir()
        return execute_forked("ended_host.py", folder / "logs", ending, cgroup, share)

    return run


@pytest.fixture
def cgroup(tmp_path: Path) -> Iterator[Path]:
    """A cgroup of 1 GiB, where this process may make one."""
    top = Path("/sys/fs/cgroup")
    top = top / "memory" if (top / "memory").is_dir() else top
    made = top / f"kerasmemwatch-{tmp_path.parent.name}-{tmp_path.name}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        names = ("memory.limit_in_bytes", "memory.max")
        file = next((made / name for name in names if (made / name).exists()), None)
        if file is None:
            pytest.skip("no memory limit can be set here")
        file.write_text(str(1024 * MIB))
        yield made
    finally:
        made.rmdir()


def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["show", str(folder)]) == 0
    return capsys.readouterr().out


@pytest.mark.long
def test_a_process_that_the_kernel_kills_for_memory(
    execute: Any, cgroup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = execute("ended_host.py", tmp_path / "logs", "cgroup", cgroup)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr.count(WARNING) == 1 and "of the limit of 1.0 GiB (cgroup v" in done.stderr
    said = " ".join(shown(tmp_path / "logs", capsys).split())
    # Of the file pages in RSS, the kernel takes back some before it kills.
    where = r"at step (\d+), host at (?:its limit|\d+\.\d% of its limit)"
    found = re.match(rf"Ended abruptly {where}: probably killed for memory\. Host memory: ", said)
    assert found and int(found[1]) == load(tmp_path / "logs").samples["step"][-1]
    assert "the limit is 1.0 GiB (cgroup v" in said and " What helps: " in said
    [size] = re.findall(r"Had grown since step \d+: host RSS \+([\d.]+) MiB", said)
    assert 200 < float(size) < 1024


@pytest.mark.long
@pytest.mark.parametrize(
    ("ending", "share", "status", "said"),
    [
        # Nobody enforces this limit: the test does what the kernel would.
        (
            "SIGKILL",
            0.98,
            -9,
            r"Ended abruptly at step 28, host at (9\d\.\d% of )?its limit: probably killed for memory.",
        ),
        (
            "SIGKILL",
            0.40,
            -9,
            r"Ended abruptly at step 28, host at (3|4)\d\.\d% of its limit: .* plenty of memory left",
        ),
        ("SIGTERM", 0.98, -15, r"Ended by SIGTERM at step 28, host at (9\d\.\d% of )?its limit\. "),
        ("SIGINT", 0.98, 1, None),
        ("raises", 0.98, 1, None),
        ("ends", 0.98, 0, None),
    ],
    ids=["for memory", "with memory left", "SIGTERM", "Ctrl-C", "exception", "by itself"],
)
def test_ends_are_told_apart(
    end: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ending: str,
    share: float,
    status: int,
    said: str | None,
) -> None:
    done = end(tmp_path, ending, share)
    assert done.returncode in ((1, -2) if ending == "SIGINT" else (status,)), done.stderr
    assert done.stderr.count(WARNING) == (share > 0.9)
    text = shown(tmp_path / "logs", capsys)
    report = load(tmp_path / "logs").report
    if said is None:
        assert text.startswith("Memory of run run\n") and report.endings == ()
        assert not list((tmp_path / "logs").rglob(MARK_NAME))
    else:
        assert re.match(said, " ".join(text.split()))
        assert report.to_dict()["endings"][0]["step"] == 28
        report.to_html(tmp_path / "page.html")
        assert '<section id="ending"' in (tmp_path / "page.html").read_text()
    assert any(note.startswith(WARNING) for note in report.notes) == (share > 0.9)
    traceback = [path.read_text() for path in (tmp_path / "logs").rglob(MARK_NAME)]
    assert any("in end\n" in text for text in traceback) == (ending == "SIGTERM")


@pytest.mark.long
def test_a_run_that_still_runs_has_not_ended(end: Any, tmp_path: Path) -> None:
    done = end(tmp_path, "running", 0.98)
    assert done.returncode == 0 and "so far (still running)" in done.stdout and "Ended" not in done.stdout
    assert "still running" not in str(load(tmp_path / "logs").report)
