"""Two runs, and by how much they differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeClock, write_run
from runs import (
    HOSTILE,
    MIB,
    NAN,
    empty_report,
    lines,
    partial_report,
    run_info,
    samples,
    small_report,
    traced_steps,
    two_device_steps,
)
from timelines import step, timeline

import kerasmemwatch
from kerasmemwatch.cli import main
from kerasmemwatch.comparison import compare
from kerasmemwatch.errors import InvalidTypeError, RecordingNotFoundError
from kerasmemwatch.recording import Recording
from kerasmemwatch.reports.report import Report, make_report


def grown(by: int, name: str = "b") -> Report:
    """As ``small_report``, with so many bytes more in eager tensors, and without the head's bias."""
    changed = [line for line in lines(by) if "BiasAdd" not in line[6]]
    return make_report(run_info(name), samples(60, rss=np.full(60, 700.0 * MIB)), (), [step(timeline(changed, 12), 2)])


def test_differences_are_the_second_less_the_first() -> None:
    a, b = small_report("a"), grown(2**20)
    found = compare(a, b)
    assert found.names == ("a", "b")
    assert found.peak_bytes == (b.peak.bytes or 0) - (a.peak.bytes or 0)
    assert found.requested_bytes == (b.peak.requested_bytes or 0) - (a.peak.requested_bytes or 0) != 0
    assert found.host_rss_bytes == 700 * MIB - int(a.samples["host_rss_bytes"].max())
    assert sum(found.by_category.values()) == found.requested_bytes
    assert sum(row.difference_bytes for row in found.by_layer) == found.requested_bytes
    first = found.by_layer[0]
    assert (first.path, first.difference_bytes) == ("eager tensors", 2**20 - 4096)
    assert first.by_category == {"other": 2**20 - 4096}


def test_a_layer_of_one_run_only_held_nothing_in_the_other() -> None:
    without = [line for line in lines(4096) if line[3] != "head"]
    report = make_report(run_info("b"), samples(60), (), [step(timeline(without, 12), 10)])
    [row] = [row for row in compare(small_report("a"), report).by_layer if row.path == "head"]
    assert row.b_bytes == 0 and row.difference_bytes == -row.a_bytes < 0
    [row] = [row for row in compare(report, small_report("a")).by_layer if row.path == "head"]
    assert row.a_bytes == 0 and row.difference_bytes == row.b_bytes > 0


def test_a_run_compared_with_itself_is_the_same() -> None:
    found = compare(small_report(), small_report())
    assert (found.peak_bytes, found.requested_bytes, found.host_rss_bytes) == (0, 0, 0)
    assert not any(found.by_category.values()) and not any(row.difference_bytes for row in found.by_layer)
    assert "Each layer holds the same." in str(found) and str(found).count("the same") >= 3


def test_what_is_unknown_stays_unknown() -> None:
    blank = make_report(run_info("blank"), samples(5, peak=np.full(5, NAN), rss=np.full(5, NAN)))
    for found in (compare(small_report(), blank), compare(blank, small_report()), compare(blank, empty_report())):
        assert found.peak_bytes is None and found.requested_bytes is None and found.host_rss_bytes is None
        assert found.by_category == {} and found.by_layer == ()
        assert "no step was traced" in found.notes[0] and "unknown" in str(found)


def test_what_makes_them_hard_to_compare_is_said() -> None:
    eager = [replace(one, mode="eager") for one in traced_steps(with_inference=False)]
    found = compare(small_report("a"), small_report("b", steps=eager))
    assert found.notes == ("The traced peaks are of different kinds: train in graph mode, and train in eager mode.",)
    other = make_report(run_info("b", devices=2), samples(5, devices=2), (), traced_steps())
    assert compare(small_report("a"), other).notes == ("The devices differ: GPU:0; and GPU:0, GPU:1.",)


def test_of_partial_counts_the_peaks_are_called_partial() -> None:
    assert "device peak (partial)  " in str(compare(small_report(), partial_report()))
    assert "device peak  " in str(compare(small_report(), small_report()))


