"""Real fits in which something goes wrong: exceptions, faults of ours, odd names, another's resets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fault_kit import PEAK_AT

import kerasmemwatch
from kerasmemwatch.recording import load

RAISED = ["callback", "train_step", "KeyboardInterrupt", "SystemExit", "MemoryError"]


@pytest.fixture(scope="module")
def done(execute, tmp_path_factory):
    """The script's process after its end, and its folder. It exits by an exception that nobody catches."""
    folder = tmp_path_factory.mktemp("fits")
    process = execute("raising_fits.py", folder, flags=("-W", "error"), TF_CPU_ALLOCATOR_USE_BFC="1")
    process.folder = folder
    return process


@pytest.fixture(scope="module")
def found(done):
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", RAISED)
def test_an_exception_is_the_users_own(found, name):
    result = found[name]
    assert result["same"]
    assert result["linked"] == result["linked without us"] == [None, None]
    assert result["our frames"] == []
    assert found["messages of raising fits"] == []


@pytest.mark.parametrize("name", RAISED)
def test_what_was_sampled_before_an_exception_is_kept(found, done, name):
    result = found[name]
    # A seventh step that an exception left has a row, too; a callback that comes after the watch leaves none.
    before = list(range(1, 8 if name == "train_step" else 7))
    assert result["recording"] == result["disk"] == result["disk after a flush"] == before
    samples = load(done.folder / name).samples  # the process has ended
    assert samples["step"].tolist() == list(range(1, len(before) + 11))
    assert samples["step"][~samples["ended"]].tolist() == before[6:]


@pytest.mark.parametrize("name", RAISED)
def test_the_next_fit_goes_on_counting(found, name):
    result = found[name]
    assert result["next fit"] == result["next fit on disk"] == list(range(1, 18 if name == "train_step" else 17))
    assert not result["active"]


@pytest.mark.parametrize("name", RAISED)
def test_nothing_stays_patched(found, name):
    assert found[name]["restored"] and found[name]["restored list"]


def test_a_batch_outside_of_a_fit_that_raises(found):
    assert found["batch"] == {"same": True, "linked": [None, None], "steps": [1, 2, 3], "messages": []}


def test_an_exception_that_nobody_catches_ends_the_process_as_ever(done):
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert done.stderr.rstrip().endswith("OwnError: nobody catches this")
    assert "Fatal Python error" not in done.stderr and "Exception ignored" not in done.stderr
    assert str(Path(kerasmemwatch.__file__).parent) not in done.stderr
    run = done.folder / "unhandled" / "run"
    [path] = run.iterdir()  # the journal's rows were stored, and it is gone
    assert "tfevents" in path.name
    recording = load(done.folder / "unhandled")
    assert recording.samples["step"].tolist() == list(range(1, 7))
    assert recording.layers[0].path == "head"


def test_a_log_dir_that_is_a_file_is_refused_before_training(found):
    kind, message = found["file"]
    assert kind == "LogDirError"
    assert "Choose another directory, or log_dir=None to write nothing." in message


def test_a_probe_that_raises(found):
    result = found["probe"]
    assert result["raised"] is None
    assert result["unknown"] == 7
    assert result["known"] == [1000 + step for step in range(1, 11)]
    [message] = result["messages"]
    assert "'odd'" in message and "dead" in message


def test_strict_raises_out_of_fit(found):
    result = found["strict probe"]
    assert (result["raised"], len(result["known"]), result["messages"]) == ("dead", 3, [])


def test_a_sink_that_raises(found):
    assert found["sink"]["steps"] == list(range(1, 11))
    [message] = found["sink"]["messages"]
    assert "full" in message


def test_warnings_that_are_errors(found):
    assert found["warnings"]["steps"] == list(range(1, 21))
    assert found["warnings"]["text"] > 100
    assert found["warnings"]["messages"] == []


def test_a_log_dir_that_is_removed_in_the_middle(found):
    assert found["removed"]["steps"] == list(range(1, 11))
    [message] = found["removed"]["messages"]
    assert "was removed" in message


def test_somebody_elses_resets_are_suspected(found):
    assert found["resets"]["counting"] == ["exact"] and found["resets"]["steps"] == 30
    assert [note for note in found["resets"]["notes"] if "reset_memory_stats" in note]
    assert not [note for note in found["does not reset"]["notes"] if "reset_memory_stats" in note]


def test_odd_names(found):
    assert len(found["names"]) >= PEAK_AT
    for name, shown in found["names"].items():
        if name == "..":
            assert shown["run"].startswith("memwatch-")
        else:
            assert shown["run"] == name
            assert name in found["directories"]
        assert shown["tags"] and name in shown["layers"] and shown["messages"] == []
        assert shown["printable"] and shown["widest"] <= 100
        if len(name) < 80 and name.isprintable() and name != "..":
            assert shown["text"].count(name.encode("ascii", "backslashreplace").decode()) >= 2  # the run and the layer
