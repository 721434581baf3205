"""Names of runs that make no directory, or make an odd one."""

from __future__ import annotations

import pytest
from fault_kit import end_fit, toy_recorder, train

from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError
from kerasmemwatch.recording import load, runs
from kerasmemwatch.watch.options import Options

GOOD = [
    "a",
    " ",
    "-",
    "...",
    "<img src=x onerror=alert(1)>",
    "[bold]x",
    "n" * 200,
    "naïve-🦒",
    "%s{0}$HOME",
    "a\nb",
    "\x1b[31m",
]
BAD = ["", ".", "..", "a/b", "/", "\\", "../x", "a\0b", "n" * 300, "🦒" * 200, "\ud800"]


@pytest.mark.every
@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_a_name_that_is_no_directory_is_refused_at_once(tmp_path, name):
    with pytest.raises(InvalidArgumentError, match="Expected run_name"):
        Options(tmp_path, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [1, b"run", ["run"], 1.5])
def test_a_name_of_a_wrong_type_is_refused_at_once(tmp_path, name):
    with pytest.raises(InvalidTypeError, match="Expected run_name to be a string"):
        Options(tmp_path, name)


@pytest.mark.every
@pytest.mark.parametrize("name", GOOD, ids=ascii)
def test_an_odd_name_is_the_directorys(tmp_path, name):
    Options(tmp_path, name)
    for _ in range(2):  # the second run takes a number
        recorder = toy_recorder(tmp_path / "logs", name, about={"tags": (name, "\ud800", "a\0b")})
        train(recorder, 3)
        end_fit(recorder)
        recorder.close()
    assert sorted(runs(tmp_path / "logs")) == sorted([name, f"{name}-2"])
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {name, f"{name}-2"}
    for run in (name, f"{name}-2"):
        recording = load(tmp_path / "logs", run)
        assert recording.run.name == run
        assert recording.run.tags == (name, "\ud800", "a\0b")
        text = recording.report.text(everything=True)
        assert text.replace("\n", "").isprintable()
        text.encode()


def test_the_longest_name_leaves_room_for_a_number(tmp_path):
    longest = max(size for size in range(200, 256) if _accepted(tmp_path, "n" * size))
    for _ in range(12):
        recorder = toy_recorder(tmp_path, "n" * longest)
        train(recorder, 1)
        end_fit(recorder)
        recorder.close()
        assert recorder.faults.notes == []
    assert len(runs(tmp_path)) == 12


def _accepted(log_dir, name) -> bool:
    try:
        Options(log_dir, name)
    except InvalidArgumentError:
        return False
    return True
