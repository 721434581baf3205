"""A fit that is one of several workers', and replicas that share an allocator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kerasmemwatch.recording import load, runs
from kerasmemwatch.watch.memory_watch import MemoryWatch


def as_worker(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    """Say to what reads ``TF_CONFIG`` from now on that this process is one of two workers."""
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    described = {"cluster": cluster, "task": {"type": "worker", "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(described))


def test_a_resumed_worker_continues_its_own_run(
    build: Any, tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = build()
    for epochs, begun in ((2, 0), (3, 2)):
        for index in (0, 1):
            as_worker(monkeypatch, index)
            watch = MemoryWatch(tmp_path, run_name="mine", strict=True)
            case.fit(epochs=epochs, initial_epoch=begun, callbacks=[watch])
            stored = tools.read_back(watch, tmp_path, f"mine-worker-{index}")
            assert stored.run.worker is not None and stored.run.worker.index == index
            assert stored.samples["train_step"].tolist() == list(range(1, 8 * epochs + 1))
    assert sorted(runs(tmp_path)) == ["mine-worker-0", "mine-worker-1"]
    # The first to begin again began while the other had yet to: they are of one training.
    recording = load(tmp_path)
    assert recording.run.name == "mine" and recording.samples["train_step"].tolist() == list(range(1, 25))


@pytest.mark.long
def test_a_backup_finds_its_own_workers_run(run_forked_python: Any, tmp_path: Path) -> None:
    script = """
        import keras, numpy as np, sys
        from kerasmemwatch import MemoryWatch

        class Fail(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if int(self.model.optimizer.iterations) == int(sys.argv[2]):
                    raise ValueError("on purpose")

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
        watch = MemoryWatch("logs", run_name="mine", strict=True)
        backup = keras.callbacks.BackupAndRestore("backup" + sys.argv[1])
        x, y = np.ones((64, 4), "float32"), np.ones((64, 1), "float32")
        try:
            model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[watch, backup, Fail()])
        except ValueError:
            pass
        """
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    for fail_at in ("11", "-1"):
        for index in (0, 1):
            described = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
            run_forked_python(script, str(index), fail_at, TF_CONFIG=described)
    assert sorted(runs(tmp_path / "logs")) == ["mine-worker-0", "mine-worker-1"]
    for index in (0, 1):
        # Epoch 1 is trained again: 11 batches, and then 16.
        assert load(tmp_path / "logs", f"mine-worker-{index}").samples["step"].tolist() == list(range(1, 28))


def test_an_unnamed_worker_is_told_by_its_name(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_worker(monkeypatch, 1)
    watch = MemoryWatch(tmp_path, strict=True)
    build().fit(callbacks=[watch])
    [name] = runs(tmp_path)
    assert name.startswith("memwatch-") and name.endswith("-worker-1")
    assert watch.recording.run.name == name and watch.recording.workers == ()
    assert "1 of 2 workers left no recording of this training here" in load(tmp_path).run.notes[-1]


def test_without_a_cluster_there_is_no_worker(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "{")
    watch = MemoryWatch(tmp_path, run_name="mine", strict=True)
    build().fit(callbacks=[watch])
    assert runs(tmp_path) == ["mine"] and load(tmp_path).run.worker is None


@pytest.mark.long
def test_replicas_that_share_an_allocator_are_told(run_forked_python: Any) -> None:
    run_forked_python(
        """
        import keras, numpy as np, tensorflow as tf
        from kerasmemwatch import MemoryWatch, load

        cpus = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
        watch = MemoryWatch("logs", strict=True)
        model.fit(np.ones((32, 4)), np.ones((32, 1)), batch_size=8, verbose=0, callbacks=[watch])
        note = "CPU:0 and CPU:1 share one allocator; the column of CPU:0 counts all replicas."
        assert note in load("logs").run.notes, load("logs").run.notes
        # It is reported once: each layer with the variables of both replicas.
        [step, *_] = load("logs").steps
        assert list(step.timelines) == ["CPU:0"], step.timelines
        report = load("logs").report
        assert report.devices == ("CPU:0",) and report.traced.device == report.peak.device == "CPU:0"
        held = {row.path: row.weights_bytes for row in report.peak.by_layer}
        assert held["dense"] == 2 * 4 * (4 * 16 + 16), held
        """
    )


def test_one_cpu_shares_with_nobody(build: Any) -> None:
    watch = MemoryWatch(None, strict=True)
    build().fit(callbacks=[watch])
    assert not [note for note in watch.recording.run.notes if "share one allocator" in note]
