"""The report as one HTML file: self-contained, inert names, the figures as data."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fakes import write_run
from runs import (
    HOSTILE,
    empty_report,
    hostile_report,
    small_report,
    traced_steps,
    two_device_steps,
    untraced_report,
    wide_report,
)

from kerasmemwatch.analysis.layer_columns import layer_columns, layer_rows
from kerasmemwatch.analysis.leak_words import THEIRS
from kerasmemwatch.cli import main
from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.records.growth import LeakFinding, TraceLink
from kerasmemwatch.reports.figures.views import view_figure
from kerasmemwatch.reports.html import page as page_module
from kerasmemwatch.reports.html.page import html_page, plotly_script
from kerasmemwatch.reports.html.sections import theme_changes
from kerasmemwatch.reports.html.tables import to_csv
from kerasmemwatch.reports.report import Report

ROOT = Path(__file__).parents[2]
VOID = {"meta", "input", "br", "img", "link"}
REPORTS = {
    "small": small_report,
    "empty": empty_report,
    "untraced": untraced_report,
    "one layer": lambda: wide_report(1),
    "hostile": hostile_report,
    "two devices": lambda: small_report(steps=two_device_steps()),
}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the texts in each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in {*self.open}:
            self.texts[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(autouse=True)
def _short_library(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A short stand-in for plotly's script, whose 5 MB every test would parse."""
    if "real_library" not in request.fixturenames:
        monkeypatch.setattr(page_module, "plotly_script", lambda: "var Plotly = {};")


@pytest.fixture
def real_library() -> None:
    """Asks for plotly's own script."""


@pytest.mark.parametrize("name", REPORTS)
def test_every_element_is_closed_and_nothing_is_fetched(name: str) -> None:
    page = Page(html_page(REPORTS[name]()))
    assert page.open == []
    for tag, attributes in page.elements:
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            assert key not in ("src", "srcset", "action", "formaction", "ping", "background"), (tag, key)
            if key == "href":
                assert (value or "").startswith("data:text/csv")
    assert {tag for tag, _ in page.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "h1", "b", "button", "p", "main", "dl", "div"),
        *("dt", "dd", "strong", "span", "section", "h2", "script", "label", "input", "a", "table", "thead"),
        *("tr", "th", "tbody", "td", "ul", "li", "details", "summary", "pre", "footer", "em", "select", "option"),
    }


def test_hostile_names_are_text() -> None:
    page = Page(html_page(hostile_report()))
    assert len(page.all("script")) == 2 + 7  # the library, ours, and the figures' data
    words = " ".join(page.texts["body"])
    for name in HOSTILE:
        if name.isprintable():
            assert name in page.texts["title"][0] + words
    rows = [text for text in page.texts["th"] if text in HOSTILE]
    assert set(rows) == {name for name in HOSTILE if name.isprintable()}


def test_hostile_leaks_are_text() -> None:
    trace = (TraceLink(HOSTILE[0], "expected"), TraceLink(HOSTILE[1], "suspect"))
    leak = LeakFinding(HOSTILE[0], HOSTILE[1], 8.0, 3, 0.9, HOSTILE[3], HOSTILE[5], trace=trace)
    page = Page(html_page(replace(small_report(), leaks=(leak,))))
    [title] = [text for text in page.texts["h3"] if HOSTILE[0] in text]
    assert "+8 B a step since step 3" in title
    lines = [text for text in page.texts["li"] if text.startswith(("Where", "Fix", "Evidence"))]
    assert all(any(words in line for line in lines) for words in (HOSTILE[1], HOSTILE[3], HOSTILE[5]))
    assert [text for text in page.texts["h2"] if text == "Causes of growth"]
    assert any(HOSTILE[1] in text and "<- CHANGE THIS" in text for text in page.texts["strong"])


def test_causes_in_tensorflow_have_a_section_of_their_own() -> None:
    yours, theirs = (
        LeakFinding(whose, "", None, None, None, "", "", whose=whose) for whose in ("yours", "TensorFlow's")
    )
    headings = Page(html_page(replace(small_report(), leaks=(theirs, yours)))).texts
    assert [text for text in headings["h2"] if text in ("Causes of growth", THEIRS)] == ["Causes of growth", THEIRS]
    assert headings["h3"][:2] == ["yours", "TensorFlow's, TensorFlow's own"]
    assert THEIRS not in Page(html_page(replace(small_report(), leaks=(yours,)))).texts["h2"]
    assert "Causes of growth" not in Page(html_page(replace(small_report(), leaks=(theirs,)))).texts["h2"]


