"""Counters of what holds memory; without TensorFlow, only Python's own are known."""

from __future__ import annotations

import gc
import math
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kerasmemwatch.compat.tensorflow import FUNCTION_REFS, PY_FUNCTIONS, REGISTERED_GRADIENTS
from kerasmemwatch.probes import counters
from kerasmemwatch.probes.base import Probe
from kerasmemwatch.probes.counters import CounterProbe
from kerasmemwatch.records.rows import COUNTERS


def read(probe: Probe) -> dict[str, float]:
    return dict(zip((column.name for column in probe.columns), probe.batch_end(), strict=True))


def slow(probe: Probe) -> dict[str, float]:
    return dict(zip((column.name for column in probe.slow_columns), probe.epoch_end(), strict=True))


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {"functions": {}, "gradients": {}, "python": []}
    monkeypatch.setattr(FUNCTION_REFS, "if_loaded", lambda: found["functions"])
    monkeypatch.setattr(REGISTERED_GRADIENTS, "if_loaded", lambda: found["gradients"])
    monkeypatch.setattr(PY_FUNCTIONS, "if_loaded", lambda: SimpleNamespace(size=lambda: len(found["python"])))
    return found


def test_what_is_registered_is_counted_as_it_comes_and_goes(registries: dict[str, Any]) -> None:
    probe = CounterProbe()
    probe.open()
    registries["functions"].update(a=1, b=2)
    registries["gradients"]["CustomGradient-1"] = {}
    registries["python"].append("token")
    found = read(probe)
    assert (found["live_functions"], found["registered_gradients"], found["py_functions"]) == (2, 1, 1)
    registries["functions"].clear()
    assert read(probe)["live_functions"] == 0


def test_full_collections_are_those_of_the_oldest_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = CounterProbe()
    assert read(probe)["gc_full_collections"] > 0 or not gc.get_stats()[2]["collections"]
    monkeypatch.setattr(gc, "get_stats", lambda: [{}, {}, {"collections": 7}])
    probe.open()
    assert read(probe)["gc_full_collections"] == 7


def test_what_is_not_loaded_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (FUNCTION_REFS, REGISTERED_GRADIENTS, PY_FUNCTIONS):
        monkeypatch.setattr(name, "if_loaded", lambda: None)
    probe = CounterProbe()
    probe.open()
    found = read(probe)
    assert not math.isnan(found.pop("gc_full_collections"))
    assert all(map(math.isnan, found.values())) and len(found) == len(COUNTERS) - 1


def test_threads_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr(counters, "_TASKS", str(tmp_path))
    assert slow(CounterProbe())["threads"] == 3


def test_without_procfs_threads_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_TASKS", "/nowhere")
    found = slow(CounterProbe())
    assert math.isnan(found["threads"]) and found["python_blocks"] > 0


def test_blocks_of_python_are_counted() -> None:
    probe = CounterProbe()
    before = slow(probe)["python_blocks"]
    kept = [object() for _ in range(100_000)]
    assert slow(probe)["python_blocks"] - before > 50_000
    del kept


def test_a_closed_probe_keeps_no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    class Registry(dict):  # type: ignore[type-arg]
        pass

    with monkeypatch.context() as patch:
        registry = Registry()
        patch.setattr(FUNCTION_REFS, "if_loaded", lambda registry=registry: registry)
        reference = weakref.ref(registry)
        probe = CounterProbe()
        probe.open()
    assert read(probe)["live_functions"] == 0
    del registry, patch
    probe.close()
    gc.collect()
    assert reference() is None
    assert all(map(math.isnan, probe.batch_end()))
