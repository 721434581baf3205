"""A run that is interrupted and continued is one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.recording import load, runs
from kerasmemwatch.watch.memory_watch import MemoryWatch

SCRIPT = """
import json, sys
import keras, numpy as np
from kerasmemwatch import MemoryWatch

fail_at = int(sys.argv[1])

class Fail(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == fail_at:
            raise ValueError("on purpose")

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
watch = MemoryWatch("logs", run_name="mine", strict=True)
backup = keras.callbacks.BackupAndRestore("backup")
x, y = np.ones((64, 4), "float32"), np.ones((64, 1), "float32")
try:
    model.fit(x, y, batch_size=8, epochs=4, verbose=0, callbacks=[watch, backup, Fail()])
except ValueError:
    pass
samples = watch.recording.samples
print(json.dumps([watch.recording.run.name, samples["step"].tolist(), int(model.optimizer.iterations)]))
"""


@pytest.fixture
def interrupt(tools: Any) -> Any:
    """``interrupt(case, watch, tmp_path, batch=..., epochs=...)``: fit with a backup until an exception in epoch 2."""

    def interrupt(case: Any, watch: MemoryWatch, folder: Path, **options: Any) -> None:
        def fail(batch: int) -> None:
            if int(case.model.optimizer.iterations) == 19:
                raise ValueError("on purpose")

        backup = keras.callbacks.BackupAndRestore(str(folder / "backup"))
        with pytest.raises(ValueError, match="on purpose"):
            case.fit(epochs=4, callbacks=[watch, backup, tools.callback(on_train_batch_end=fail)], **options)

    return interrupt


def test_another_process_continues_the_run(run_forked_python: Any, tmp_path: Path) -> None:
    assert json.loads(run_forked_python(SCRIPT, "19").stdout) == ["mine", list(range(1, 20)), 19]
    interrupted = load(tmp_path / "logs")
    assert interrupted.samples["step"].tolist() == list(range(1, 20))
    # Epochs 0 and 1 are in the backup: epoch 2 is trained again, and its batches are new rows.
    assert json.loads(run_forked_python(SCRIPT, "-1").stdout) == ["mine", list(range(1, 36)), 32]
    assert runs(tmp_path / "logs") == ["mine"]
    whole = load(tmp_path / "logs")
    samples = whole.samples
    assert samples["step"].tolist() == list(range(1, 36))
    assert samples["train_step"].tolist() == list(range(1, 36))
    assert samples["epoch"].tolist() == [0.0] * 8 + [1.0] * 8 + [2.0] * 3 + [2.0] * 8 + [3.0] * 8
    assert (np.diff(samples["time_s"]) >= 0).all()
    for name, values in interrupted.samples.items():
        np.testing.assert_array_equal(samples[name][:19], values)
    assert whole.run.created == interrupted.run.created
    assert not [note for note in whole.run.notes if "cannot be read" in note]


@pytest.mark.parametrize("watch_first", [True, False])
def test_a_new_watch_in_the_same_process_continues_the_run(
    build: Any, tools: Any, interrupt: Any, tmp_path: Path, watch_first: bool
) -> None:
    old = MemoryWatch(tmp_path / "logs", run_name="mine", strict=True)
    interrupt(build(), old, tmp_path)
    first = load(tmp_path / "logs")
    assert first.samples["step"].tolist() == list(range(1, 20))
    case, new = build(), MemoryWatch(tmp_path / "logs", run_name="mine", strict=True)
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    case.fit(epochs=4, callbacks=[new, backup] if watch_first else [backup, new])
    assert runs(tmp_path / "logs") == ["mine"]
    whole = tools.read_back(new, tmp_path / "logs")
    assert whole.samples["step"].tolist() == list(range(1, 36))
    assert whole.samples["epoch"].tolist() == [0.0] * 8 + [1.0] * 8 + [2.0] * 11 + [3.0] * 8
    for name, values in first.samples.items():
        np.testing.assert_array_equal(whole.samples[name][:19], values)
    # The old watch still has what it recorded, and ends without harm to the run that is no longer its own.
    assert old.recording.samples["step"].tolist() == list(range(1, 20))
    case.fit(epochs=3, callbacks=[new])  # the model still begins at the epoch that was restored
    del old
    assert tools.read_back(new, tmp_path / "logs").samples["step"].tolist() == list(range(1, 44))


def test_the_old_watch_records_a_run_of_its_own_once_another_continued_it(
    build: Any, tools: Any, interrupt: Any, tmp_path: Path
) -> None:
    old, new = (MemoryWatch(tmp_path / "logs", run_name="mine", strict=True) for _ in range(2))
    interrupt(build(), old, tmp_path)
    build().fit(epochs=4, callbacks=[new, keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))])
    build().fit(callbacks=[old])
    assert sorted(runs(tmp_path / "logs")) == ["mine", "mine-2"]
    assert tools.read_back(old, tmp_path / "logs", "mine-2").samples["step"].tolist() == list(range(1, 9))
    assert tools.read_back(new, tmp_path / "logs", "mine").samples["step"].tolist() == list(range(1, 36))


def test_of_two_watches_that_both_continue_one_run_the_first_says_that_it_does_not(
    build: Any, tools: Any, tmp_path: Path, our_log: Any
) -> None:
    case = build()
    case.fit(epochs=2, callbacks=[MemoryWatch(tmp_path, run_name="mine", strict=True)])
    first, second = MemoryWatch(tmp_path, run_name="mine"), MemoryWatch(tmp_path, run_name="mine", strict=True)
    case.fit(epochs=3, initial_epoch=2, callbacks=[first, second])
    [record] = our_log()
    assert "another watch continues the run 'mine'" in record.getMessage()
    samples = tools.read_back(second, tmp_path).samples
    assert (np.diff(samples["step"]) > 0).all()
    assert samples["epoch"].tolist() == [0.0] * 8 + [1.0] * 8 + [2.0] * 9  # the first watch recorded one batch
    assert runs(tmp_path) == ["mine"]


def test_the_same_watch_continues_its_recording(build: Any, tools: Any, interrupt: Any, tmp_path: Path) -> None:
    watch = MemoryWatch(tmp_path / "logs", run_name="mine", strict=True)
    interrupt(build(), watch, tmp_path)
    case = build()
    case.fit(epochs=4, callbacks=[watch, keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))])
    assert tools.read_back(watch, tmp_path / "logs").samples["train_step"].tolist() == list(range(1, 36))
    assert runs(tmp_path / "logs") == ["mine"]


def test_a_later_initial_epoch_continues_the_run(build: Any, tools: Any, tmp_path: Path) -> None:
    case = build()
    case.fit(epochs=2, callbacks=[MemoryWatch(tmp_path, run_name="mine", strict=True)])
    watch = MemoryWatch(tmp_path, run_name="mine", strict=True)
    case.fit(epochs=3, initial_epoch=2, callbacks=[watch])
    assert runs(tmp_path) == ["mine"]
    samples = tools.read_back(watch, tmp_path).samples
    assert samples["train_step"].tolist() == list(range(1, 25))
    assert samples["epoch"].tolist() == [0.0] * 8 + [1.0] * 8 + [2.0] * 8


def test_a_name_that_is_taken_gets_a_number(build: Any, tools: Any, tmp_path: Path) -> None:
    case = build()
    watches = [MemoryWatch(tmp_path, run_name="mine", strict=True) for _ in range(3)]
    for watch in watches:
        case.fit(epochs=2, callbacks=[watch])
    assert runs(tmp_path) == ["mine", "mine-2", "mine-3"]
    for watch, name in zip(watches, ["mine", "mine-2", "mine-3"], strict=True):
        recording = tools.read_back(watch, tmp_path, name)
        assert recording.run.name == name
        assert recording.samples["step"].tolist() == list(range(1, 17))


def test_a_backup_without_a_name_is_a_run_of_its_own(build: Any, interrupt: Any, tmp_path: Path) -> None:
    interrupt(build(), MemoryWatch(tmp_path / "logs", strict=True), tmp_path)
    watch = MemoryWatch(tmp_path / "logs", strict=True)
    build().fit(epochs=4, callbacks=[watch, keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))])
    assert len(runs(tmp_path / "logs")) == 2
    assert watch.recording.samples["step"].tolist() == list(range(1, 17))


def test_nothing_to_continue(build: Any, tools: Any, tmp_path: Path) -> None:
    watch = MemoryWatch(tmp_path / "logs", run_name="mine", strict=True)
    build().fit(callbacks=[watch, keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))])
    assert tools.read_back(watch, tmp_path / "logs", "mine").samples["step"].tolist() == list(range(1, 9))
