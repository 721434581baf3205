"""Every example in the documentation runs, and gives what it says."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
# Pages of tables and rules alone, without code.
WITHOUT_CODE = {ARCHITECTURE, ROOT / "docs" / "figures.md", ROOT / "docs" / "measurement.md"}
PAGES = sorted({*(ROOT / "docs").rglob("*.md")} - WITHOUT_CODE)


def test_there_are_pages_with_examples() -> None:
    assert PAGES
    for page in PAGES:
        assert doctest.DocTestParser().get_examples(page.read_text()), page


def test_links_between_pages_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            linked = page.parent / target if target else page
            assert linked.exists(), (page, target)
            headings = re.findall(r"(?m)^#+ (.*)$", linked.read_text()) if anchor else []
            anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert not anchor or anchor in anchors, (page, target, anchor)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_of_a_page(run_forked_python: Any, page: Path) -> None:
    # In a process of its own: the first lines choose how TensorFlow counts, before its first operation.
    script = "import doctest, sys; print(doctest.testfile(sys.argv[1], module_relative=False))"
    done = run_forked_python(script, str(page))
    assert "failed=0, attempted=" in done.stdout, done.stdout


def test_the_architecture_names_what_is_there() -> None:
    package = ROOT / "kerasmemwatch"
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py|\.md)?|[a-z_]+\.py)`", ARCHITECTURE.read_text())
    assert len(named) > 30
    parts = {path.relative_to(package).as_posix() for path in package.rglob("*")}
    # Within attribution, storage and reports a path may begin below the package that a sentence is about.
    known = {*parts, *(part.partition("/")[2] for part in parts)}
    missing = [name for name in named if name.rstrip("/") not in known and not (ROOT / name).exists()]
    assert missing == []
