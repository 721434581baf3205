"""The HTML report in a browser, from disk and with the network off: drawn, sorted, searched, themed, and silent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import HOSTILE, empty_report, hostile_report, small_report, untraced_report, wide_report
from tabs import ReportPage

from kerasmemwatch.reports.report import Report

REPORTS: dict[str, Callable[[], Report]] = {
    "small": small_report,
    "empty": empty_report,
    "untraced": untraced_report,
    "one-layer": lambda: wide_report(1),
    "500-layers": lambda: wide_report(500),
    "hostile": hostile_report,
}
# What would show that a name was run or taken for markup: a dialog is counted, and these elements are none of ours.
_FOREIGN = "img, a[href^='http'], svg [onload], [onerror], svg a, svg image[href^='http']"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("reports")
    for name, made in REPORTS.items():
        made().to_html(place / f"{name}.html")
    return {name: place / f"{name}.html" for name in REPORTS}


@pytest.fixture
def opened(offline: Callable[..., ReportPage], paths: dict[str, Path]) -> Callable[..., ReportPage]:
    """``opened(name)``: a report, in a window of 1,200 pixels and a light theme unless told."""
    return lambda name, **look: offline(paths[name], **look)


# Every report but the largest, which takes seconds to draw and is looked at once, where its table is searched.
LARGEST = "500-layers"
LOOKS = [
    ("small", "dark", 360),
    ("hostile", "light", 600),
    ("empty", "light", 360),
    ("untraced", "dark", 600),
    ("one-layer", "light", 1200),
]


def test_every_report_is_looked_at() -> None:
    assert {name for name, *_ in LOOKS} == set(REPORTS) - {LARGEST}


@pytest.mark.parametrize(("name", "scheme", "width"), LOOKS)
def test_every_figure_is_drawn_and_nothing_goes_wrong(
    opened: Any, name: str, scheme: str, width: int, screenshots: Path | None
) -> None:
    report = opened(name, scheme=scheme, width=width)
    assert_drawn(report, width)
    if screenshots:
        report.page.screenshot(path=screenshots / f"report-{name}-{scheme}-{width}.png", full_page=True)


def assert_drawn(report: ReportPage, width: int) -> None:
    plots = report.page.locator(".plot")
    assert plots.count() == report.page.locator(".plot .main-svg").locator("xpath=ancestor::div[@data-figure]").count()
    for index in range(plots.count()):
        box = plots.nth(index).bounding_box()
        assert box["width"] <= width and box["height"] >= 200
    # Plotly has a button that uploads the figure.
    buttons = report.page.locator(".modebar-btn").evaluate_all("all => all.map((button) => button.ariaLabel)")
    assert "Download plot as a PNG" in buttons and not [name for name in buttons if "share" in name.lower()]
    # No text of a figure is cut at a side.
    cut = report.page.locator(".plot .annotation-text").evaluate_all(
        """(texts, width) => texts.filter((text) => {
            const box = text.getBoundingClientRect();
            return box.width && (box.left < 0 || box.right > width);
        }).map((text) => text.textContent)""",
        width,
    )
    assert cut == []
    # The page itself is never wider than the window.
    assert report.page.evaluate("document.documentElement.scrollWidth") <= width
    assert report.wrong == []


def test_hostile_names_are_shown_as_they_are_and_hovered_over(opened: Any) -> None:
    report = opened("hostile")
    assert report.page.locator(_FOREIGN).count() == 0
    drawn = "\n".join(report.page.locator(".plot text").all_text_contents())
    for name in ("<img src=x", "%{y}", "$x^2$", "&lt;i&gt;", "__proto__", "2020-01-01"):
        assert name in drawn, name
    assert {*report.rows} >= {name for name in HOSTILE if name.isprintable()}
    assert report.page.title() == f"Memory of {HOSTILE[1]}"
    assert report.wrong == []

    report.page.locator("#layers .plot").scroll_into_view_if_needed()
    hovered = report.page.evaluate(
        """async () => {
            const texts = [];
            for (const plot of document.querySelectorAll('.plot')) {
                if (!plot.data || plot.data.some((trace) => trace.type === 'treemap')) continue;
                for (let curve = 0; curve < plot.data.length; curve += 1) {
                    try {
                        const { xaxis = 'x', yaxis = 'y' } = plot.data[curve];
                        Plotly.Fx.hover(plot, [{ curveNumber: curve, pointNumber: 0 }], xaxis + yaxis);
                    } catch {
                        continue;  // a key of the legend has no point
                    }
                    await new Promise((resolve) => setTimeout(resolve, 5));
                    texts.push(plot.querySelector('.hoverlayer').textContent);
                }
            }
            return texts.join('\\n');
        }"""
    )
    assert "<img src=x onerror=alert(1)>" in hovered and "&lt;img" not in hovered
    assert report.page.locator(_FOREIGN).count() == 0 and report.wrong == []


def test_the_treemap_can_be_looked_into(opened: Any) -> None:
    report = opened("hostile")
    area = report.page.locator("#peak .slice", has_text="encoder/block_0").first
    assert report.page.locator("#peak .pathbar").count() == 0
    area.locator("text").first.click(force=True)
    report.page.locator("#peak .pathbar").first.wait_for()
    names = report.page.locator("#peak .pathbar").all_text_contents()
    assert names == ["training step 2 on GPU:0"]  # the way back
    assert report.wrong == []


@pytest.mark.long
def test_the_theme_follows_the_system_and_the_button(opened: Any) -> None:
    report = opened("small", scheme="dark")
    page = report.page

    def shown() -> tuple[str, str, str]:
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        plot = page.evaluate("document.querySelector('.plot').layout.paper_bgcolor")
        return back, plot, page.locator("#theme").text_content()

    dark, light = ("rgb(30, 31, 34)", "#1e1f22", "Light theme"), ("rgb(255, 255, 255)", "#ffffff", "Dark theme")
    assert shown() == dark
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("html[data-drawn=light]")
    assert shown() == light
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-drawn=dark]")
    assert shown() == dark
    page.emulate_media(color_scheme="dark")
    page.emulate_media(color_scheme="light")  # what was chosen stays
    assert shown() == dark and report.wrong == []


def test_the_table_is_sorted_by_any_column_and_downloaded(opened: Any) -> None:
    report = opened("small")
    page, layers = report.page, small_report().layers
    assert report.rows == [layer.path for layer in layers]
    page.get_by_role("button", name="weights").click()
    sizes = {layer.path: layer.weights_bytes or 0 for layer in layers}
    assert [sizes[path] for path in report.rows] == sorted(sizes.values(), reverse=True)
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="weights").click()
    assert [sizes[path] for path in report.rows] == sorted(sizes.values())
    page.get_by_role("button", name="layer", exact=True).click()
    assert report.rows == sorted(sizes) and page.locator("th[aria-sort]").count() == 1
    with report.page.expect_download() as waiting:
        report.page.get_by_text("Download CSV").click()
    assert waiting.value.suggested_filename == "layers.csv"
    text = Path(waiting.value.path()).read_text()
    assert text.splitlines()[0].startswith("layer,class,weights (bytes)") and "encoder/dense" in text


def test_what_is_unknown_is_sorted_last(opened: Any) -> None:
    report = opened("untraced")
    for _ in range(2):
        report.page.get_by_role("button", name="weights").click()
        assert report.rows == ["dense", "lazy"]


@pytest.mark.long
def test_the_largest_report_is_drawn_and_its_table_searched(opened: Any, screenshots: Path | None) -> None:
    report = opened(LARGEST, scheme="dark", width=360)
    assert_drawn(report, 360)
    if screenshots:
        report.page.screenshot(path=screenshots / f"report-{LARGEST}-dark-360.png", full_page=True)
    report.page.get_by_label("Search").fill("BLOCK_7/ layer")
    assert report.rows == [f"encoder/block_7/layer_{index}" for index in (21, 22, 23)]
    assert report.page.locator("#count").text_content() == "3 of 500"
    report.page.get_by_label("Search").fill("")
    assert len(report.rows) == 500


def test_without_javascript_there_are_the_table_and_the_text(browser: Any, paths: dict[str, Path]) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False, color_scheme="dark")
    page = context.new_page()
    page.goto(paths["small"].as_uri())
    assert page.get_by_text("The figures need JavaScript").is_visible()
    assert page.locator("tbody tr").count() == len(small_report().layers)
    page.get_by_text("The report as plain text").click()
    assert page.locator("pre").is_visible() and "encoder/dense" in page.locator("pre").text_content()
    context.close()


@pytest.mark.long
def test_everything_is_reached_by_keyboard(opened: Any) -> None:
    report = opened("small")
    reached = set()
    for _ in range(90):
        report.page.keyboard.press("Tab")
        reached.add(report.page.evaluate("(document.activeElement.textContent || document.activeElement.id).trim()"))
    assert {"Dark theme", "Download CSV", "search", "weights", "The report as plain text"} <= reached


def test_a_script_that_gets_in_does_not_run(offline: Any, paths: dict[str, Path], tmp_path: Path) -> None:
    """The page's own policy is what stops it: without this one, the other tests could not see a hole."""
    spoilt = tmp_path / "spoilt.html"
    text = paths["small"].read_text()
    spoilt.write_text(text.replace("<main>", "<main><script>window.ran = 1</script><img src=x onerror='ran = 2'>"))
    report = offline(spoilt)
    assert report.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in each for each in report.wrong), report.wrong
