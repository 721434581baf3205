"""Watches that are kept after their fits hold no file, and their runs stay theirs until somebody continues them."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from leftovers import changed, functions

from kerasmemwatch.recording import load, runs
from kerasmemwatch.storage.run_store import open_store
from kerasmemwatch.watch.memory_watch import MemoryWatch

KEPT, BATCHES = 50, 3
X, Y = np.ones((BATCHES * 8, 4), np.float32), np.ones((BATCHES * 8, 1), np.float32)

on_linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are not listed here")


@pytest.fixture
def model() -> Any:
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def fit(model: Any, watch: MemoryWatch) -> None:
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[watch])


def open_in(folder: Path) -> list[str]:
    """What this process has open in a folder."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue  # the listing's own
    return [path for path in found if path.startswith(str(folder))]


@pytest.mark.long
@on_linux
def test_kept_watches_hold_no_descriptor(model: Any, tmp_path: Path) -> None:
    watches = [MemoryWatch(tmp_path, run_name=f"run-{number}", trace=False, strict=True) for number in range(KEPT)]
    for watch in watches:
        fit(model, watch)
    assert open_in(tmp_path) == []
    # Each goes on with its run, in the same files.
    files = sorted(path.name for path in (tmp_path / "run-0").iterdir())
    for watch in watches[:3]:
        fit(model, watch)
    assert open_in(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "run-0").iterdir()) == files
    assert len(runs(tmp_path)) == KEPT
    for name, count in (("run-0", 2), ("run-9", 1)):
        assert load(tmp_path, name).samples["step"].tolist() == list(range(1, count * BATCHES + 1))


def test_a_run_is_locked_as_long_as_a_fit_records_it(model: Any, tools: Any, tmp_path: Path) -> None:
    taken = []

    def resume(batch: int) -> None:
        other = open_store(str(tmp_path), "mine", created=1.0, resume=True)
        taken.append(other.name)
        other.unlock()

    watch = MemoryWatch(tmp_path, run_name="mine", trace=False, strict=True)
    for _ in range(2):
        asking = tools.callback(on_train_batch_end=lambda batch: batch == 1 and resume(batch))
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[watch, asking])
    assert taken == ["mine-2", "mine-3"]


@pytest.mark.parametrize("still", [True, False], ids=["others record it", "others have recorded it"])
def test_a_run_that_others_continued_meanwhile_is_left_to_them(
    model: Any, tmp_path: Path, still: bool, our_log: Any
) -> None:
    watch = MemoryWatch(tmp_path, run_name="mine", trace=False)
    fit(model, watch)
    before = load(tmp_path, "mine").samples["step"].tolist()
    other = open_store(str(tmp_path), "mine", created=1.0, resume=True)
    assert other.name == "mine"
    if not still:
        (tmp_path / "mine" / "events.out.tfevents.2.kerasmemwatch").touch()
        other.unlock()
    fit(model, watch)
    other.unlock()
    assert watch.recording.run.name == "mine-2"
    assert load(tmp_path, "mine").samples["step"].tolist() == before
    assert load(tmp_path, "mine-2").samples["step"].tolist() == list(range(1, BATCHES + 1))
    assert any("another process has continued the run 'mine'" in record.getMessage() for record in our_log())


@pytest.mark.parametrize("hook", ["", "on_train_batch_end", "on_epoch_end"])
def test_kept_watches_leave_no_hook(model: Any, hook: str) -> None:
    class Raising(keras.callbacks.Callback):
        def fail(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("of the user's")

    if hook:
        setattr(Raising, hook, Raising.fail)

    model.fit(X, Y, batch_size=8, verbose=0, validation_data=(X, Y))  # which loads and makes what it needs
    kept, before = [MemoryWatch(None, trace=False, strict=True) for _ in range(2)], functions()
    for watch in (*kept, *kept):
        try:
            model.fit(X, Y, batch_size=8, verbose=0, validation_data=(X, Y), callbacks=[watch, Raising()])
        except RuntimeError:
            assert hook
        gc.collect()  # the fit's list of callbacks, which goes after an exception that Keras tells nobody
        assert changed(before) == []
    assert all(watch.recording.samples.num_samples for watch in kept)


def test_what_is_made_after_a_validation_counts(model: Any) -> None:
    class Validated(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            hooked.append(changed(before))

    model.fit(X, Y, batch_size=8, verbose=0, validation_data=(X, Y))
    hooked: list[Any] = []
    watch, before = MemoryWatch(None, trace=False, strict=True), functions()
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, validation_data=(X, Y), callbacks=[watch, Validated()])
    assert [any(place[2] == "" and place[1] == "internal_operation_seed" for place in each) for each in hooked] == [
        True
    ] * 2
    assert changed(before) == []
