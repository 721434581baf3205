"""A step on several devices, in the tab and in the HTML report: one is chosen, and the choice kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import traced
from fakes import device_probe
from runs import MIB, small_report, traced_steps, two_device_steps
from tabs import ReportPage, Tab, linked, tensorboard

CHOSEN = ("peak", "timeline", "layers")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log_dir = tmp_path_factory.mktemp("logs")
    for name, steps in (("one", traced_steps()), ("two", two_device_steps())):
        probes = (device_probe(lambda batch: [MIB, 40 * MIB + batch, MIB], ["GPU:0"], devices=[{"name": "GPU:0"}]),)
        traced(log_dir, name, steps, probes=probes)
    with tensorboard(log_dir, tensorflow=False) as found:
        yield found


def device(tab: Tab) -> str:
    return str(tab.frame.locator("#choice-device").input_value())


def choose(tab: Tab, name: str) -> None:
    tab.frame.locator("#choice-device").select_option(name)
    tab.frame.locator("main:not([aria-busy])").wait_for()
    tab.frame.locator("h2", has_text=f"on {name}").first.wait_for()


@pytest.mark.long
def test_there_is_a_choice_where_a_step_has_several_devices_only(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(view=CHOSEN[0], run="one"))
    for view in CHOSEN:
        tab.show(view)
        assert not tab.frame.locator("#choice-device").count()
        tab.frame.locator("#run").select_option("two")
        picker = tab.frame.get_by_role("combobox", name="Device")
        picker.wait_for()
        assert picker.locator("option").all_text_contents() == [
            "GPU:0: 1.1 MiB at most",
            "CPU:0: 27.9 KiB at most",
            "GPU host (pinned): 2.0 KiB at most",
        ]
        assert device(tab) == "GPU:0" and tab.wrong == []
        tab.frame.locator("#run").select_option("one")
        picker.wait_for(state="detached")


def test_a_device_is_chosen_by_keyboard_and_stays_chosen_for_the_run(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(view="peak", run="two"))
    tab.frame.locator("#choice-device").focus()
    tab.page.keyboard.press("ArrowDown")
    tab.frame.locator("tbody th", has_text="embedding").wait_for()
    assert device(tab) == "CPU:0" and not [path for path in tab.rows() if "encoder" in path]
    # The focus stays, to go on from there.
    tab.frame.locator("#choice-device:focus").wait_for()
    for view in ("timeline", "layers", "peak"):
        tab.show(view)
        tab.frame.locator("#choice-device").wait_for()
        assert device(tab) == "CPU:0"
    tab.frame.locator("#run").select_option("one")
    tab.frame.locator("#choice-device").wait_for(state="detached")
    assert [path for path in tab.rows() if "encoder" in path]
    tab.frame.locator("#run").select_option("two")
    tab.frame.locator("tbody th", has_text="embedding").wait_for()
    assert device(tab) == "CPU:0" and tab.wrong == []


def test_the_address_keeps_the_device(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(view="layers", run="two"))
    choose(tab, "GPU host (pinned)")
    again = opened(tab.page.url.partition("#kerasmemwatch")[2])
    again.frame.locator("#choice-device").wait_for()
    assert device(again) == "GPU host (pinned)"
    assert tab.wrong == again.wrong == []


def test_a_window_is_looked_up_on_the_device(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(view="timeline", run="two", device="CPU:0"))
    plot = tab.frame.locator(".plot").first
    plot.locator(".nsewdrag").first.wait_for(timeout=60_000)
    box = plot.locator(".nsewdrag").first.bounding_box()
    with tab.page.expect_response(lambda response: "/moments?" in response.url) as answer:
        tab.page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] / 2)
        tab.page.mouse.down()
        tab.page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=5)
        tab.page.mouse.up()
    assert answer.value.ok and "device=CPU" in answer.value.url
    assert "on CPU:0" in answer.value.json()["figure"]["layout"]["meta"]["summary"]
    assert tab.wrong == []


def test_the_choice_fits_a_narrow_window(opened: Callable[..., Tab], screenshots: Path | None) -> None:
    tab = opened(linked(view="peak", run="two", device="CPU:0"), width=600)
    for view in CHOSEN:
        tab.show(view)
        tab.frame.locator(".plot .main-svg").first.wait_for(timeout=60_000)
        box = tab.frame.locator("#choice-device").bounding_box()
        assert box["height"] >= 24
        assert tab.frame.locator("body").evaluate("body => body.scrollWidth <= innerWidth")
        if screenshots:
            tab.page.screenshot(path=screenshots / f"tab-devices-{view}.png")
    assert tab.wrong == []


# -- the HTML report -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "two.html"
    small_report(steps=two_device_steps()).to_html(path)
    return path


@pytest.mark.long
def test_a_page_shows_the_device_that_is_chosen_and_keeps_it(
    offline: Callable[..., ReportPage], page_path: Path, screenshots: Path | None
) -> None:
    width = 600
    report = offline(page_path, scheme="dark", width=width)
    page = report.page
    picker = page.get_by_role("combobox", name="Device")
    assert picker.locator("option").all_text_contents() == ["GPU:0", "CPU:0", "GPU host (pinned)"]
    assert page.locator("#table").is_visible() and not page.locator("#table-1").is_visible()
    picker.focus()
    page.keyboard.press("ArrowDown")
    page.locator("#peak-1 .plot .main-svg").first.wait_for()
    page.locator("#allocations-1 .plot .main-svg").first.wait_for()
    assert page.locator("#table-1").is_visible() and not page.locator("#table").is_visible()
    assert "embedding" in page.locator("#table-1 tbody th").all_text_contents()
    page.locator("#search-1").fill("embed")
    assert page.locator("#count-1").text_content() == "1 of 3"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for plot in page.locator("[data-device='1'] .plot").all():
        assert plot.bounding_box()["width"] <= width
    if screenshots:
        page.screenshot(path=screenshots / "report-devices.png", full_page=True)
    page.reload()
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    assert page.locator("#device").input_value() == "1" and page.locator("#table-1").is_visible()
    assert report.wrong == []


def test_without_javascript_the_page_shows_its_own_device(browser: Any, page_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_path.as_uri())
    assert page.locator("#table").is_visible() and not page.locator("#table-1").is_visible()
    assert not page.locator("#device").is_visible()
    context.close()
