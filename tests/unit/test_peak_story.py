"""The first lines never show a peak that the table beneath does not explain without saying so: text, tab and page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import HOSTILE, MIB, run_info, samples
from timelines import Line, step, timeline

from kerasmemwatch.analysis.key_figures import headline
from kerasmemwatch.analysis.peak_place import elsewhere, is_untraced, is_very_peak, numbered, traced_words
from kerasmemwatch.analysis.peak_story import peak_place, peak_story, steady_bytes
from kerasmemwatch.comparison import compare
from kerasmemwatch.recording import Recording
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.reports.html.page import html_page
from kerasmemwatch.reports.report import Report, make_report
from kerasmemwatch.reports.text.report_text import plain_text
from kerasmemwatch.tensorboard_plugin.views import VIEWS

WORKSPACE = round(62.8 * MIB)
FIRST: list[Line] = [
    (10 * MIB, -1, 3, "dense", "weights", "between", ""),
    (WORKSPACE, 0, 2, "autotuning", "temporaries", "between", ""),
    (60 * MIB, 1, 2, "dense", "temporaries", "forward", "MatMul"),
]
STEADY: list[Line] = [FIRST[0], (10 * MIB, 1, 2, "dense", "activations", "forward", "MatMul")]
GAP: list[Line] = [FIRST[0], (50 * MIB, 1, 2, "callback Histograms", "temporaries", "between", "Sum")]


def traced(lines: Sequence[Line], number: int, in_use: float, **changed: Any) -> TracedStep:
    owners = [line[3] for line in lines]
    named = {"autotuning", *(owner for owner in owners if owner.startswith("callback"))}
    made = timeline(lines, 3, device="GPU:0")
    classes = tuple("" if owner in named else "Dense" for owner in made.owners)
    in_use_bytes = np.array([10, in_use, 10]) * MIB
    return step(replace(made, classes=classes, in_use_bytes=in_use_bytes.astype(np.int64)), number, **changed)


def recorded(
    *steps: TracedStep, within: dict[int, float] | None = None, between: dict[int, float] | None = None, **run: Any
) -> Report:
    """Twelve steps that peak at 21.9 MiB, but for some."""
    peaks = [(within or {}).get(number, 21.9) * MIB for number in range(1, 13)]
    rows = samples(12, peak=np.round(peaks))
    gaps = np.array([[(between or {}).get(number, 12.0) * MIB] for number in range(1, 13)])
    rows = type(rows)({**{name: rows[name] for name in rows}, "device_between_peak_bytes": gaps})
    return make_report(replace(run_info(), **run), rows, (), steps)


def told(report: Report) -> list[str]:
    """The peak's words in text, tile and page."""
    text = " ".join(plain_text(report, width=160, blocks=True).split())
    tile = headline(report)[0]
    return [text, f"{tile.value} {tile.detail}", html_page(report)]


def test_step_one_is_explained_by_its_autotuning() -> None:
    report = recorded(traced(FIRST, 1, 142), traced(STEADY, 10, 21.9), within={1: 142})
    words = ": 62.8 MiB of it autotuning workspace; a steady step peaks at 21.9 MiB"
    assert peak_story(report) == words
    assert all(words in found for found in told(report))
    assert "142.0 MiB GPU:0, step 1 (train, epoch 1): 62.8 MiB of it" in told(report)[0]
    assert headline(report)[0].detail.startswith("GPU:0 at step 1, epoch 1")
    assert is_very_peak(report)
    lower = "In training step 10, dense held most of all layers: 20.0 MiB of 20.0 MiB requested."
    assert elsewhere(report) == lower and lower in told(report)[0] and lower in told(report)[2]
    assert traced_words(report) == "training step 1"


