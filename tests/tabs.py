"""The Memory tab in a real TensorBoard, opened in a browser."""

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

__all__ = ["VIEWS", "Tab", "linked", "tensorboard"]

# TensorBoard as where there is no TensorFlow, whose import takes seconds: it looks for this module.
_WITHOUT_TENSORFLOW = """
import sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
from tensorboard.main import run_main
run_main()
"""
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


class Tab:
    """The tab in a page, with all that went wrong in it."""

    def __init__(self, page: Any, address: str, link: str = "") -> None:
        self.page, self.wrong = page, list[str]()
        page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.goto(f"{address}/#kerasmemwatch{link}")
        self.frame = page.frame_locator("iframe")
        self.settled()

    def settled(self) -> None:
        """Wait until the view is drawn."""
        self.frame.locator("main:not([aria-busy]) h2, main .problem").first.wait_for(timeout=60_000)

    def show(self, view: str) -> None:
        self.frame.locator(f"#tab-{view}").click()
        self.frame.locator(f"#tab-{view}[aria-selected=true]").wait_for()
        self.settled()

    def rows(self) -> list[str]:
        return list(self.frame.locator("tbody th").all_text_contents())


def linked(**values: str | list[str]) -> str:
    """The part of the address that says what is shown."""
    return f"&memory={quote(urlencode(values, doseq=True), safe='')}"
