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
from tabs import Tab

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
def context(browser: Any) -> Iterator[Any]:
    """For every page of the tab: they share TensorBoard's scripts, whose reading takes seconds. We store nothing."""
    context = browser.new_context(accept_downloads=True)
    yield context
    context.close()


@pytest.fixture
def opened(context: Any, address: str) -> Iterator[Callable[..., Tab]]:
    """``opened(link)``: the tab of the TensorBoard that the module's ``address`` is of, in a page of its own."""
    pages = []

    def open_tab(link: str = "", *, width: int = 1280, at: str = "") -> Tab:
        page = context.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": 900})
        return Tab(page, at or address, link)

    yield open_tab
    for page in pages:
        page.close()
