"""Who uses the Memory tab by keyboard, by ear, with weak eyes, in a narrow window, or while training runs."""

from __future__ import annotations

import itertools
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import PREFIX, traced
from fakes import FakeClock, FakeProbe, append_payload, device_probe, write_run
from runs import MIB, lines, traced_steps, wide_report
from tabs import VIEWS, Tab, linked, tensorboard
from timelines import step, timeline

from kerasmemwatch.storage.codecs.step_codec import encode_step
from kerasmemwatch.storage.sinks.tensorboard import STEPS_TAG

_MOST_TABS = 150
_REFRESH_MS = 15_000
# Each text that is seen whose contrast is below WCAG 2.2's 4.5 to 1 (1.4.3), in a page or a figure.
_FAINT = """
() => {
  const parsed = (text) => {
    const [red, green, blue, alpha = 1] = (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    return [red, green, blue, alpha];
  };
  const over = (top, below, alpha = top[3]) => [0, 1, 2].map((i) => top[i] * alpha + below[i] * (1 - alpha)).concat(1);
  const opacity = (node) =>
    node?.nodeType === 1 ? Number(getComputedStyle(node).opacity) * opacity(node.parentNode) : 1;
  // Colours that an element may have behind it: its own or its ancestors', and those of a bar that is a gradient.
  const grounds = (node) => {
    if (!node || node.nodeType !== 1) return [[255, 255, 255, 1]];
    const { backgroundColor, backgroundImage } = getComputedStyle(node);
    const own = parsed(backgroundColor);
    const below = own[3] === 1 ? [own] : grounds(node.parentNode).map((each) => over(own, each));
    const bars = (backgroundImage.match(/rgba?\\([^)]*\\)/g) ?? []).map(parsed);
    return [...below, ...bars.flatMap((bar) => below.map((each) => over(bar, each)))];
  };
  const svgGrounds = (text) => {
    const paper = grounds(text.closest('.plot').querySelector('.main-svg'));
    const bar = text.classList.contains('bartext-inside') ? text.closest('.point') : null;
    const shape = text.closest('.slice')?.querySelector('path.surface') ?? bar?.querySelector('path')
      ?? text.closest('.annotation-text-g, .legend')?.querySelector('rect.bg');
    if (!shape) return paper;
    const { fill, fillOpacity } = getComputedStyle(shape);
    const colour = parsed(fill);
    return paper.map((each) => over(colour, each, colour[3] * Number(fillOpacity) * opacity(shape)));
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (colour, ground, alpha) => {
    const [high, low] = [over(colour, ground, colour[3] * alpha), ground].map(luminance).sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  let seen = 0;
  const check = (words, colour, alpha, behind) => {
    seen += 1;
    const worst = Math.min(...behind.map((ground) => contrast(parsed(colour), ground, alpha)));
    if (!(worst >= 4.5)) found.push(`${words.trim()}: ${worst.toFixed(2)} (${colour} on ${behind.join(' or ')})`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || node.closest('.unseen, style, option, .modebar')) continue;
    if (!node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const text = node.closest('text');
    const style = getComputedStyle(node);
    if (text) check(text.textContent, style.fill, opacity(node) * Number(style.fillOpacity), svgGrounds(text));
    else check(walker.currentNode.data, style.color, opacity(node), grounds(node));
  }
  for (const input of document.querySelectorAll('input[placeholder]')) {
    check(input.placeholder, getComputedStyle(input, '::placeholder').color, 1, grounds(input));
  }
  for (const select of document.querySelectorAll('select')) {
    check(select.id, getComputedStyle(select).color, 1, grounds(select));
  }
  return [seen, found];
}
"""
# What has the focus, and whether it shows that: an outline of at least 2 pixels (2.4.7), in sight.
_FOCUS = """
() => {
  const node = document.activeElement;
  const style = getComputedStyle(node);
  const box = node.getBoundingClientRect();
  return {
    name: node.id || node.ariaLabel || node.textContent.trim().slice(0, 40) || node.tagName,
    tag: node.tagName.toLowerCase(),
    outlined: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    visible: node.checkVisibility({ visibilityProperty: true }) && box.bottom > 0 && box.top < innerHeight,
  };
}
"""
# Levels of headings, scopes of tables' headings, names of tables.
_STRUCTURE = """
() => [
  [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((heading) => Number(heading.tagName[1])),
  [...document.querySelectorAll('th')].map((head) => head.scope),
  [...document.querySelectorAll('table')].map((table) => table.ariaLabel),
]
"""
_STOPS = "#view :is(button, select, input, .plot, .scroll):not([hidden])"
_CONTROLS = {"button", "checkbox", "combobox", "link", "listbox", "radio", "searchbox", "slider", "tab", "textbox"}


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty runs; the newest has traced steps, another one many layers."""
    place = tmp_path_factory.mktemp("logs")
    for number in range(48):
        write_run(place, f"sweep/learning-rate-{number:02d}-of-a-long-name", batches=3, clock=FakeClock(1e9 + number))
    traced(place, "many", wide_report(250).steps[:1], clock=FakeClock(2e9))
    gpu = {"name": "GPU:0", "limit_bytes": 120 * MIB}
    device = device_probe(lambda batch: [2 * MIB + 1000 * batch, 110 * MIB, 3 * MIB], ["GPU:0"], devices=[gpu])
    probes = (device, FakeProbe(fast=lambda batch: [500 * MIB + 4096 * batch]))
    traced(place, "newest", traced_steps(), probes=probes, clock=FakeClock(3e9))
    return place


@pytest.fixture(scope="module")
def address(log_dir: Path) -> Iterator[str]:
    with tensorboard(log_dir, "--reload_interval", "1", tensorflow=False) as found:
        yield found


def drawn(tab: Tab, view: str) -> None:
    """Show a view, and wait until its figures are drawn."""
    tab.show(view)
    tab.frame.locator(".plot .main-svg").first.wait_for(timeout=60_000)


def in_frame(tab: Tab, script: str, *values: Any) -> Any:
    return tab.page.frames[-1].evaluate(script, *values)


def faint(tab: Tab) -> tuple[int, list[str]]:
    """How many texts there are, and those that stand out too little, while no view is being loaded, which dims it."""
    while (found := in_frame(tab, f"() => document.querySelector('main[aria-busy]') ? null : ({_FAINT})()")) is None:
        tab.page.wait_for_timeout(100)
    seen, texts = found
    return seen, texts


def nameless(tab: Tab) -> tuple[int, list[Any]]:
    """How many controls the browser tells a screen reader of, and those of them that have no name."""
    session = tab.page.context.new_cdp_session(tab.page)
    [child] = session.send("Page.getFrameTree")["frameTree"]["childFrames"]
    nodes = session.send("Accessibility.getFullAXTree", {"frameId": child["frame"]["id"]})["nodes"]
    session.detach()
    controls = [
        node
        for node in nodes
        if not node["ignored"]
        and (
            node["role"]["value"] in _CONTROLS
            or any(each["name"] == "focusable" for each in node.get("properties", []))
        )
    ]
    return len(controls), [node for node in controls if not node.get("name", {}).get("value", "").strip()]


@pytest.mark.long
@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 600)])
def test_every_view_is_marked_up_and_stands_out(
    opened: Callable[..., Tab], theme: str, width: int, screenshots: Path | None
) -> None:
    tab = opened(linked(run="newest", layer="encoder" if theme == "dark" else ""), width=width)
    if theme == "dark":
        tab.page.evaluate("document.body.classList.add('dark-mode')")
        tab.frame.locator("html[data-theme=dark]").wait_for()
    for view in VIEWS:
        drawn(tab, view)
        number, without = nameless(tab)
        assert number > 10 and without == [], view
        seen, texts = faint(tab)
        assert seen > 20 and texts == [], view
        assert in_frame(tab, "() => document.documentElement.scrollWidth <= innerWidth"), view
        levels, heads, tables = in_frame(tab, _STRUCTURE)
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
        assert set(heads) == ({"col", "row"} if tables else set()) and all(tables), view
        assert bool(tables) == (view not in ("overview", "timeline"))
        # Plotly has a button that uploads the figure.
        buttons = in_frame(
            tab, "() => [...document.querySelectorAll('.modebar-btn')].map((button) => button.ariaLabel)"
        )
        assert "Download plot as a PNG" in buttons and not [name for name in buttons if "share" in name.lower()]
        if screenshots:
            tab.page.screenshot(path=screenshots / f"tab-access-{view}-{theme}.png")
    in_frame(tab, "document.body.append(document.createElement('button'))")
    assert len(nameless(tab)[1]) == 1, "a control without a name should be found"
    in_frame(tab, "document.querySelector('h2').style.opacity = 0.3")
    assert len(faint(tab)[1]) == 1, "a faint text should be found"
    assert tab.wrong == []


@pytest.mark.long
def test_all_is_reached_by_keyboard_and_shows_it(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(run=["newest", "sweep/learning-rate-00-of-a-long-name"]), whole=True)
    tab.frame.locator("#run").focus()
    tab.page.keyboard.press("Tab")
    for view in VIEWS:
        tab.frame.locator(f"#tab-{view}[aria-selected=true]:focus").wait_for()
        tab.settled()
        tab.frame.locator(".plot .main-svg").first.wait_for(timeout=60_000)
        reached = list(tabbed(tab))
        assert [each for each in reached if not each["outlined"] or not each["visible"]] == [], view
        wanted = in_frame(
            tab,
            "() => document.querySelectorAll('#view :is(button, select, input, .plot, .scroll):not([hidden])').length",
        )
        assert len(reached) == wanted + 1  # the panel
        tab.frame.locator(f"#tab-{view}").focus()
        tab.page.keyboard.press("ArrowRight")
    assert tab.wrong == []


def tabbed(tab: Tab) -> Iterator[dict[str, Any]]:
    """What has the focus, each time that Tab is pressed, until it leaves the page."""
    for _ in range(_MOST_TABS):
        tab.page.keyboard.press("Tab")
        if not tab.page.evaluate("document.activeElement.tagName === 'IFRAME'") or not in_frame(
            tab, "document.hasFocus()"
        ):
            return
        focus = in_frame(tab, _FOCUS)
        if focus["tag"] == "body":
            return
        yield focus
    raise AssertionError(f"Tab does not lead out of the page, but to {focus}")


def test_a_table_is_used_by_keyboard(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(view="layers", run="many"))
    press = tab.page.keyboard.press
    tab.frame.locator("th[scope=col] button").first.focus()
    press("Enter")
    tab.frame.locator("th[aria-sort=ascending] button:focus").wait_for()
    press("Enter")
    tab.frame.locator("th[aria-sort=descending] button:focus").wait_for()
    tab.frame.locator("button", has_text="Show all").focus()
    before = len(tab.rows())
    press("Enter")
    tab.frame.locator(".scroll:focus").wait_for()
    assert before == 200 < len(tab.rows())
    link = tab.frame.locator("tbody .link").first
    path = link.inner_text()
    link.focus()
    press("Enter")
    tab.frame.locator(".chip:not([hidden])").wait_for()
    tab.settled()
    tab.frame.locator("tbody .link:focus", has_text=path).wait_for()
    tab.frame.locator(".chip").focus()
    press("Enter")
    tab.frame.locator("#view:focus").wait_for()
    assert not tab.frame.locator(".chip").is_visible()
    assert tab.wrong == []


@pytest.mark.long
def test_fifty_runs_are_chosen_from_and_compared(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(view="compare", run="newest"), width=600)
    picker = tab.frame.locator("#run")
    assert picker.locator("option").count() == 50
    names = picker.locator("option").evaluate_all("all => all.map((option) => option.value)")
    assert names[:2] == ["newest", "many"]
    for chosen in (["newest", "many", names[-1]], names):
        picker.select_option(chosen)
        tab.frame.locator(f"th[scope=col]:nth-child({len(chosen) + 2})").wait_for()
        tab.settled()
        headings = tab.frame.locator("th[scope=col]").all_text_contents()
        assert headings[1] == "class" and set(headings[2:]) == set(chosen)
        assert in_frame(tab, "() => document.documentElement.scrollWidth <= innerWidth")
    tab.show("overview")
    picker.select_option(names[-1])
    tab.settled()
    assert picker.input_value() == names[-1]
    assert tab.wrong == []


def add_step(address: str, log_dir: Path, index: int) -> None:
    """Trace one more step of the newest run, whose head holds 2 MiB more each time, and wait until it is loaded."""
    held = [*lines(), (2 * MIB * index, -1, 12, "head", "weights", "between", "")]
    before = listed(address)
    step_of = step(timeline(held, 12, device="GPU:0"), 100 + index)
    append_payload(log_dir / "newest", f"{STEPS_TAG}{index:06d}", encode_step(step_of))
    for _ in range(600):
        if listed(address) != before:
            return
        time.sleep(0.1)
    raise AssertionError("TensorBoard did not load the step")


def listed(address: str) -> Any:
    with urllib.request.urlopen(f"{address}{PREFIX}/runs", timeout=60) as answer:
        return json.load(answer)


@pytest.mark.long
def test_what_training_adds_is_shown_where_one_is(browser: Any, address: str, log_dir: Path) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.clock.install()
    tab = Tab(page).open(address, linked(view="timeline", run="newest", step="2"))
    drawn(tab, "timeline")
    in_frame(tab, "() => Plotly.relayout(document.querySelector('.plot'), { 'xaxis.range': [2, 6] })")
    steps = tab.frame.locator("#choice-step option")
    assert steps.count() == 3
    tab.frame.locator("#choice-step").focus()
    add_step(address, log_dir, 3)
    page.clock.fast_forward(_REFRESH_MS)
    tab.frame.locator("#choice-step option:nth-child(4)").wait_for(state="attached")
    assert tab.frame.locator("#choice-step:focus").input_value() == "2"
    assert in_frame(tab, "() => document.querySelector('.plot').layout.xaxis.range") == [2, 6]

    drawn(tab, "layers")
    tab.frame.locator("th[scope=col] button", has_text="layer").click()
    search = tab.frame.locator("input[type=search]")
    search.fill("head")
    cells = tab.frame.locator("tbody tr").first.all_inner_texts()
    add_step(address, log_dir, 4)
    page.clock.fast_forward(_REFRESH_MS)
    tab.frame.locator("tbody td:nth-child(3)", has_text=re.compile(r"^8\.\d MiB")).wait_for()
    assert tab.frame.locator("tbody tr").first.all_inner_texts() != cells
    assert len(tab.rows()) == 1 and search.input_value() == "head"
    assert tab.frame.locator("input[type=search]:focus").count() == 1
    assert tab.frame.locator("th[aria-sort=ascending]", has_text="layer").count() == 1

    page.route("**/kerasmemwatch/runs", lambda route: route.abort())
    page.clock.fast_forward(_REFRESH_MS)
    tab.frame.locator(".status", has_text="could not be read").wait_for()
    page.unroute("**/kerasmemwatch/runs")
    page.clock.fast_forward(_REFRESH_MS)
    tab.frame.locator(".status:empty").wait_for(state="attached")
    assert [each for each in tab.wrong if "ERR_FAILED" not in each] == []
    context.close()
