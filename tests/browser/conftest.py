"""A headless Chromium without a network.

Where there is none, these tests fail; leave them out with ``-m "not browser"``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tabs import ReportPage, Shown, Tab

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """Where Chromium is: what the environment variable ``CHROMIUM`` says, or on the path, or Debian's."""
    asked = os.environ.get("CHROMIUM")
    found = asked or shutil.which("chromium") or "/usr/bin/chromium"
    if not os.access(found, os.X_OK):
        pytest.fail(
            f"Expected Chromium, to look at pages with. Received: {found}, which is none. Install it "
            "(`apt-get install chromium`), set CHROMIUM to where it is, or leave these tests out "
            '(`pytest -m "not browser"`).',
            pytrace=False,
        )
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this directory needs a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="session")
def screenshots() -> Path | None:
    """Where pictures are kept, if the environment variable ``SCREENSHOTS`` names a directory."""
    place = os.environ.get("SCREENSHOTS")
    if not place:
        return None
    Path(place).mkdir(parents=True, exist_ok=True)
    return Path(place)


@pytest.fixture(scope="session")
def page(browser: Any) -> Iterator[Any]:
    """A page that tests use one after the other: a new one takes four seconds more. We store nothing in it."""
    context = browser.new_context(accept_downloads=True)
    yield context.new_page()
    context.close()


@pytest.fixture
def shown() -> Iterator[list[Shown]]:
    """What the session's page shows, if anything; it is left after the test."""
    shown: list[Shown] = []
    yield shown
    for each in shown:
        each.leave()


@pytest.fixture
def opened(page: Any, address: str, shown: list[Shown]) -> Callable[..., Tab]:
    """``opened(link)``: the tab of the TensorBoard that the module's ``address`` is of. One is open at a time."""

    def open_tab(link: str = "", *, width: int = 1280, at: str = "", whole: bool = False) -> Tab:
        while shown:
            shown.pop().leave()
        page.set_viewport_size({"width": width, "height": 900})
        tab = Tab(page)
        shown.append(tab)
        return tab.open(at or address, link, whole=whole)

    return open_tab


@pytest.fixture
def offline(page: Any, shown: list[Shown]) -> Iterator[Callable[..., ReportPage]]:
    """``offline(path)``: the report in a file, with the network off."""
    page.context.set_offline(True)

    def open_report(path: Path, *, scheme: str = "light", width: int = 1200) -> ReportPage:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        report = ReportPage(page)
        shown.append(report)
        return report.open(path)

    yield open_report
    page.emulate_media(color_scheme="light")
    page.context.set_offline(False)
