"""The Memory tab in a real TensorBoard, and the HTML report, opened in a browser."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

__all__ = ["VIEWS", "ReportPage", "Shown", "Tab", "linked", "tensorboard"]

# TensorBoard as where there is no TensorFlow, whose import takes seconds: it looks for this module.
_WITHOUT_TENSORFLOW = """
import sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
from tensorboard.main import run_main
run_main()
"""
# What TensorBoard's page has around the tab. Its own scripts take longer to start than the tab's.
_AROUND = """<!doctype html><title>TensorBoard</title><link rel="icon" href="data:,"><body style="margin: 0">
<iframe src="data/plugin_entry.html?name=kerasmemwatch" style="border: 0; width: 100%; height: 100vh"></iframe>"""
VIEWS = ("overview", "peak", "timeline", "layers", "growth", "compare")


@contextmanager
def tensorboard(log_dir: Path, *options: str, tensorflow: bool = True) -> Iterator[str]:
    """A TensorBoard process; its address.

    Args:
        log_dir: What it shows.
        *options: Of its command line.
        tensorflow: Whether it is to find TensorFlow.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = ["-m", "tensorboard.main"] if tensorflow else ["-c", _WITHOUT_TENSORFLOW]
    command = [sys.executable, *run, "--logdir", str(log_dir), "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/data/plugin/kerasmemwatch/runs", timeout=10).close()
                break
            except (urllib.error.URLError, TimeoutError):
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline, "TensorBoard did not answer"
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)


class Shown:
    """What a page shows, with all that went wrong in it, until it is left: the page may be of many tests."""

    def __init__(self, page: Any) -> None:
        self.page, self.wrong = page, list[str]()
        self._listeners = {"console": self._said, "pageerror": self._failed, "dialog": self._asked}
        for event, listener in self._listeners.items():
            page.on(event, listener)

    def leave(self) -> None:
        """Show nothing, and listen no more."""
        self.page.mouse.move(0, 0)  # nothing of the next page is hovered over
        self.page.goto("about:blank")
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)

    def _said(self, message: Any) -> None:
        self.wrong.append(f"{message.type}: {message.text}")

    def _failed(self, error: Any) -> None:
        self.wrong.append(str(error))

    def _asked(self, dialog: Any) -> None:
        self.wrong.append(f"dialog {dialog.message}")
        dialog.dismiss()


class Tab(Shown):
    """The tab in a page."""

    def open(self, address: str, link: str = "", *, whole: bool = False) -> Tab:
        """Open the tab of the TensorBoard at an address: within TensorBoard's whole page, or in a frame alone."""
        if not whole:
            self.page.route(f"{address}/", lambda route: route.fulfill(body=_AROUND, content_type="text/html"))
        self.page.goto(f"{address}/#kerasmemwatch{link}")
        self.page.unroute(f"{address}/")
        self.frame = self.page.frame_locator("iframe")
        self.settled()
        return self

    def _said(self, message: Any) -> None:
        # TensorBoard itself warns of much.
        if message.type == "error":
            self.wrong.append(message.text)

    def settled(self) -> None:
        """Wait until the view is drawn."""
        self.frame.locator("main:not([aria-busy]) h2, main .problem").first.wait_for(timeout=60_000)

    def show(self, view: str) -> None:
        self.frame.locator(f"#tab-{view}").click()
        self.frame.locator(f"#tab-{view}[aria-selected=true]").wait_for()
        self.settled()

    def rows(self) -> list[str]:
        return list(self.frame.locator("tbody th").all_text_contents())


class ReportPage(Shown):
    """The HTML report, which is to say nothing and to ask for nothing."""

    def __init__(self, page: Any) -> None:
        super().__init__(page)
        self._listeners["request"] = self._requested
        page.on("request", self._requested)

    def open(self, path: Path) -> ReportPage:
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn]", timeout=60_000)
        return self

    def _requested(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.wrong.append(f"request of {request.url}")

    @property
    def rows(self) -> list[str]:
        """The layers of the table, as they are shown."""
        return list(self.page.locator("tbody tr:not([hidden]) th").all_text_contents())


def linked(**values: str | list[str]) -> str:
    """The part of the address that says what is shown."""
    return f"&memory={quote(urlencode(values, doseq=True), safe='')}"
