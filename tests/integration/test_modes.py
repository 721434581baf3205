"""Every way Keras has of running batches, as rows of one recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.probes.host import HostProbe
from kerasmemwatch.recording import runs
from kerasmemwatch.sampling.cost_share import CostShare
from kerasmemwatch.units import MIB
from kerasmemwatch.watch import factory
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

DEVICE_COLUMNS = ("device_in_use_bytes", "device_peak_bytes", "device_between_peak_bytes")


def check_rows(samples: Any) -> None:
    """What holds for the rows of any recording with exact counting."""
    assert (np.diff(samples["step"]) > 0).all()
    assert (np.diff(samples["train_step"]) >= 0).all()
    assert (np.diff(samples["time_s"]) >= 0).all()
    trained = samples["stage"] == "train"
    assert (samples["train_step"] <= samples["step"]).all()
    assert (np.diff(samples["train_step"])[~trained[1:]] == 0).all()
    for name in (*DEVICE_COLUMNS, "host_rss_bytes"):
        assert samples[name].dtype == np.int64, name
        assert (samples[name] > 0).all(), name
    assert (samples["device_peak_bytes"] >= samples["device_in_use_bytes"]).all()


def stages(samples: Any) -> list[tuple[str, int]]:
    """The stages in order, with how many rows each lasts."""
    found: list[tuple[str, int]] = []
    for stage in samples["stage"].tolist():
        count = found.pop()[1] if found and found[-1][0] == stage else 0
        found.append((stage, count + 1))
    return found


def test_stages_are_told_apart(build: Any, tools: Any, tmp_path: Path) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.fit(validation_data=(case.x[:16], case.y[:16]), epochs=2, callbacks=[watch])
    case.model.evaluate(case.x[:24], case.y[:24], batch_size=8, verbose=0, callbacks=[watch])
    case.model.predict(case.x[:40], batch_size=8, verbose=0, callbacks=[watch])
    case.fit(validation_split=0.25, callbacks=[watch])
    samples = tools.read_back(watch, tmp_path).samples
    check_rows(samples)
    assert stages(samples) == [
        ("train", 8),
        ("test", 2),
        ("train", 8),
        ("test", 5),  # the second epoch's validation, then evaluate
        ("predict", 5),
        ("train", 6),
        ("test", 2),
    ]
    assert samples["step"].tolist() == list(range(1, 37))
    trained = samples["stage"] == "train"
    assert samples["train_step"][trained].tolist() == list(range(1, 23))
    assert samples["epoch"][trained].tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 6
    # A validation belongs to its epoch; evaluate and predict to none.
    assert samples["epoch"][8:10].tolist() == [0.0, 0.0]
    assert np.isnan(samples["epoch"][20:28]).all()
    assert samples["epoch"].dtype == np.float64


def test_training_continues_after_a_validation(build: Any) -> None:
    case, watch = build(), MemoryWatch(None, strict=True)
    validate = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batch == 3 and case.model.evaluate(case.x, case.y, verbose=0)
    )
    case.fit(callbacks=[watch, validate])
    assert stages(watch.recording.samples) == [("train", 8)]


def test_an_evaluate_within_a_fit_is_recorded_by_the_same_watch(build: Any, tools: Any, tmp_path: Path) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)

    def evaluate(batch: int) -> None:
        if batch == 3:
            case.model.evaluate(case.x[:16], case.y[:16], batch_size=8, verbose=0, callbacks=[watch])

    case.fit(epochs=2, callbacks=[watch, tools.callback(on_train_batch_end=evaluate)])
    samples = tools.read_back(watch, tmp_path).samples
    check_rows(samples)
    assert stages(samples) == [("train", 4), ("test", 2), ("train", 8), ("test", 2), ("train", 4)]
    assert samples["train_step"].tolist() == [1, 2, 3, 4, 4, 4, *range(5, 13), 12, 12, *range(13, 17)]
    assert samples["epoch"][samples["stage"] == "train"].tolist() == [0.0] * 8 + [1.0] * 8


@pytest.mark.parametrize(
    ("hook", "epochs"),
    [("on_train_batch_end", 3), ("on_epoch_begin", 2), ("on_epoch_begin", 3), ("on_epoch_end", 2)],
)
def test_an_evaluate_within_a_fit_that_raises(build: Any, tools: Any, hook: str, epochs: int) -> None:
    def fail(batch: int) -> None:
        raise ValueError("on purpose")

    def evaluate(number: int) -> None:
        failing = tools.callback(on_test_batch_end=fail)
        if number == 1:
            with pytest.raises(ValueError, match="on purpose"):
                case.model.evaluate(case.x, case.y, batch_size=8, verbose=0, callbacks=[watch, failing])

    case, watch = build(), MemoryWatch(None, strict=True)
    case.fit(epochs=epochs, callbacks=[watch, tools.callback(**{hook: evaluate})])
    samples = watch.recording.samples
    check_rows(samples)
    trained = samples["stage"] == "train"
    assert samples["train_step"][trained].tolist() == list(range(1, 8 * epochs + 1))
    assert samples["epoch"][trained].tolist() == np.repeat(np.arange(epochs), 8).tolist()
    assert (~trained).sum() == (1 if "epoch" in hook else epochs)
    assert not watch.active


@pytest.mark.parametrize(("samples_each", "rows"), [(64, [4, 8, 12, 16]), (48, [4, 6, 10, 12])])
def test_steps_per_execution(build: Any, tools: Any, tmp_path: Path, samples_each: int, rows: list[int]) -> None:
    case, watch = build(steps_per_execution=4), MemoryWatch(tmp_path, strict=True)
    case.model.fit(case.x[:samples_each], case.y[:samples_each], batch_size=8, epochs=2, verbose=0, callbacks=[watch])
    samples = tools.read_back(watch, tmp_path).samples
    check_rows(samples)
    assert samples["step"].tolist() == rows
    assert samples["train_step"].tolist() == rows
    assert int(case.model.optimizer.iterations) == rows[-1]


@pytest.mark.parametrize(
    "mode", [{"run_eagerly": True}, {"jit_compile": True}, {"jit_compile": "auto"}], ids=["eager", "xla", "auto"]
)
def test_execution_modes(build: Any, tools: Any, tmp_path: Path, mode: dict[str, Any]) -> None:
    case, watch = build(**mode), MemoryWatch(tmp_path, strict=True)
    case.fit(validation_split=0.25, callbacks=[watch])
    samples = tools.read_back(watch, tmp_path).samples
    check_rows(samples)
    assert stages(samples) == [("train", 6), ("test", 2)]


class Batches(keras.utils.PyDataset):
    def __init__(self, x: Any, y: Any, **options: Any) -> None:
        super().__init__(**options)
        self._x, self._y = x, y

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._x[8 * index : 8 * index + 8], self._y[8 * index : 8 * index + 8]


def inputs_of(kind: str, case: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if kind == "class_weight":
        return (case.x, np.tile([0, 1], 32)), {"batch_size": 8, "class_weight": {0: 1.0, 1: 2.0}}
    if kind == "sample_weight":
        return (case.x, case.y), {"batch_size": 8, "sample_weight": np.ones(64)}
    if kind == "generator":
        return (((case.x[:8], case.y[:8]) for _ in range(16)),), {"steps_per_epoch": 8, "shuffle": False}
    if kind == "unknown length":
        dataset = tf.data.Dataset.from_tensor_slices((case.x, case.y)).batch(8)
        return (dataset.filter(lambda x, y: True),), {"shuffle": False}
    if kind == "threads":
        return (Batches(case.x, case.y, workers=2),), {}
    return (Batches(case.x, case.y),), {}


@pytest.mark.parametrize(
    "kind", ["class_weight", "sample_weight", "generator", "unknown length", "PyDataset", "threads"]
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras learns the length that way
def test_inputs(build: Any, tools: Any, tmp_path: Path, kind: str) -> None:
    loss = "sparse_categorical_crossentropy" if kind == "class_weight" else "mse"
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.model.compile("sgd", loss, jit_compile=False)
    arguments, options = inputs_of(kind, case)
    case.model.fit(*arguments, epochs=2, verbose=0, callbacks=[watch], **options)
    samples = tools.read_back(watch, tmp_path).samples
    check_rows(samples)
    assert samples["train_step"].tolist() == list(range(1, 17))
    assert samples["epoch"].tolist() == [0.0] * 8 + [1.0] * 8


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_a_batch_that_never_ends_hides_no_peak(build: Any, tools: Any) -> None:
    """Where the number of batches is unknown, Keras begins one more and then finds that there is no data."""
    begun = []

    def allocate(batch: int) -> None:
        if batch == 7 and len(begun) < 10:
            tf.fill((64 * MIB // 4,), 1.0).numpy()

    case, watch = build(), MemoryWatch(None, strict=True)
    arguments, options = inputs_of("unknown length", case)
    hooks = tools.callback(on_train_batch_begin=begun.append, on_train_batch_end=allocate)
    case.model.fit(*arguments, epochs=2, verbose=0, callbacks=[watch, hooks], **options)
    assert begun == [*range(9), *range(9)]
    between = watch.recording.samples["device_between_peak_bytes"][:, 0]
    assert (np.flatnonzero(between >= 64 * MIB) + 1).tolist() == [9]


@pytest.mark.long
def test_workers_that_are_processes(run_python: Any) -> None:
    run_python(
        """
        import keras, numpy as np
        from kerasmemwatch import MemoryWatch, load

        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 8
            def __getitem__(self, index):
                return np.ones((8, 4), "float32"), np.ones((8, 1), "float32")

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        watch = MemoryWatch("logs", strict=True)
        model.fit(Batches(workers=2, use_multiprocessing=True), epochs=2, verbose=0, callbacks=[watch])
        samples = load("logs").samples
        assert samples["train_step"].tolist() == list(range(1, 17)), samples["train_step"]
        assert (samples["host_rss_bytes"] > 0).all()
        """
    )


@pytest.mark.long
def test_logical_devices_share_one_allocator_that_is_reported_once(run_forked_python: Any) -> None:
    run_forked_python(
        """
        import keras, numpy as np, tensorflow as tf
        from kerasmemwatch import MemoryWatch, load

        cpus = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
        assert strategy.num_replicas_in_sync == 2
        watch = MemoryWatch("logs", strict=True)
        x, y = np.ones((64, 4), "float32"), np.ones((64, 1), "float32")
        model.fit(x, y, batch_size=8, validation_split=0.25, verbose=0, callbacks=[watch])
        with strategy.scope():  # in which the whole of a distributed variable has no handle
            within = MemoryWatch(None, strict=True)
            model.fit(x, y, batch_size=8, validation_split=0.25, verbose=0, callbacks=[within])
        assert within.report.traced_steps, within.report.notes
        recording = load("logs")
        assert [device.name for device in recording.run.devices] == ["CPU:0"], recording.run.devices
        assert recording.samples["device_peak_bytes"].shape == (8, 1)
        assert recording.samples["stage"].tolist() == ["train"] * 6 + ["test"] * 2
        assert recording.report.peak.bytes == max(
            recording.samples[name].max() for name in ("device_peak_bytes", "device_between_peak_bytes")
        )
        assert recording.report.weights_bytes and recording.report.optimizer_bytes
        """
    )


@pytest.mark.parametrize("spike_at", [0, 2, 3, 12])
def test_sample_every_covers_all_batches_since_the_last_row(
    build: Any, tools: Any, tmp_path: Path, spike_at: int
) -> None:
    def allocate(batch: int) -> None:
        if batch == spike_at:
            tf.fill((64 * MIB // 4,), 1.0).numpy()

    case, watch = build(), MemoryWatch(tmp_path, sample_every=3, strict=True)
    case.fit_steadily(13, callbacks=[watch, tools.callback(on_train_batch_begin=allocate)])
    recording = tools.read_back(watch, tmp_path)
    samples = recording.samples
    check_rows(samples)
    # A row every third batch, and what is left over at the end of the fit.
    rows = samples["step"].tolist()
    assert rows[-1] == 13
    assert set(np.diff(rows[:-1])) == {3}
    high = samples["step"][samples["device_peak_bytes"][:, 0] >= 64 * MIB].tolist()
    assert high == [min(step for step in rows if step > spike_at)]
    assert recording.report.peak.step == high[0]
    assert recording.run.configuration["sample_every"] == 3


def test_without_resets_peaks_are_run_maxima_and_say_so(build: Any, tools: Any, tmp_path: Path) -> None:
    def allocate(batch: int) -> None:
        if batch == 3:
            tf.fill((64 * MIB // 4,), 1.0).numpy()

    tf.config.experimental.reset_memory_stats("CPU:0")
    case, watch = build(), MemoryWatch(tmp_path, reset_peak=False, strict=True)
    case.fit(callbacks=[watch, tools.callback(on_train_batch_begin=allocate)])
    recording = tools.read_back(watch, tmp_path)
    peaks = recording.samples["device_peak_bytes"][:, 0]
    assert (np.diff(peaks) >= 0).all()
    assert (peaks[3:] >= 64 * MIB).all()
    assert (peaks[:3] < 64 * MIB).all()
    # Nobody reset it: the allocator still knows.
    assert tools.memory()["peak"] >= 64 * MIB
    assert recording.run.configuration["reset_peak"] is False
    assert "run maxi" in str(recording.report)
    tf.config.experimental.reset_memory_stats("CPU:0")
    assert tools.memory()["peak"] < 64 * MIB


def test_two_fits_are_one_recording(build: Any, tools: Any, tmp_path: Path) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.fit(callbacks=[watch])
    first = tools.read_back(watch, tmp_path)
    case.fit(epochs=2, callbacks=[watch])
    both = tools.read_back(watch, tmp_path)
    assert len(runs(tmp_path)) == 1
    assert both.samples["train_step"].tolist() == list(range(1, 25))
    assert both.samples["epoch"].tolist() == [0.0] * 16 + [1.0] * 8
    assert both.run.created == first.run.created
    for name, values in first.samples.items():
        np.testing.assert_array_equal(both.samples[name][:8], values)


def test_two_models_are_told_apart(build: Any, tools: Any, tmp_path: Path) -> None:
    watch = MemoryWatch(tmp_path, strict=True)
    one, other = build("mlp"), build("cnn")
    one.fit(callbacks=[watch])
    alone = {layer.path for layer in watch.recording.layers}
    other.fit(callbacks=[watch])
    layers = tools.read_back(watch, tmp_path).layers
    assert {f"{one.model.name}/{path}" for path in alone} < {layer.path for layer in layers}
    assert any(layer.path.startswith(f"{other.model.name}/conv2d") for layer in layers)


def test_two_watches_in_one_fit_are_both_exact(build: Any, tools: Any, tmp_path: Path) -> None:
    def allocate(batch: int) -> None:
        if batch == 3:
            tf.fill((64 * MIB // 4,), 1.0).numpy()

    case = build()
    watches = [MemoryWatch(tmp_path / name, strict=True) for name in "ab"]
    thinned = MemoryWatch(tmp_path / "c", sample_every=4, strict=True)
    spike = tools.callback(on_train_batch_begin=allocate)
    case.fit_steadily(12, callbacks=[watches[0], thinned, watches[1], spike])
    a, b = (tools.read_back(watch, tmp_path / name).samples for watch, name in zip(watches, "ab", strict=True))
    for name in DEVICE_COLUMNS:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert a["step"][a["device_peak_bytes"][:, 0] >= 64 * MIB].tolist() == [4]
    c = tools.read_back(thinned, tmp_path / "c").samples
    assert c["device_peak_bytes"].max() == a["device_peak_bytes"].max()


def test_early_stopping(build: Any, tools: Any, tmp_path: Path) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e9)  # nothing is good enough after the first epoch
    case.fit(epochs=50, callbacks=[stop, watch])
    samples = tools.read_back(watch, tmp_path).samples
    check_rows(samples)
    assert samples["train_step"].tolist() == list(range(1, 17))
    assert not watch.active


def test_stop_training_within_an_epoch(build: Any, tools: Any, tmp_path: Path) -> None:
    def stop(batch: int) -> None:
        case.model.stop_training = batch == 4

    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.fit(epochs=3, callbacks=[watch, tools.callback(on_train_batch_end=stop)])
    assert tools.read_back(watch, tmp_path).samples["step"].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_fit_after_one_that_raised(build: Any, tools: Any, tmp_path: Path, error: type[BaseException]) -> None:
    def fail(batch: int) -> None:
        if batch == 2:
            raise error("on purpose")

    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    with pytest.raises(error, match="on purpose"):
        case.fit(callbacks=[watch, tools.callback(on_train_batch_end=fail)])
    assert tools.read_back(watch, tmp_path).samples["step"].tolist() == [1, 2, 3]
    case.model.predict(case.x, batch_size=32, verbose=0, callbacks=[watch])
    case.fit(callbacks=[watch])
    samples = tools.read_back(watch, tmp_path).samples
    check_rows(samples)
    assert samples["step"].tolist() == list(range(1, 14))
    assert stages(samples) == [("train", 3), ("predict", 2), ("train", 8)]
    assert np.isnan(samples["epoch"][3:5]).all()
    assert not watch.active


def test_single_batches(build: Any, tools: Any, tmp_path: Path) -> None:
    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    peaks = []
    for _ in range(3):
        with watch.batch(case.model):
            assert watch.active
            case.model.train_on_batch(case.x[:8], case.y[:8])
            peaks.append(tools.memory()["peak"])
        assert not watch.active
    with watch.batch(case.model, "test"):
        case.model.test_on_batch(case.x[:8], case.y[:8])
    with watch.batch(case.model, "predict"):
        case.model.predict_on_batch(case.x[:8])
    case.fit(callbacks=[watch])
    recording = tools.read_back(watch, tmp_path)
    samples = recording.samples
    check_rows(samples)
    assert stages(samples) == [("train", 3), ("test", 1), ("predict", 1), ("train", 8)]
    assert samples["device_peak_bytes"][:3, 0].tolist() == peaks
    assert samples["train_step"].tolist() == [1, 2, 3, 3, 3, *range(4, 12)]
    assert recording.report.optimizer_bytes == sum(v.numpy().nbytes for v in case.model.optimizer.variables)


def test_a_batch_within_a_watched_fit_belongs_to_it(build: Any, tools: Any) -> None:
    case, watch = build(), MemoryWatch(None, strict=True)

    def predict(batch: int) -> None:
        with watch.batch(case.model, "predict"):
            case.model.predict_on_batch(case.x[:8])

    case.fit(callbacks=[watch, tools.callback(on_train_batch_end=predict)])
    assert stages(watch.recording.samples) == [("train", 8)]


def test_a_batch_that_raises(build: Any) -> None:
    case, watch = build(), MemoryWatch(None, strict=True)
    with pytest.raises(ValueError, match="on purpose"), watch.batch(case.model):
        raise ValueError("on purpose")
    for _ in range(2):
        with watch.batch(case.model):
            case.model.train_on_batch(case.x[:8], case.y[:8])
    assert watch.recording.samples["step"].tolist() == [1, 2, 3]
    assert watch.recording.samples["ended"].tolist() == [False, True, True]
    assert not watch.active


def test_the_recording_can_be_read_within_the_fit(build: Any, tools: Any, tmp_path: Path) -> None:
    lengths = []

    def look(batch: int) -> None:
        lengths.append(tools.read_back(watch, tmp_path).samples.num_samples)
        assert str(watch.report)

    case, watch = build(), MemoryWatch(tmp_path, strict=True)
    case.fit(callbacks=[watch, tools.callback(on_train_batch_end=look)])
    assert lengths == list(range(1, 9))


def test_a_model_with_its_own_train_step(tools: Any, tmp_path: Path) -> None:
    class Custom(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x) - y) ** 2)
            self.optimizer.apply_gradients(
                zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
            )
            return {"loss": loss}

    model, watch = Custom(), MemoryWatch(tmp_path, strict=True)
    model.compile("adam")
    model.fit(np.ones((32, 4), "float32"), np.ones((32, 1), "float32"), batch_size=8, verbose=0, callbacks=[watch])
    recording = tools.read_back(watch, tmp_path)
    check_rows(recording.samples)
    assert recording.samples.num_samples == 4
    assert recording.report.optimizer_bytes == sum(v.numpy().nbytes for v in model.optimizer.variables)


def test_short_fits_share_what_slow_reading_may_take(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    monkeypatch.setattr(HostProbe, "epoch_end", lambda self: reads.append(1) or [1.0, 2.0, 3.0])
    now = [0.0]

    def clock() -> float:
        now[0] += 0.05  # each look at the clock takes that, and so do the reads
        return now[0]

    monkeypatch.setattr(factory, "SLOW_READS", CostShare(0.005, clock))
    for _ in range(5):  # each with a watch of its own
        build().fit(callbacks=[MemoryWatch(None, trace=False, strict=True)])
    assert len(reads) == 1
    now[0] += 60
    build().fit(callbacks=[MemoryWatch(None, trace=False, strict=True)])
    assert len(reads) == 2