def test_the_table_is_of_the_step_with_the_peak_also_where_another_requested_more() -> None:
    more = [*STEADY, (200 * MIB, 1, 2, "dense", "temporaries", "forward", "MatMul")]
    report = recorded(traced(FIRST, 1, 142), traced(more, 10, 21.9), within={1: 142})
    assert report.traced is not None and report.traced.step == 1
    assert report.peak.requested_bytes == sum(line[0] for line in FIRST)


def test_a_step_like_the_peak_is_shown_rather_than_a_gap_that_requested_more() -> None:
    more = [*GAP, (90 * MIB, 1, 2, "callback Histograms", "temporaries", "between", "Sum")]
    report = recorded(traced(STEADY, 10, 21.9), traced(more, 8, 20, after=7, mode=""), within={7: 22.5})
    assert report.traced is not None and (report.traced.step, report.traced.after) == (10, None)
    assert report.peak.phase == "forward"


def test_the_phase_of_a_gap_is_not_the_phase_of_a_step() -> None:
    report = recorded(traced(GAP, 8, 64, after=7, mode=""), within={1: 142})
    assert report.traced is not None and report.traced.after == 7
    assert report.peak.phase is None
    assert "which was not traced. Shown is the gap between step 7 and 8." in elsewhere(report)


def test_a_first_step_that_was_not_traced_is_called_so() -> None:
    report = recorded(traced(STEADY, 10, 21.9), within={1: 142})
    assert is_untraced(report)
    assert peak_story(report) == ", not traced; a steady step peaks at 21.9 MiB"
    assert elsewhere(report) == (
        "The run's peak of 142.0 MiB was in training step 1, which was not traced. Shown is training step 10."
    )
    assert all("not traced; a steady step peaks at 21.9 MiB" in found for found in told(report))


def test_a_step_like_a_traced_one_needs_no_words() -> None:
    report = recorded(traced(STEADY, 10, 21.9), within={7: 22.5})
    assert peak_story(report) == "" and elsewhere(report) == "" and not is_untraced(report)
    assert not is_very_peak(report)
    assert headline(report)[0].detail == "GPU:0 at step 7, epoch 1; traced step 10 was highest during forward"


def test_a_gap_is_explained_by_the_callback_that_fills_it() -> None:
    report = recorded(traced(STEADY, 10, 21.9), traced(GAP, 8, 64, after=7, mode=""), within={1: 30}, between={8: 64.0})
    assert peak_place(report) == "GPU:0, between step 7 and 8 (train, epoch 1)"
    assert peak_place(report, brief=True) == "GPU:0 between step 7 and 8, epoch 1"
    assert peak_story(report) == ": 50.0 MiB of it callback Histograms; a steady step peaks at 21.9 MiB"
    assert traced_words(report) == "the gap between step 7 and 8"
    assert report.traced_steps == (10,)
    text = told(report)[0]
    assert "At the traced peak (the gap between step 7 and 8): 60.0 MiB requested" in text
    assert "What each layer holds itself in the gap between step 7 and 8" in text
    assert elsewhere(report).startswith("In training step 10, dense held most")
    assert elsewhere(recorded(traced(STEADY, 10, 21.9), within={10: 21.95})) == ""


def test_a_gap_like_a_traced_one_is_as_high() -> None:
    report = recorded(traced(STEADY, 10, 21.9), traced(GAP, 9, 64, after=8, mode=""), between={5: 65.0, 9: 64.0})
    assert peak_place(report) == "GPU:0, step 5 (train, epoch 1), between two batches"
    assert peak_story(report) == (
        ", as high as the gap between step 8 and 9: 50.0 MiB of it callback Histograms; a steady step peaks at 21.9 MiB"
    )
    assert elsewhere(report).endswith("Shown is the gap between step 8 and 9, which was as high.")


def test_a_gap_that_was_not_traced_is_called_so() -> None:
    report = recorded(traced(STEADY, 10, 21.9), between={5: 65.0})
    assert peak_story(report) == ", not traced; a steady step peaks at 21.9 MiB"
    assert headline(report)[0].detail.startswith("GPU:0 at step 5, epoch 1, between two batches, not traced")


