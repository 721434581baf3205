"""What an ordinary installation brings: all of the package, whether from the tree or from the sdist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def files(top: Path) -> set[str]:
    """Every file of a folder, without what Python compiles."""
    found = (path.relative_to(top) for path in top.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy to build from: setuptools adds to the tree, and what an earlier build left there hides what is missing."""
    copy = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "kerasmemwatch", copy / "kerasmemwatch", ignore=ignored)
    for name in ("setup.py", "setup.cfg", "README.md", "LICENSE", "kerasmemwatch_pytest.py"):
        shutil.copy(ROOT / name, copy)
    return copy


def setup(tree: Path, *commands: str) -> None:
    done = subprocess.run([sys.executable, "setup.py", "-q", *commands], cwd=tree, capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_an_installation_has_every_file_of_the_package(tree: Path, tmp_path: Path) -> None:
    setup(tree, "build_py", "--build-lib", str(tmp_path / "built"))
    assert files(tmp_path / "built" / "kerasmemwatch") == files(ROOT / "kerasmemwatch")
    assert (tmp_path / "built" / "kerasmemwatch_pytest.py").exists()


def test_the_sdist_has_every_file_of_the_package(tree: Path, tmp_path: Path) -> None:
    setup(tree, "sdist", "--dist-dir", str(tmp_path))
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        parts = [member.name.split("/", 2) for member in sdist if member.isfile()]
    assert {rest[0] for _, top, *rest in parts if top == "kerasmemwatch"} == files(ROOT / "kerasmemwatch")


def test_the_changelog_has_a_standing_section_of_what_is_unreleased() -> None:
    headings = re.findall(r"^(##+) (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [title for level, title in headings if level == "##"]
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {title for level, title in headings if level != "##"} <= known
    for version in "\n".join(" ".join(heading) for heading in headings).split("## ["):
        parts = re.findall("^### (.+)$", version, re.MULTILINE)
        assert len(parts) == len(set(parts)), version
