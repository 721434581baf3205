"""A log dir that is full, gone, a file, or not writable: training goes on and the recording is whole."""

from __future__ import annotations

import json

import pytest

from kerasmemwatch.errors import LogDirError, MemWatchError
from kerasmemwatch.watch.options import Options


@pytest.mark.parametrize("full_from", [0, 200], ids=["from the start", "within a run"])
def test_a_full_disk_loses_nothing(execute, tmp_path, full_from):
    done = execute("full_disk.py", tmp_path, full_from, flags=("-X", "dev", "-W", "error"))
    assert (done.returncode, done.stderr.count("Traceback"), done.stderr.count("Warning")) == (0, 0, 0), done.stderr
    found = json.loads(done.stdout)
    assert found["recorded while full"] == 500
    places = [text.partition(":")[0] for text in found["messages while full"]]
    if full_from:
        assert found["stored while full"] == 500  # the journal has its blocks
        assert found["notes while full"] == []  # and no half of a record is left
        assert places == ["writing"]
    else:
        assert found["event files while full"] == 0  # no empty ones are left
        assert sorted(places) == ["journal", "writing"]
    assert all("too large" in text and "Training goes on" in text for text in found["messages while full"])
    assert found["stored later"] == 500
    assert found["stored in the end"] == 600
    assert found["files in the end"] == 1
    assert found["bytes unaccounted for"] == 0
    assert found["messages later"] == []
    assert [note.partition(":")[0] for note in found["notes"]] == places  # a reader hears of it too


@pytest.mark.parametrize("how", ["removed", "replaced", "locked"])
def test_a_lost_log_dir_costs_one_warning(execute, tmp_path, how):
    done = execute("lost_log_dir.py", tmp_path, how, flags=("-X", "dev", "-W", "error"))
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 600 and found["right"]
    [message] = found["messages"]
    if how == "locked":
        assert message.startswith("log dir:") and "memory only" in message
        assert "not writable" in found["refused"] and "log_dir=None" in found["refused"]
    else:
        assert message.startswith("writing:") and "was removed" in message


@pytest.mark.parametrize("below", ["", "run", "a/b"])
def test_a_log_dir_that_is_a_file_is_refused_at_once(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogDirError, match=r"file' is a file. Choose another directory, or log_dir=None") as caught:
        Options(tmp_path / "file" / below)
    assert isinstance(caught.value, OSError) and isinstance(caught.value, MemWatchError)
    assert (tmp_path / "file").read_text() == ""


def test_a_log_dir_is_not_made_before_it_is_needed(tmp_path):
    Options(tmp_path / "later")
    assert not list(tmp_path.iterdir())
