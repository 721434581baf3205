"""What all figures have in common: plain JSON, both themes, inert names, a bounded size, and the golden files.

The golden files hold each figure of one small recording. After a change that is meant, write them anew and look at
the difference:

    python tests/unit/test_figures.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pytest
from runs import (
    HOSTILE,
    empty_report,
    hostile_report,
    run_info,
    samples,
    small_report,
    untraced_report,
    wide_report,
)
from timelines import realistic_step

from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.names import shortened
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.reports.figures.comparison import comparison
from kerasmemwatch.reports.figures.labels import byte_unit, layer_label, plain
from kerasmemwatch.reports.figures.palette import CATEGORY_COLOURS, LAYER_COLOURS, THEMES, text_on
from kerasmemwatch.reports.figures.views import VIEWS, traced_step, view_figure
from kerasmemwatch.reports.report import Report, make_report

GOLDEN = Path(__file__).parents[1] / "golden"
PAYLOAD = 2**20

Made = Callable[..., dict[str, Any]]


def figures() -> dict[str, Made]:
    """Each figure as a function of a report and a theme."""
    made: dict[str, Made] = {
        view: lambda report, theme="light", view=view: view_figure(report, view, theme=theme) for view in VIEWS
    }
    made["step-layer"] = lambda report, theme="light": view_figure(report, "step", theme=theme, by="layer", x="time")
    made["icicle"] = lambda report, theme="light": view_figure(report, "peak", theme=theme, shape="icicle")
    made["comparison"] = lambda report, theme="light": comparison([report, report], ["a", "b"], theme=theme)
    return made


FIGURES = figures()
each_figure = pytest.mark.parametrize("name", FIGURES)


def size(figure: dict[str, Any]) -> int:
    """Bytes of a figure as JSON, which must not hold NaN."""
    return len(json.dumps(figure, allow_nan=False, separators=(",", ":")).encode())


def texts(value: Any, *, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string that plotly shows or reads, with its key; ``customdata``, ``ids`` and ``meta`` it does not show."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in ("customdata", "meta", "ids", "parents"):
                yield from texts(item, key=name)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, key=key)
    elif isinstance(value, str):
        yield key, value


@each_figure
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(
    "report",
    [small_report(), empty_report(), untraced_report(), wide_report(1), hostile_report()],
    ids=["small", "empty", "untraced", "one layer", "hostile"],
)
def test_is_plain_json_with_a_summary(name: str, theme: str, report: Report) -> None:
    figure = FIGURES[name](report, theme)
    assert json.loads(json.dumps(figure, allow_nan=False)) == figure
    assert set(figure) == {"data", "layout"}
    assert figure["layout"]["meta"]["summary"] and figure["layout"]["height"] > 0
    assert figure["layout"]["paper_bgcolor"] == THEMES[theme].background


@each_figure
def test_of_nothing_says_why(name: str) -> None:
    figure = FIGURES[name](empty_report())
    assert figure["data"] == []
    [words] = figure["layout"]["annotations"]
    assert words["text"].replace("<br>", " ") == figure["layout"]["meta"]["summary"]


@each_figure
@pytest.mark.parametrize("theme", ["blue", "auto", "", None, ["light"]])
def test_an_unknown_theme_is_our_error(name: str, theme: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'light' or 'dark'. Received: theme="):
        FIGURES[name](small_report(), theme)


@each_figure
def test_both_themes_show_the_same_data(name: str) -> None:
    light, dark = (FIGURES[name](small_report(), theme) for theme in ("light", "dark"))
    for one, other in zip(light["data"], dark["data"], strict=True):
        for key in ("type", "x", "y", "values", "name", "customdata", "text", "hovertext"):
            assert one.get(key) == other.get(key)


@each_figure
def test_hostile_names_are_inert(name: str) -> None:
    figure = FIGURES[name](hostile_report())
    seen = 0
    for key, text in texts(figure):
        if key in ("hovertemplate",):
            assert text in ("%{text}", "step %{x}: %{text}")  # of ours alone, whatever names there are
            continue
        ours = text.replace("<br>", "").replace("<b>", "").replace("</b>", "")
        assert not set("<>{$") & set(ours), (key, text)
        assert "%{" not in text and ours.isprintable()
        seen += "&lt;" in text or "&#37;" in text
    assert seen or name == "comparison", "the hostile names should have been in it"


def test_a_hostile_name_would_be_seen() -> None:
    figure = {"data": [{"name": HOSTILE[0]}], "layout": {}}
    assert any(set("<>{$") & set(text) for _, text in texts(figure))


@pytest.mark.parametrize("name", HOSTILE)
def test_an_escaped_name_reads_as_it_was_written(name: str) -> None:
    import html

    shown = html.unescape(plain(name))
    assert shown == "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in name)


@each_figure
@pytest.mark.parametrize("num_layers", [500, 2000])
def test_of_many_layers_stays_below_a_mebibyte(name: str, num_layers: int, many: dict[int, Report]) -> None:
    assert size(FIGURES[name](many[num_layers])) < PAYLOAD


@pytest.fixture(scope="module")
def many() -> dict[int, Report]:
    return {number: wide_report(number) for number in (500, 2000)}


@pytest.mark.parametrize("name", ["step", "step-layer", "allocations", "peak", "layers", "growth"])
def test_of_many_events_stays_below_a_mebibyte(name: str) -> None:
    report = make_report(run_info(), samples(20), (), [realistic_step()])
    assert report.steps[0].timeline.num_events == 100_000
    assert size(FIGURES[name](report)) < PAYLOAD


@pytest.mark.parametrize("devices", [1, 8])
def test_of_many_samples_stays_below_a_mebibyte(devices: int) -> None:
    report = make_report(run_info(devices=devices), samples(140_000, devices=devices))
    assert size(FIGURES["overview"](report)) < PAYLOAD
    assert size(comparison([report] * 50, [f"run {index}" for index in range(50)])) < PAYLOAD


@each_figure
def test_is_as_in_the_golden_file(name: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    assert FIGURES[name](small_report(rows=25)) == expected


def test_every_golden_file_is_used() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(FIGURES)


def test_categories_and_layers_have_colours_of_their_own() -> None:
    assert list(CATEGORY_COLOURS) == list(CATEGORIES)
    assert len({*CATEGORY_COLOURS.values(), *LAYER_COLOURS}) == len(CATEGORY_COLOURS) + len(LAYER_COLOURS)


@pytest.mark.parametrize("theme", THEMES.values(), ids=list(THEMES))
def test_words_and_lines_stand_out(theme: Any) -> None:
    # WCAG 2.2, 1.4.3 and 1.4.11: 4.5 to 1 for text, 3 to 1 for lines.
    assert all(contrast(colour, theme.background) >= 4.5 for colour in (theme.text, theme.faint, theme.mark))
    assert all(contrast(colour, theme.background) >= 3 for colour in theme.series)
    assert all(contrast(theme.text, colour) >= 4.5 for _, colour in theme.phases)


@pytest.mark.parametrize(
    "colour", [*CATEGORY_COLOURS.values(), *(theme.branch for theme in THEMES.values()), "#757575"]
)
def test_words_stand_out_on_an_area(colour: str) -> None:
    assert contrast(text_on(colour), colour) >= 4.5


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_an_axis_has_one_unit_that_loses_no_bit() -> None:
    values = [3 * 2**40 + 1, 12345, 0, None, float("nan")]
    unit = byte_unit(3 * 2**40 + 1)
    assert unit.name == "TiB"
    assert [None if one is None else one * unit.size for one in unit.of(values)] == [
        3 * 2**40 + 1,
        12345,
        0,
        None,
        None,
    ]
    assert [byte_unit(size).name for size in (0, 1023, 1024, -(2**20), 2**30)] == [
        "bytes",
        "bytes",
        "KiB",
        "MiB",
        "GiB",
    ]


def test_names_are_shortened_in_their_middle() -> None:
    assert [len(shortened("x" * length, 20)) for length in (1, 20, 21, 500)] == [1, 20, 20, 20]
    assert layer_label("") == "(no name)"


def test_an_unknown_view_or_option_is_our_error() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'overview', 'peak', .* Received: view='pie'"):
        view_figure(small_report(), "pie")
    with pytest.raises(InvalidArgumentError, match=r"'peak': device, layer, shape, theme. Received: colour"):
        view_figure(small_report(), "peak", colour="red")
    with pytest.raises(InvalidArgumentError, match=r"\(2, 10, 30\). Received: step=3"):
        view_figure(small_report(), "step", step=3)
    for options in ({"by": "owner"}, {"x": "clock"}):
        with pytest.raises(InvalidArgumentError, match="Received"):
            view_figure(small_report(), "step", **options)
    with pytest.raises(InvalidArgumentError, match="Received: shape='pie'"):
        view_figure(small_report(), "peak", shape="pie")


def test_a_step_is_found_by_its_number() -> None:
    report = small_report()
    assert traced_step(report, 30).stage == "test"  # type: ignore[union-attr]
    assert traced_step(report).step == 10  # type: ignore[union-attr]
    assert traced_step(empty_report()) is None


@each_figure
def test_unknown_columns_are_gaps_and_never_0(name: str) -> None:
    rows = samples(12)
    nothing = {column: np.full(np.shape(rows[column]), np.nan) for column in rows if column.endswith("_bytes")}
    report = make_report(run_info(), replace(rows, columns={**rows, **nothing}))
    assert FIGURES[name](report)["data"] == []


def test_plotly_takes_every_figure() -> None:
    for view in VIEWS:
        found = small_report().plot(view, theme="dark")
        assert type(found).__name__ == "Figure" and len(found.data) == len(VIEWS[view](small_report())["data"])


def test_figures_are_made_without_plotly() -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from runs import small_report\n"
        "from kerasmemwatch.reports.figures.views import VIEWS, view_figure\n"
        "from kerasmemwatch.reports.figures.comparison import comparison\n"
        "for view in VIEWS: view_figure(small_report(), view)\n"
        "comparison([small_report()] * 2)\n"
        "print(*sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"plotly", "rich", "keras", "tensorflow", "pandas"}


def main() -> None:
    """Write the golden files."""
    for name, made in FIGURES.items():
        text = json.dumps(made(small_report(rows=25)), indent=1, allow_nan=False)
        (GOLDEN / f"{name}.json").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
