"""A recording that an older version wrote, kept as a file, still loads and says what it said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from runs import MIB, traced_steps
from timelines import assert_same_step

from kerasmemwatch.cli import main
from kerasmemwatch.recording import load

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A run of formats of version 1, as ``test_golden_routes`` writes its second one."""
    run = tmp_path / "second"
    run.mkdir()
    shutil.copy(DATA / "run-of-version-1.tfevents", run / "events.out.tfevents.1.host.1.kerasmemwatch")
    return tmp_path


def test_version_1_loads(logs: Path) -> None:
    recording = load(logs)
    assert recording.run.notes == () and recording.samples.num_samples == 12
    for found, expected in zip(recording.steps, traced_steps(with_inference=False), strict=True):
        assert_same_step(found, expected)
    report = recording.report
    assert (report.peak.bytes, report.peak.device) == (160 * MIB + 256 * 5, "GPU:0")
    assert report.devices == ("GPU:0",) and report.traced is not None and report.traced.step == 10


def test_version_1_has_one_device_to_show(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(logs), "--device", "GPU:0"]) == 0
    assert "At the traced peak" in capsys.readouterr().out
    assert main(["show", str(logs), "--device", "CPU:0"]) == 2
    assert "one of 'GPU:0'. Received: device='CPU:0'" in capsys.readouterr().err
