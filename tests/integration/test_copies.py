"""Copies of a watch, of a budget and of a model that has been watched."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.recording import runs
from kerasmemwatch.watch.memory_budget import MemoryBudget
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")


def by_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


WAYS = pytest.mark.parametrize("duplicate", [by_pickle, copy.deepcopy, copy.copy])


@WAYS
def test_before_a_fit(build: Any, tools: Any, tmp_path: Path, duplicate: Callable[[Any], Any]) -> None:
    watch = MemoryWatch(tmp_path, run_name="mine", tags=["a"], sample_every=2, add_to_logs=True, strict=True)
    copied = duplicate(watch)
    assert copied.recording.samples.num_samples == 0
    history = build().fit(callbacks=[copied]).history
    assert "memory/device_peak_mib" in history
    recording = tools.read_back(copied, tmp_path)
    assert (recording.run.name, recording.run.tags) == ("mine", ("a",))
    assert recording.samples["step"].tolist() == [1, 3, 5, 7, 8]
    assert watch.recording.samples.num_samples == 0


@WAYS
def test_during_a_fit(build: Any, tools: Any, tmp_path: Path, duplicate: Callable[[Any], Any]) -> None:
    copies = []

    def at(batch: int) -> None:
        if batch == 3:
            copies.append(duplicate(watch))

    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.fit(callbacks=[watch, tools.callback(on_train_batch_end=at)])
    [copied] = copies
    assert not copied.active
    assert copied.recording.samples["step"].tolist() == [1, 2, 3, 4]
    assert tools.read_back(watch, tmp_path).samples["step"].tolist() == list(range(1, 9))


@WAYS
def test_after_a_fit(build: Any, tools: Any, tmp_path: Path, duplicate: Callable[[Any], Any]) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.fit(callbacks=[watch])
    copied = duplicate(watch)
    before = watch.recording
    assert copied.recording.run == before.run
    assert copied.recording.layers == before.layers
    for name, values in before.samples.items():
        np.testing.assert_array_equal(copied.recording.samples[name], values)
    assert str(copied.report) == str(watch.report)
    # What the copy records is a run of its own.
    case.fit(epochs=2, callbacks=[copied])
    case.fit(callbacks=[watch])
    assert len(runs(tmp_path)) == 2
    own = tools.read_back(copied, tmp_path, copied.recording.run.name)
    assert own.samples["step"].tolist() == list(range(1, 17))
    assert own.report.weights_bytes == before.report.weights_bytes
    kept = tools.read_back(watch, tmp_path, before.run.name)
    assert kept.samples["step"].tolist() == list(range(1, 17))
    np.testing.assert_array_equal(kept.samples["time_s"][:8], before.samples["time_s"])


def test_a_pickle_holds_no_model(build: Any) -> None:
    case, watch = build(), MemoryWatch(None, strict=True)
    case.fit(callbacks=[watch])
    assert len(pickle.dumps(watch)) < 50_000
    assert by_pickle(watch).model is None


def test_a_clone_of_the_model(build: Any, tools: Any, tmp_path: Path) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.fit(callbacks=[watch])
    clone = keras.models.clone_model(case.model)
    clone.compile("adam", "mse", jit_compile=False)
    clone.fit(case.x, case.y, batch_size=8, verbose=0, callbacks=[watch])
    recording = tools.read_back(watch, tmp_path)
    assert recording.samples["train_step"].tolist() == list(range(1, 17))
    both = sum(variable.numpy().nbytes for model in (case.model, clone) for variable in model.weights)
    assert recording.report.weights_bytes == both


@WAYS
def test_a_budget(build: Any, tools: Any, duplicate: Callable[[Any], Any]) -> None:
    copies = []

    def at(batch: int) -> None:
        if batch == 3:
            copies.append(duplicate(budget))

    case, budget = build(), MemoryBudget(device="1 TiB", host=1, action="warn")
    copies.append(duplicate(budget))
    case.fit(callbacks=[budget, tools.callback(on_train_batch_end=at)])
    copies.append(duplicate(budget))
    assert budget.reason is not None
    for copied in copies:
        assert (copied.device, copied.host, copied.action) == ("1 TiB", 1, "warn")
        copied.reason = None
        case.fit(callbacks=[copied])
        assert copied.reason is not None
