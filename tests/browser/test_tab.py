"""The Memory tab in a real TensorBoard, on the logs of real fits: opened, clicked, filtered, compared, themed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import append_payload, write_run
from forks import run_forked
from runs import HOSTILE
from tabs import VIEWS, Tab, linked, tensorboard
from timelines import realistic_step, step, timeline

from kerasmemwatch.storage.codecs.step_codec import encode_step
from kerasmemwatch.storage.sinks.tensorboard import STEPS_TAG

_FIT = """
import sys
import keras, numpy as np
import kerasmemwatch as kmw

x, y = np.ones((640, 28, 28, 1), np.float32), np.zeros((640,))
for run, width in (("narrow", 8), ("wide", 24)):
    layers = [keras.layers.Conv2D(width, 3), keras.layers.Flatten(), keras.layers.Dense(10, name="head")]
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.Sequential(layers[:1], name="encoder"), *layers[1:]])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    watch = kmw.MemoryWatch(sys.argv[1], run_name=run)
    model.fit(x, y, validation_data=(x[:128], y[:128]), epochs=2, batch_size=32, verbose=0, callbacks=[watch])
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log_dir = tmp_path_factory.mktemp("logs")
    script = tmp_path_factory.mktemp("script") / "fit.py"
    script.write_text(_FIT)
    status, _, errors = run_forked(script, str(log_dir))
    assert status == 0, errors
    write_run(log_dir, "hostile", batches=30)
    lines = [(1000 * (i + 1), -1, 4, name, "weights", "between", "") for i, name in enumerate(HOSTILE)]
    append_payload(
        log_dir / "hostile", f"{STEPS_TAG}000000", encode_step(step(timeline(lines, 4), reason="long " * 60))
    )
    write_run(log_dir, "large", batches=30)
    append_payload(log_dir / "large", f"{STEPS_TAG}000000", encode_step(realistic_step(100_000)))
    with tensorboard(log_dir, tensorflow=False) as found:
        yield found


def fits(tab: Tab) -> bool:
    """Whether the page is no wider than its window; a figure takes the width of its box once that is laid out."""
    return bool(
        tab.frame.locator("body").evaluate(
            """async body => {
                for (let frames = 0; frames < 300 && body.scrollWidth > innerWidth; frames++)
                    await new Promise(requestAnimationFrame);
                return body.scrollWidth <= innerWidth;
            }"""
        )
    )


@pytest.mark.long
def test_long_names_and_reasons_are_text_and_fit_a_narrow_window(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(run="hostile"), width=600)
    for view in VIEWS:
        tab.show(view)
        tab.frame.locator(".plot .main-svg, .notes").first.wait_for(timeout=60_000)
        assert not tab.frame.locator("main img, main script, main [onerror], main svg [onload]").count()
        assert fits(tab), view
    tab.show("peak")
    assert HOSTILE[0] in " ".join(tab.rows())
    assert tab.wrong == []


@pytest.mark.long
def test_every_view_is_drawn_in_tensorboards_dark_theme(opened: Callable[..., Tab], screenshots: Path | None) -> None:
    tab = opened(linked(run="wide"), whole=True)
    tab.page.evaluate("document.body.classList.add('dark-mode')")
    tab.frame.locator("html[data-theme=dark]").wait_for()
    for view in VIEWS:
        tab.show(view)
        plots = tab.frame.locator(".plot .main-svg")
        plots.first.wait_for(timeout=60_000)
        assert not tab.frame.locator(".problem").count()
        assert fits(tab), view
        if screenshots:
            tab.page.screenshot(path=screenshots / f"tab-{view}-dark.png")
    assert tab.wrong == []