def test_a_step_of_the_number_of_a_gap_is_another_moment() -> None:
    as_step, as_gap = traced(STEADY, 8, 21.9), traced(GAP, 8, 64, after=7, mode="")
    assert is_very_peak(recorded(as_gap, as_step, between={8: 64.0}))
    assert not is_very_peak(recorded(as_step, between={8: 64.0}))
    assert not is_very_peak(recorded(traced(GAP, 8, 64, after=8, mode=""), between={8: 64.0}))


def test_a_step_that_did_not_end_says_only_that() -> None:
    report = recorded(traced(STEADY, 10, 21.9), within={12: 90})
    rows = report.samples
    ended = np.array([1.0] * 11 + [0.0])
    report = make_report(
        report.run, type(rows)({**{name: rows[name] for name in rows}, "ended": ended}), (), report.steps
    )
    assert peak_place(report).endswith(", which did not end")
    assert "not traced" not in peak_story(report)


@pytest.mark.parametrize("configuration", [{"reset_peak": False}, {"sample_every": 4}])
def test_without_windows_no_step_is_called_steady(configuration: dict[str, Any]) -> None:
    assert steady_bytes(recorded(within={1: 142}, configuration=configuration)) is None


def test_without_a_trace_nothing_is_said_of_it() -> None:
    assert peak_story(recorded(within={1: 142})) == "; a steady step peaks at 21.9 MiB"
    assert peak_story(recorded()) == ""


def test_what_numbers_a_gap() -> None:
    gap = traced(GAP, 8, 64, after=7, mode="")
    assert (gap.number, numbered(gap), repr(gap)) == (
        7.5,
        "the gap between step 7 and 8",
        "<TracedStep 7.5: train, gap, 2 allocations>",
    )
    assert numbered(traced(GAP, 1, 64, after=0)) == "the gap before step 1"
    assert numbered(traced(GAP, 8, 64, after=8)) == "the gap after step 8"


def test_the_tab_lists_a_gap_beside_the_step_of_its_number() -> None:
    steps = (traced(STEADY, 8, 21.9), traced(GAP, 8, 64, after=7, mode="", reason="it was <high>"))
    report = recorded(*steps, between={8: 64.0})
    made = {"run": Recording(report.run, report.samples, (), steps)}
    choice = next(one for one in VIEWS["timeline"](made, {})["sections"] if one["kind"] == "choice")
    assert choice["options"] == [
        [8, "step 8, train, graph: chosen by a test"],
        [7.5, "the gap between step 7 and 8, train: it was <high>"],
    ]
    assert choice["value"] == 7.5
    [figure] = [
        one for one in VIEWS["timeline"](made, {"step": "8"})["sections"] if one["title"] == "Alive within the step"
    ]
    assert "within step 8 (train, graph)" in figure["text"]
    assert "within the gap between step 7 and 8 (train)" in report.plot("step", step=7.5).layout.meta["summary"]


def test_a_comparison_says_that_one_of_two_is_a_gap() -> None:
    gap = recorded(traced(GAP, 8, 64, after=7, mode=""), between={8: 64.0})
    stepped = recorded(traced(STEADY, 10, 21.9))
    made = [Recording(report.run, report.samples, (), report.steps) for report in (gap, stepped)]
    assert "of different kinds: a gap between two steps, and train in graph mode." in " ".join(
        str(compare(*made)).split()
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_a_callbacks_name_is_the_users(name: str) -> None:
    owner = f"callback {name}"
    lines = [GAP[0], (50 * MIB, 1, 2, owner, *GAP[1][4:])]
    report = recorded(traced(lines, 8, 64, after=7, mode=""), between={8: 64.0})
    page = html_page(report)
    assert "<img src=x" not in page and "<svg onload" not in page and "<script>alert" not in page
    assert "\x1b" not in plain_text(report, blocks=True)
