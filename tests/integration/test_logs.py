"""Memory in Keras' logs, and on the line that a fit prints for an epoch."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import keras
import pytest

from kerasmemwatch.units import MIB
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

NAMES = ["memory/device_in_use_mib", "memory/device_peak_mib", "memory/host_rss_mib"]


class Loss(keras.callbacks.Callback):
    """Notes the names in an epoch's logs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[set[str]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.names.append(set(logs))


def epoch_lines(text: str) -> list[str]:
    """The last state of each epoch's line of a progress bar."""
    plain = re.sub(r"\x1b\[[0-9;]*m|\x08+", "", text).replace("\r", "\n")
    return [line for line in plain.splitlines() if "loss: " in line]


@pytest.mark.parametrize("validation", [0.0, 0.25])
def test_logs_get_the_epochs_memory(build: Any, tools: Any, tmp_path: Path, validation: float) -> None:
    case, watch, table = build(), MemoryWatch(tmp_path / "logs", add_to_logs=True, strict=True), tmp_path / "log.csv"
    logger = keras.callbacks.CSVLogger(str(table))
    history = case.fit(epochs=3, validation_split=validation, callbacks=[watch, logger]).history
    assert sorted(name for name in history if "memory" in name) == NAMES
    rows = list(csv.DictReader(table.read_text().splitlines()))
    for name in NAMES:
        assert [float(row[name]) for row in rows] == pytest.approx(history[name])
    samples = tools.read_back(watch, tmp_path / "logs").samples
    for epoch in range(3):
        of_epoch = samples["epoch"] == epoch
        peaks = (samples[f"device_{kind}bytes"][of_epoch].max() for kind in ("peak_", "between_peak_"))
        assert history["memory/device_peak_mib"][epoch] == max(peaks) / MIB
        for name in ("device_in_use", "host_rss"):
            assert history[f"memory/{name}_mib"][epoch] == samples[f"{name}_bytes"][of_epoch].flat[-1] / MIB


def test_an_evaluate_has_no_memory_in_its_results(build: Any) -> None:
    case, watch = build(), MemoryWatch(None, add_to_logs=True, strict=True)
    case.fit(callbacks=[watch])
    results = case.model.evaluate(case.x, case.y, verbose=0, return_dict=True, callbacks=[watch])
    assert results.keys() == {"loss"}


def test_callbacks_before_the_watch_see_none(build: Any) -> None:
    case, watch, before, after = build(), MemoryWatch(None, add_to_logs=True, strict=True), Loss(), Loss()
    case.fit(callbacks=[before, watch, after])
    assert before.names == [{"loss"}]
    assert after.names == [{"loss", *NAMES}]


@pytest.mark.parametrize(("position", "verbose"), [("alone", 1), ("before", 2), ("after", 1), ("after", 2)])
def test_the_epochs_line_shows_memory_beside_the_loss(
    build: Any, capsys: pytest.CaptureFixture[str], verbose: int, position: str
) -> None:
    case, watch, other = build(), MemoryWatch(None, strict=True), Loss()
    callbacks = {"alone": [watch], "before": [watch, other], "after": [other, watch]}[position]
    history = case.fit(epochs=2, verbose=verbose, validation_split=0.25, callbacks=callbacks)
    lines = [line for line in epoch_lines(capsys.readouterr().out) if "memory/" in line]
    assert len(lines) == 2
    for line in lines:
        assert [re.search(rf"{name}: \d", line) is not None for name in ("loss", "val_loss", *NAMES)] == [True] * 5
    # Only the line has it.
    assert history.history.keys() == {"loss", "val_loss"}
    assert all(names == {"loss", "val_loss"} for names in other.names)


def test_the_line_shows_the_recorded_peak(build: Any, capsys: pytest.CaptureFixture[str]) -> None:
    case, watch = build(), MemoryWatch(None, strict=True)
    case.fit(verbose=2, callbacks=[watch])
    [line] = [line for line in epoch_lines(capsys.readouterr().out) if "memory/" in line]
    shown = re.search(r"memory/device_peak_mib: ([\d.e+-]+)", line)
    assert shown is not None
    assert float(shown[1]) == pytest.approx((watch.report.peak.bytes or 0) / MIB, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("add_to_logs", [False, True])
def test_each_epoch_of_each_fit_has_one_line(build: Any, capsys: pytest.CaptureFixture[str], add_to_logs: bool) -> None:
    case, watch = build(), MemoryWatch(None, add_to_logs=add_to_logs, strict=True)
    for _ in range(2):
        case.fit(epochs=2, verbose=2, callbacks=[watch])
    lines = epoch_lines(capsys.readouterr().out)
    assert len(lines) == 4
    assert all(line.count("memory/device_peak_mib") == 1 for line in lines)


@pytest.mark.parametrize(("watch_verbose", "fit_verbose"), [(False, 2), (False, 1), (0, 2), ("auto", 0), (True, 0)])
def test_silence(build: Any, capsys: pytest.CaptureFixture[str], watch_verbose: Any, fit_verbose: int) -> None:
    case, watch = build(), MemoryWatch(None, verbose=watch_verbose, strict=True)
    case.fit(verbose=fit_verbose, callbacks=[watch])
    case.model.evaluate(case.x, case.y, verbose=fit_verbose, callbacks=[watch])
    case.model.predict(case.x, verbose=fit_verbose, callbacks=[watch])
    captured = capsys.readouterr()
    assert "memory" not in captured.out
    assert captured.err == ""
    assert bool(captured.out) == bool(fit_verbose)


def test_two_watches_show_one_line(build: Any, capsys: pytest.CaptureFixture[str]) -> None:
    watches = [MemoryWatch(None, strict=True) for _ in range(2)]
    build().fit(verbose=2, callbacks=watches)
    [line] = epoch_lines(capsys.readouterr().out)
    assert line.count("memory/device_peak_mib") == 1
