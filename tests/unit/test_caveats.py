"""What stands next to the figures of a run."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
from runs import run_info, samples, traced_steps

from kerasmemwatch.analysis.caveats import OLDEST, measured
from kerasmemwatch.reports.report import make_report

ROOT = Path(__file__).parents[2]


def notes(**versions: str) -> list[str]:
    return list(measured(make_report(run_info(versions=versions), samples(5), (), traced_steps())))


def test_an_older_version_than_the_tested_ones_is_named_with_the_remedy() -> None:
    [note] = notes(tensorflow="2.9.3", keras="3.15.1")
    assert "tensorflow 2.9.3" in note
    assert note.endswith("pip install --upgrade tensorflow")
    assert len(notes(tensorflow="2.16.0", keras="2.15.0")) == 2


@pytest.mark.parametrize("version", ["2.20.0", "2.21.0-rc0", "2.100.0", "3.0", "unknown", ""])
def test_tested_newer_and_odd_versions_need_no_note(version: str) -> None:
    assert notes(tensorflow=version, keras="3.12") == []


def test_the_oldest_versions_are_those_that_pip_accepts() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    needed = config["options"]["install_requires"] + config["options.extras_require"]["tensorflow"]
    accepted = dict(line.split(">=") for line in needed.split())
    assert {name: accepted[name] for name in OLDEST} == OLDEST
