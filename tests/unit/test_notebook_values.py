"""What a notebook shows of a report, a recording and a comparison; and what Python shows, in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from runs import (
    HOSTILE,
    empty_report,
    hostile_report,
    run_info,
    samples,
    small_report,
    traced_steps,
    untraced_report,
    wide_report,
)
from timelines import step, timeline

from kerasmemwatch.analysis.caveats import all_notes
from kerasmemwatch.comparison import compare
from kerasmemwatch.recording import Recording
from kerasmemwatch.reports.report import make_report

REPORTS = {
    "small": small_report,
    "empty": empty_report,
    "untraced": untraced_report,
    "many layers": lambda: wide_report(500),
    "hostile": hostile_report,
}


def recording(name: str = "run") -> Recording:
    return Recording(run_info(name), samples(60), (), traced_steps())


SHOWN: dict[str, Callable[[], Any]] = {
    **REPORTS,
    "recording": recording,
    "comparison": lambda: compare(small_report("a"), wide_report(500)),
}


class Elements(HTMLParser):
    """The elements of some HTML, its text, and which of them were not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= {"style", "title"}
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_shows_html_and_text(name: str) -> None:
    value = SHOWN[name]()
    bundle = value._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert bundle["text/html"] == value._repr_html_()
    found = Elements(bundle["text/html"])
    assert not found.open
    assert "script" not in found.tags
    assert len(bundle["text/html"]) < 60_000
    assert value._repr_mimebundle_(include={"text/html"}).keys() == {"text/html"}
    assert value._repr_mimebundle_(exclude={"text/html"}).keys() == {"text/plain"}


@pytest.mark.parametrize("name", SHOWN)
def test_python_shows_one_short_line(name: str) -> None:
    shown = repr(SHOWN[name]())
    assert len(shown) < 300
    assert "\n" not in shown and "array(" not in shown


def test_what_is_in_a_recording_is_short_too() -> None:
    of_all = recording()
    for value in (of_all.samples, of_all.steps[0], of_all.steps[0].timeline, of_all.report.peak):
        assert len(repr(value)) < 600, type(value)
    assert repr(small_report()) == "<Report of run 'run': 60 samples, 3 traced steps; print it>"
    assert repr(of_all) == "<Recording of run 'run': 60 samples, 3 traced steps>"
    assert repr(of_all.steps[0]) == "<TracedStep 2: train, graph, 12 allocations>"


def test_a_notebook_shows_the_reports_own_figures_and_notes() -> None:
    report = replace(small_report(), notes=("something was not measured",))
    words = Elements(report._repr_html_()).words
    for expected in ("110.0 MiB", "training step 10", "encoder/dense", "59.5%", *all_notes(report)):
        assert expected in words, expected
    assert recording()._repr_html_() == recording().report._repr_html_()


def test_a_notebook_shows_which_peak_it_is() -> None:
    made = timeline([(500, 0, 1, "head", "temporaries", "forward", "MatMul")], 2, device="GPU:0")
    tested = step(made, 9, stage="test", epoch=None)
    trained = [
        replace(one, timeline=replace(one.timeline, in_use_before_bytes=110 << 20))
        for one in traced_steps(with_inference=False)
    ]
    assert "Shown is" not in Elements(make_report(run_info(), samples(60), (), [*trained, tested])._repr_html_()).words
    alone = Elements(make_report(run_info(), samples(60), (), [tested])._repr_html_()).words
    assert (
        "The run's peak of 110.0 MiB was in training step 8, which was not traced. Shown is validation step 9." in alone
    )
    assert "gradients" not in alone and "temporaries" in alone


def test_of_many_layers_the_largest_are_shown_and_the_rest_counted() -> None:
    report = wide_report(500)
    found = Elements(report._repr_html_())
    assert found.tags.count("tr") == 1 + 20
    assert f"and {len(report.layers) - 20:,} more" in found.words


def test_hostile_names_are_text() -> None:
    words = Elements(hostile_report()._repr_html_()).words
    for name in HOSTILE:
        if name.isprintable() and name:
            assert name in words