@pytest.mark.parametrize("name", REPORTS)
def test_the_figures_are_those_of_the_report_in_both_themes(name: str) -> None:
    report = REPORTS[name]()
    page = Page(html_page(report))
    stored = [
        json.loads(text)
        for text, attributes in zip(page.texts["script"], page.all("script"), strict=True)
        if attributes.get("type") == "application/json"
    ]
    plots = [one for one in page.all("div") if one.get("class") == "plot"]
    devices = report.devices or ("",)
    assert len(plots) == len(stored) == (2 + 5 * len(devices) if report.steps else 5)
    views = [one["figure"]["layout"]["meta"]["view"] for one in stored]
    for view, one, plot in zip(views, stored, plots, strict=True):
        place = plot["data-figure"] or ""
        options: dict[str, Any] = {"by": "layer"} if place.startswith("step-layers") else {}
        number = place.removesuffix("-figure").rpartition("-")[2]
        options |= {"device": devices[int(number)]} if number.isdecimal() else {}
        assert one["figure"] == view_figure(report, view, theme="light", **options)
        assert changed(one) == view_figure(report, view, theme="dark", **options)
        assert plot["aria-label"] == one["figure"]["layout"]["meta"]["summary"]


def changed(stored: dict[str, Any]) -> Any:
    """The figure in the dark theme, made as the page's script makes it."""
    figure = json.loads(json.dumps(stored["figure"]))
    for path, value in stored["dark"]:
        place = figure
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return figure


def test_theme_changes_are_small() -> None:
    light, dark = (view_figure(wide_report(500), "peak", theme=theme) for theme in ("light", "dark"))
    assert len(json.dumps(theme_changes(light, dark))) < 0.2 * len(json.dumps(light))


@pytest.mark.parametrize("report", [small_report(), untraced_report()], ids=["small", "untraced"])
def test_the_table_has_every_layer_with_its_figures(report: Report) -> None:
    page = html_page(report)
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td>(.*?)</tr>', page)
    assert [path for path, *_ in rows] == [layer.path for layer in report.layers]
    at_peak = {row.path: row.total_bytes for row in report.peak.by_layer}
    for (path, class_name, cells), layer in zip(rows, report.layers, strict=True):
        values = [
            int(value) if value and "." not in value else None
            for value in re.findall(r"<td(?: data-value=\"(.*?)\")?", cells)
        ]
        assert class_name == layer.class_name
        kinds = [layer.weights_bytes, layer.gradients_bytes, layer.optimizer_bytes, layer.activations_bytes]
        assert values[:4] == kinds and values[8] == layer.total_bytes
        if report.traced:
            assert values[5] == at_peak.get(path, 0)
        assert cells.count(">unknown<") == cells.count('class="unknown"') >= sum(value is None for value in kinds)


def csv_of(report: Report) -> str:
    return to_csv(layer_rows(report), layer_columns(report))


def test_the_csv_has_bytes_and_no_formula() -> None:
    rows, columns = layer_rows(small_report()), layer_columns(small_report())
    read = list(csv.reader(io.StringIO(to_csv(rows, columns))))
    assert len(read[0]) == len(columns) and read[0][:3] == ["layer", "class", "weights (bytes)"]
    for line, row in zip(read[1:], rows, strict=True):
        assert line[:2] == [row.layer.path, row.layer.class_name]
        assert [float(cell) if cell else None for cell in line[2:]] == row.cells(columns)[2:]
    hostile = list(csv.reader(io.StringIO(csv_of(hostile_report()))))
    assert "'=1+1" in [line[0] for line in hostile]
    unknown = list(csv.reader(io.StringIO(csv_of(untraced_report()))))
    assert unknown[2][:5] == ["lazy", "Dense", "", "", ""]


def test_the_link_downloads_the_csv() -> None:
    report = hostile_report()
    [link] = Page(html_page(report)).all("a")
    assert unquote((link["href"] or "").partition(",")[2]) == csv_of(report).replace("\udcff", "?")


def test_without_javascript_there_is_the_text_report() -> None:
    report = small_report()
    page = Page(html_page(report))
    assert "Memory of run run" in page.texts["pre"][0] and "encoder/dense" in page.texts["pre"][0]
    assert any("need JavaScript" in text for text in page.texts["p"])
    [toggle] = [one for one in page.all("button") if one.get("id") == "theme"]
    assert "hidden" in toggle


def test_notes_are_in_it() -> None:
    page = Page(html_page(untraced_report()))
    assert any("no step has been traced yet" in text for text in page.texts["li"])


@pytest.mark.parametrize(("theme", "shown"), [("auto", None), ("light", "light"), ("dark", "dark")])
def test_the_theme_is_written_down(theme: str, shown: str | None) -> None:
    [root] = Page(html_page(small_report(), theme=theme)).all("html")
    assert (root["data-theme"], root.get("data-shown")) == (theme, shown)


