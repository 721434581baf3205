"""Serves a log directory with a real TensorBoard and asks it for the tab: the page's script, and a view of each run.

For an installation that is not the tree's: ``python tests/served_tab.py LOGDIR``. Imports nothing but the standard
library and what is installed.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

from tabs import tensorboard

import kerasmemwatch

TREE = Path(__file__).resolve().parents[1]


def main(log_dir: Path) -> None:
    """Ask for the tab.

    Args:
        log_dir: Has at least one run with a traced step.
    """
    package = Path(kerasmemwatch.__file__).resolve().parent
    assert package != TREE / "kerasmemwatch", "the tree is served, not the installation"
    with tensorboard(log_dir) as address:

        def ask(route: str) -> bytes:
            with urllib.request.urlopen(f"{address}/{route}", timeout=60) as answer:
                return bytes(answer.read())

        tab = json.loads(ask("data/plugins_listing"))["kerasmemwatch"]
        assert tab["enabled"], tab
        assert ask(tab["loading_mechanism"]["module_path"].lstrip("/")), "the page has no script"
        runs = json.loads(ask("data/plugin/kerasmemwatch/runs"))["runs"]
        assert runs, "no run is listed"
        for run in runs:
            sections = json.loads(ask(f"data/plugin/kerasmemwatch/peak?run={quote(run['name'])}"))["sections"]
            assert [section["kind"] for section in sections] == ["figure", "table"], sections
    print(f"{package} serves {len(runs)} runs")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