def test_takes_recordings_reports_and_paths(tmp_path: Path) -> None:
    for batches, name in enumerate(("zebra", "ape"), 1):
        write_run(tmp_path / "logs", name, 20 * batches, clock=FakeClock(1000.0 * batches))
    recording = kerasmemwatch.load(tmp_path / "logs", "zebra")
    assert isinstance(recording, Recording)
    found = kerasmemwatch.compare(recording, tmp_path / "logs")
    assert found.names == ("zebra", "ape") and found.peak_bytes == 20
    assert kerasmemwatch.compare(recording.report, str(tmp_path / "logs" / "ape")).peak_bytes == 20
    assert kerasmemwatch.compare(str(tmp_path / "logs" / "ape"), recording).peak_bytes == -20


@pytest.mark.parametrize("wrong", [None, 3, b"logs", ["logs"]])
def test_what_it_cannot_take_is_our_error(wrong: Any) -> None:
    with pytest.raises(InvalidTypeError, match="Expected b to be a Recording, a Report or the path"):
        compare(small_report(), wrong)
    with pytest.raises(InvalidTypeError, match="Expected a to be"):
        compare(wrong, small_report())


def test_a_path_without_a_recording_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingNotFoundError):
        compare(small_report(), tmp_path)


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    assert compare(small_report("a"), small_report("a")).names == ("1: a", "2: a")
    for place in ("x", "y"):
        write_run(tmp_path / place, "same", 5)
    paths = [str(tmp_path / place) for place in ("x", "y")]
    assert compare(*paths).names == (f"{paths[0]}: same", f"{paths[1]}: same")


def test_the_text_has_every_figure() -> None:
    text = str(compare(small_report("a"), grown(2**20)))
    assert text.startswith("b compared with a\n")
    for words in (
        "device peak",
        "requested at the traced peak",
        "host RSS at most",
        "eager tensors",
        "+1020.0 KiB",
        "->",
    ):
        assert words in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_the_text_of_many_layers_is_short() -> None:
    extra = [(1000 + index, -1, 12, f"layer_{index}", "weights", "between", "") for index in range(30)]
    report = make_report(run_info("b"), samples(5), (), [step(timeline([*lines(), *extra], 12), 2)])
    assert "and 19 more" in str(compare(small_report("a"), report))


@pytest.mark.parametrize("name", HOSTILE)
def test_the_text_has_no_control_characters(name: str) -> None:
    report = make_report(
        run_info(name), samples(5), (), [step(timeline([(9, -1, 1, name, "weights", "between", "")], 1))]
    )
    assert all(line.isprintable() for line in str(compare(report, small_report())).split("\n"))


def test_as_a_dict_it_is_json() -> None:
    found = compare(small_report("a"), grown(2**20))
    raw = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert raw["names"] == ["a", "b"] and raw["peak_bytes"] == found.peak_bytes
    assert raw["by_layer"][0]["difference_bytes"] == found.by_layer[0].difference_bytes


def test_it_can_be_drawn() -> None:
    assert len(compare(small_report("a"), grown(1)).plot(theme="dark").data) > 2


def test_the_command_line_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for batches, name in enumerate(("zebra", "ape"), 1):
        write_run(tmp_path, name, 20 * batches)
    places = [str(tmp_path / "zebra"), str(tmp_path / "ape")]
    assert main(["compare", *places]) == 0
    assert capsys.readouterr().out.startswith("ape compared with zebra\n")
    assert main(["compare", *places, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["peak_bytes"] == 20
    assert main(["compare", places[0], str(tmp_path / "none")]) == 2
    assert "no directory" in capsys.readouterr().err


def test_peaks_of_different_devices_are_told() -> None:
    report = small_report(steps=two_device_steps())
    note = "The traced peaks are of different devices: GPU:0, and CPU:0."
    assert note in compare(report, report.on_device("CPU:0")).notes
    assert note not in compare(report, report).notes
