"""A step of another run is never shown as one of this run's: in text, in HTML, in figures and in the tab."""

from __future__ import annotations

from dataclasses import replace

import pytest
from runs import small_report

from kerasmemwatch.analysis.key_figures import headline
from kerasmemwatch.analysis.peak_place import traced_words
from kerasmemwatch.comparison import compare
from kerasmemwatch.recording import Recording
from kerasmemwatch.reports.figures.growth import steps_to_compare
from kerasmemwatch.reports.figures.views import view_figure
from kerasmemwatch.reports.html.page import html_page
from kerasmemwatch.reports.report import Report, make_report
from kerasmemwatch.tensorboard_plugin.views import VIEWS

NAME = "<b>trial</b>"


@pytest.fixture
def report() -> Report:
    own = small_report()
    steps = tuple(replace(one, measured_in=NAME) for one in own.steps)
    return make_report(own.run, own.samples, own.layers, steps)


def test_no_step_of_another_run_is_among_the_traced_ones(report: Report) -> None:
    assert report.traced_steps == ()
    assert report.traced is not None
    assert report.traced.measured_in == NAME
    assert report.to_dict()["traced"]["measured_in"] == NAME
    assert steps_to_compare(report.steps) is None


def test_the_text_says_whose_it_is_in_each_heading(report: Report) -> None:
    text = " ".join(report.text().split())
    number = report.traced.step if report.traced else 0
    assert f"At the traced peak (training step {number} of run '{NAME}', graph)" in text
    assert f"What each layer holds itself in training step {number} of run '{NAME}'" in text
    assert f"Shown is training step {number} of run '{NAME}'" in text
    assert f"; {traced_words(report)} was highest during" in headline(report)[0].detail


def test_the_page_escapes_the_name_and_names_no_step_of_its_own(report: Report) -> None:
    page = html_page(report)
    assert "Every layer in training step" in page
    assert "of run &#x27;&lt;b&gt;trial&lt;/b&gt;&#x27;" in page
    assert "<b>trial</b>" not in page
    assert "traced: step" not in page


@pytest.mark.parametrize("view", ["peak", "step", "layers", "allocations"])
def test_a_figure_says_whose_it_is(report: Report, view: str) -> None:
    assert "of run" in str(view_figure(report, view))
    assert "of run" not in str(view_figure(small_report(), view))


@pytest.mark.parametrize("view", ["peak", "timeline", "layers"])
def test_the_tab_says_whose_it_is(report: Report, view: str) -> None:
    recording = Recording(report.run, report.samples, report.layers, report.steps)
    assert f"of run '{NAME}'" in str(VIEWS[view]({"run": recording}, {})).replace("\\", "")


def test_a_comparison_says_whose_it_compares(report: Report) -> None:
    notes = compare(small_report(), report).notes
    assert any("this fit itself was not traced" in note for note in notes)