def test_a_layer_is_chosen_for_all_views(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(view="peak", run="wide"))
    tab.frame.locator("tbody th .link", has_text="encoder/").first.click()
    chip = tab.frame.locator(".chip")
    chip.wait_for()
    tab.frame.locator("tbody th", has_text="head").first.wait_for(state="detached")
    assert tab.rows() and all(path.lstrip("▾▸ ").startswith("encoder") for path in tab.rows())
    tab.show("layers")
    assert tab.rows() and all(path.lstrip("▾▸ ").startswith("encoder") for path in tab.rows())
    chip.click()
    tab.frame.locator("tbody th", has_text="head").first.wait_for()
    assert tab.wrong == []


def test_a_table_is_searched_sorted_and_downloaded(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(view="layers", run="wide"))
    everything = tab.rows()
    tab.frame.locator("input[type=search]").fill("HEAD")
    assert 0 < len(tab.rows()) < len(everything)
    assert all("head" in path for path in tab.rows())
    tab.frame.locator("input[type=search]").fill("")
    heading = tab.frame.locator("th[scope=col]", has_text="layer").first
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert tab.rows() == sorted(tab.rows(), key=lambda path: path.lstrip("▾▸ "))
    with tab.page.expect_download() as download:
        tab.frame.locator("button", has_text="Download CSV").click()
    text = Path(download.value.path()).read_text()
    assert text.startswith("path,class_name,") and len(text.splitlines()) == len(everything) + 1
    assert tab.wrong == []


def test_a_window_of_a_large_step_is_looked_up(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(view="timeline", run="large"))
    plot = tab.frame.locator(".plot").first
    plot.locator(".nsewdrag").first.wait_for(timeout=60_000)
    plot.scroll_into_view_if_needed()
    box = plot.locator(".nsewdrag").first.bounding_box()
    with tab.page.expect_response(lambda response: "/moments?" in response.url) as answer:
        tab.page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
        tab.page.mouse.down()
        tab.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2, steps=5)
        tab.page.mouse.up()
    assert answer.value.ok
    assert tab.wrong == []


def test_runs_are_compared(opened: Callable[..., Tab]) -> None:
    tab = opened(linked(view="compare"))
    tab.frame.locator("#run").select_option(["narrow", "wide"])
    tab.frame.locator("th[scope=col]", has_text="wide").wait_for()
    headings = tab.frame.locator("th[scope=col]").all_text_contents()
    assert headings[:2] == ["layer", "class"] and sorted(headings[2:]) == ["narrow", "wide"]
    assert tab.wrong == []


@pytest.mark.long
def test_the_address_keeps_what_is_shown(opened: Callable[..., Tab]) -> None:
    tab = opened(whole=True)
    tab.frame.locator("#run").select_option("narrow")
    tab.show("timeline")
    tab.frame.locator("#choice-by").select_option("layer")
    tab.settled()
    link = tab.page.url.partition("#kerasmemwatch")[2]
    again = opened(link, whole=True)
    assert again.frame.locator("#tab-timeline").get_attribute("aria-selected") == "true"
    assert again.frame.locator("#run").input_value() == "narrow"
    assert again.frame.locator("#choice-by").input_value() == "layer"
    assert tab.wrong == again.wrong == []


def test_it_is_used_with_the_keyboard(opened: Callable[..., Tab]) -> None:
    tab = opened()
    tab.frame.locator("#tab-overview").focus()
    for key, view in (("ArrowRight", "peak"), ("ArrowRight", "timeline"), ("End", "compare"), ("Home", "overview")):
        tab.page.keyboard.press(key)
        tab.frame.locator(f"#tab-{view}[aria-selected=true]:focus").wait_for()
    assert all(text for text in tab.frame.locator(".plot").evaluate_all("all => all.map(p => p.ariaLabel)"))
    assert tab.wrong == []


@pytest.mark.long
def test_without_a_recording_it_says_how_to_get_one(
    opened: Callable[..., Tab], tmp_path: Path, screenshots: Path | None
) -> None:
    with tensorboard(tmp_path, tensorflow=False) as address:
        tab = opened(at=address, whole=True)
        assert "MemoryWatch" in tab.frame.locator("main").inner_text()
        if screenshots:
            tab.page.screenshot(path=screenshots / "tab-empty.png")
        assert tab.wrong == []