@pytest.mark.parametrize("theme", ["blue", "", None, 3])
def test_an_unknown_theme_is_our_error(theme: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="'auto', 'light' or 'dark'"):
        html_page(small_report(), theme=theme)


@pytest.mark.usefixtures("real_library")
def test_only_scripts_of_ours_may_run() -> None:
    import base64
    import hashlib

    text = html_page(small_report())
    page = Page(text)
    [policy] = [one["content"] or "" for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe-eval" not in policy
    allowed = re.findall(r"'sha256-(.*?)'", policy)
    scripts = [
        script
        for script, attributes in zip(page.texts["script"], page.all("script"), strict=True)
        if not attributes.get("type")
    ]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert digests == allowed and len(scripts[0]) > 10**6
    assert "script-src 'sha256" in policy and "'unsafe-inline'" not in policy.partition("style-src")[0]


@pytest.mark.usefixtures("real_library")
def test_plotlys_script_cannot_end_its_element() -> None:
    assert "</script" not in plotly_script().lower() and "Plotly" in plotly_script()


@pytest.mark.usefixtures("real_library")
def test_the_file_holds_the_page_and_plotly_is_not_imported(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from runs import hostile_report\n"
        f"hostile_report().to_html({str(tmp_path / 'r.html')!r}, theme='dark')\n"
        "assert not {'plotly', 'tensorflow', 'keras'} & {name.split('.')[0] for name in sys.modules}"
    )
    # Standard output knows no other characters; the file has them all the same.
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""})
    text = (tmp_path / "r.html").read_bytes().decode()
    assert text == html_page(hostile_report(), theme="dark")


def test_a_name_that_is_no_proper_text_is_no_error(tmp_path: Path) -> None:
    wide_report(2, names=["caf\udcff"]).to_html(tmp_path / "r.html")
    (tmp_path / "r.html").read_bytes().decode()


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        small_report().to_html(tmp_path / "none" / "r.html")


@pytest.mark.long
def test_of_many_layers_the_page_stays_small() -> None:
    assert len(html_page(wide_report(2000))) < 6 * 2**20


def test_the_command_line_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("zebra", "ape"):
        write_run(tmp_path / "logs", name, 20)
    out = tmp_path / "out.html"
    assert main(["report", str(tmp_path / "logs"), "-o", str(out), "--run", "zebra", "--theme", "dark"]) == 0
    assert capsys.readouterr().out == f"Wrote {out}\n"
    assert "<title>Memory of zebra</title>" in out.read_text() and 'data-theme="dark"' in out.read_text()
    assert main(["report", str(tmp_path / "logs"), "-o", str(tmp_path / "no" / "r.html")]) == 2
    assert main(["report", str(tmp_path / "none"), "-o", str(out)]) == 2
    assert "no directory" in capsys.readouterr().err


def test_two_traced_stages_are_both_drawn() -> None:
    assert len({one.stage for one in traced_steps()}) == 2
    assert "Inference\\u003c/b\\u003e\\u003cbr\\u003evalidation step 30" in html_page(small_report())


# -- several devices -----------------------------------------------------------------------------------------------


def test_a_device_is_chosen_where_a_step_has_several_and_only_there() -> None:
    assert not Page(html_page(small_report())).all("select")
    page = Page(html_page(small_report(steps=two_device_steps())))
    assert len(page.all("select")) == 1 and page.texts["option"] == ["GPU:0", "CPU:0", "GPU host (pinned)"]
    groups = [one for one in page.all("div") if "data-device" in one]
    assert [(one["data-device"], "hidden" in one) for one in groups] == [("0", False), ("1", True), ("2", True)] * 2
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) and {"table", "table-1", "peak-2-figure"} <= set(ids)


def test_each_device_has_its_own_figures_and_table() -> None:
    report = small_report(steps=two_device_steps())
    page = Page(html_page(report))
    host = report.on_device("CPU:0")
    expected = view_figure(host, "peak")["layout"]["meta"]["summary"]
    assert expected in [one["aria-label"] for one in page.all("div") if one.get("data-figure") == "peak-1-figure"]
    assert [text for text in page.texts["th"] if text == "embedding"]
    assert "Every layer in training step 10 on CPU:0" in page.texts["h2"]


def test_the_device_that_was_asked_for_comes_first() -> None:
    page = Page(html_page(small_report(steps=two_device_steps()).on_device("CPU:0")))
    assert page.texts["option"] == ["CPU:0", "GPU:0", "GPU host (pinned)"]


def test_a_hostile_device_is_text() -> None:
    [first, second] = two_device_steps()
    odd = replace(second, others=tuple(replace(one, device=HOSTILE[i]) for i, one in enumerate(second.others)))
    page = Page(html_page(small_report(steps=(first, odd))))
    assert page.open == [] and HOSTILE[0] in page.texts["option"] and HOSTILE[1] in page.texts["option"]
