"""``KERASMEMWATCH_DISABLE`` turns every watch into a no-op."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kerasmemwatch.recording import load, runs
from kerasmemwatch.watch.memory_budget import MemoryBudget
from kerasmemwatch.watch.memory_watch import MemoryWatch


@pytest.mark.parametrize("value", ["1", "true"])
def test_nothing_is_recorded_or_written(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    plain = build()
    expected = plain.fit(epochs=2, validation_split=0.25).history
    monkeypatch.setenv("KERASMEMWATCH_DISABLE", value)
    logs = tmp_path / "logs"
    case, watch = build(), MemoryWatch(logs, add_to_logs=True, verbose=True, strict=True)
    budget = MemoryBudget(host=1, action="raise")
    history = case.fit(epochs=2, validation_split=0.25, callbacks=[watch, budget]).history
    assert history == expected
    case.model.evaluate(case.x, case.y, verbose=0, callbacks=[watch])
    case.model.predict(case.x, verbose=0, callbacks=[watch])
    with watch.batch(case.model):
        case.model.train_on_batch(case.x[:8], case.y[:8])
    assert not watch.active
    assert watch.recording.samples.num_samples == 0
    assert str(watch.report)
    assert budget.reason is None
    assert not logs.exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", ["", "0"])
def test_not_disabled(build: Any, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("KERASMEMWATCH_DISABLE", value)
    watch = MemoryWatch(None, strict=True)
    build().fit(callbacks=[watch])
    assert watch.recording.samples.num_samples == 8


def test_a_watch_is_disabled_and_enabled_between_fits(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, our_log: Any
) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.fit(callbacks=[watch])
    monkeypatch.setenv("KERASMEMWATCH_DISABLE", "1")
    case.fit(callbacks=[watch])
    assert watch.recording.samples.num_samples == 8
    first = watch.recording.run.name
    monkeypatch.delenv("KERASMEMWATCH_DISABLE")
    case.fit(epochs=2, callbacks=[watch])
    assert watch.recording.samples.num_samples == 16
    assert len(runs(tmp_path)) == 2
    assert load(tmp_path, first).samples.num_samples == 8
    assert not our_log()
