"""Runs that did not end properly: what is found, and in which words. And the warning beforehand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeSink, NoFlusher, device_probe, recorder_on_disk, train
from forks import ROOT
from runs import MIB, samples

from kerasmemwatch.analysis.ending_words import ending_lines, is_running
from kerasmemwatch.analysis.endings import find_ending
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.ending import KILLED, RUNNING, Ending
from kerasmemwatch.records.run import DeviceInfo, RunInfo, WorkerInfo
from kerasmemwatch.records.samples import Column
from kerasmemwatch.sampling.host_headroom import HostHeadroom
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.storage import run_writer
from kerasmemwatch.storage.files import signal_mark
from kerasmemwatch.storage.files.signal_mark import MARK_NAME, SignalMarks
from kerasmemwatch.storage.run_reader import read_run
from kerasmemwatch.storage.run_store import open_store

LIMIT = 1000 * MIB
RSS = (Column("host_rss_bytes"),)
RUN = RunInfo("run", 0.0, host={"limit_bytes": LIMIT, "limit_source": "cgroup v2"}, ending=KILLED)


def found(rss: Any, run: RunInfo = RUN, **options: Any) -> Ending:
    ending = find_ending(run, samples(len(rss), rss=np.asarray(rss, float) * MIB, **options))
    assert ending is not None
    return ending


@pytest.mark.parametrize(
    ("rss", "epochs", "near"),
    [
        ([500] * 20, [0] * 20, False),
        ([500] * 19 + [971], [0] * 20, True),  # less than 3 % is left
        ([100, 400] + [500] * 18, [0] * 20, False),  # the first rows are warm-up
        ([700] * 10 + [760] * 5 + [850] * 5, [0] * 10 + [1] * 5 + [2] * 5, True),  # of 150, epochs added 60 and 90
        ([700] * 10 + [850] * 5, [0] * 10 + [1] * 5, True),
        ([700] * 10 + [750] * 5, [0] * 10 + [1] * 5, False),
        ([100 * row for row in range(1, 10)], [0] * 9, True),  # the next row's 100 would be the last
        ([np.nan] * 5 + [980] * 5 + [np.nan], [0] * 11, True),
    ],
)
def test_how_near_the_limit_was(rss: list[float], epochs: list[float], near: bool) -> None:
    assert found(rss, epochs=epochs).was_near is near


def test_what_had_grown_is_told_after_the_warm_up() -> None:
    device = DeviceInfo("CPU:0")
    ending = found(np.linspace(100, 900, 101), replace(RUN, devices=(device,)))
    assert ending.step == 101 and ending.since_step == 11 and ending.share == 0.9
    assert ending.grown == (("host RSS", 720 * MIB),)  # what the device holds goes up and down by 20 MiB
    _, host, grown, *_ = ending_lines([ending])
    assert host == "  Host memory: 900.0 MiB resident after that step; the limit is 1000.0 MiB (cgroup v2)."
    assert grown == "  Had grown since step 11: host RSS +720.0 MiB."
    assert ending_lines([replace(ending, grown=())])[2] == "  Nothing had grown since step 11."


def test_what_is_unknown_is_not_guessed() -> None:
    assert found([500] * 20, RunInfo("run", 0.0, ending=KILLED)).was_near is None
    nothing = find_ending(RUN, samples(20, rss=[np.nan] * 20))
    assert nothing is not None and nothing.host_bytes is None and nothing.grown == ()
    assert ending_lines([nothing]) == (
        "Ended abruptly at step 20: killed or crashed; how full the host was is unknown.",
    )


def test_a_run_that_ended_properly_has_no_ending() -> None:
    assert find_ending(replace(RUN, ending=""), samples(20)) is None
    assert find_ending(RUN, samples(0)) is None


@pytest.mark.parametrize(
    ("ending", "headline"),
    [
        (Ending(KILLED, 1234, "", 985, 1000, "", True), "probably killed for memory."),
        (Ending(KILLED, 1234, "", 985, 1000, "", False), "killed or crashed, perhaps for memory."),
        (Ending(KILLED, 1234, "", 500, 1000, "", False), "killed or crashed, with plenty of memory left."),
    ],
)
def test_each_ending_has_its_headline(ending: Ending, headline: str) -> None:
    share = "98.5%" if ending.host_bytes == 985 else "50.0%"
    said = f"ended abruptly at step 1,234, host at {share} of its limit: {headline}"
    assert ending_lines([ending])[0] == said.capitalize()
    assert ending_lines([replace(ending, worker="worker:1")])[0] == f"worker:1 {said}"


def test_rss_above_the_limit_is_not_a_share() -> None:
    headline, host, *_ = ending_lines([Ending(KILLED, 5, "", 1300, 1000, "", True)])
    assert ", host at its limit: probably" in headline
    assert host == (
        "  Host memory: 1.3 KiB resident after that step, with pages of files that the limit need not count; "
        "the limit is 1000 B."
    )


def test_who_still_runs_has_no_line() -> None:
    running, killed = Ending(RUNNING, 5, "worker:0"), Ending(KILLED, 3, "worker:1")
    assert ending_lines([running]) == () and is_running([running, killed]) and not is_running([killed])
    assert len(ending_lines([running, killed])) == 1


def test_a_worker_is_named() -> None:
    worker = WorkerInfo("c", "worker", 1, 2)
    assert found([500] * 5, replace(RUN, worker=worker)).worker == "worker:1"


# -- on disk -----------------------------------------------------------------------------------------------------


def test_only_the_files_of_a_run_under_way_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "FlushThread", NoFlusher)
    target = recorder_on_disk(tmp_path)
    target.begin_stage("train")
    target.batch_begin()
    target.batch_end(0)
    directory = str(tmp_path / "run")
    assert read_run(directory).ending == RUNNING
    target.drop()  # as in a forked child: the lock is released, the files stay
    assert read_run(directory).ending == KILLED
    (tmp_path / "run" / MARK_NAME).write_text("Stack")
    assert read_run(directory).ending == "SIGTERM"
    assert read_run(directory, rows=False).ending == ""


def test_a_run_that_could_not_be_stored_ended_properly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "FlushThread", NoFlusher)

    sink = FakeSink()
    sink.full = OSError("disk full")
    target = Recorder(
        [device_probe()], lambda created, resume: open_store(str(tmp_path), "run", created=created, sinks=[sink])
    )
    train(target, 3)
    assert read_run(str(tmp_path / "run")).ending == RUNNING
    target.close()
    stored = read_run(str(tmp_path / "run"))
    assert stored.fresh is not None and len(stored.fresh[1]) == 3 and stored.ending == ""


# -- SIGTERM's mark ----------------------------------------------------------------------------------------------


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> SignalMarks:
    """Marks whose signal is never registered."""
    monkeypatch.setattr(signal_mark.faulthandler, "register", lambda *_, **__: None)
    monkeypatch.setattr(signal_mark, "_ends_the_process", lambda: True)
    return SignalMarks()


def test_the_newest_run_gets_the_mark(marks: SignalMarks, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        marks.begin(tmp_path / name)
    os.write(marks._descriptor, b"x")  # type: ignore[arg-type]
    assert (tmp_path / "b" / MARK_NAME).read_text() == "x"
    marks.end(tmp_path / "b")
    assert not list((tmp_path / "b").iterdir())
    os.write(marks._descriptor, b"y")  # type: ignore[arg-type]
    assert (tmp_path / "a" / MARK_NAME).read_text() == "y"
    marks.forget()
    os.write(marks._descriptor, b"z")  # type: ignore[arg-type]
    assert (tmp_path / "a" / MARK_NAME).read_text() == "y"


def test_a_descriptor_that_is_somebody_elses_by_now_is_left_alone(marks: SignalMarks, tmp_path: Path) -> None:
    marks.begin(tmp_path)
    number = marks._descriptor
    assert number is not None
    with open(tmp_path / "theirs", "w") as file:
        os.dup2(file.fileno(), number)
    marks.end(tmp_path)
    marks.begin(tmp_path)
    os.write(number, b"theirs")
    assert (tmp_path / "theirs").read_text() == "theirs"
    os.close(number)
    marks.forget()


def test_a_handler_of_the_users_stays(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        marks = SignalMarks()
        marks.begin(tmp_path)
        assert marks._descriptor is None and not list(tmp_path.iterdir())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_mark_of_an_earlier_process_is_not_this_ones(
    marks: SignalMarks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_mark, "_ends_the_process", lambda: False)
    (tmp_path / MARK_NAME).write_text("Stack")
    marks.begin(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_forked_child_leaves_no_mark(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from kerasmemwatch.storage.files.signal_mark import MARKS
MARKS.begin(Path(sys.argv[1]))
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == signal.SIGTERM
    print(*(path.stat().st_size for path in Path(sys.argv[1]).iterdir()))
else:
    os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("0\n", "")


# -- the warning beforehand ----------------------------------------------------------------------------------------


def test_it_warns_once_near_the_limit() -> None:
    faults = Faults()
    headroom = HostHeadroom(LIMIT, "cgroup v2", faults)

    def ended(rss: float) -> bool:
        return headroom.epoch_ended(RSS, np.array([[rss * MIB]]))

    assert [ended(rss) for rss in (500, 600, 700, 810, 830, 990)] == [False, False, False, True, False, False]
    assert faults.notes == [
        "host memory: 81.0% of the limit of 1000.0 MiB (cgroup v2) is in use, and the last epoch added 110.0 MiB. "
        "The recording is stored. If the process is killed, `kerasmemwatch show` says what had grown."
    ]


@pytest.mark.parametrize("limit", [None, 0, float("nan"), "unknown"])
def test_without_a_limit_it_never_warns(limit: Any) -> None:
    faults = Faults()
    HostHeadroom(limit, "", faults).epoch_ended(RSS, np.array([[1e18]]))
    assert faults.notes == []
