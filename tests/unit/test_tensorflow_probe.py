"""Finding and reading allocators, with a stand-in for TensorFlow."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest
from fakes import look_up_anew

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.exact_cpu import exact_variables
from kerasmemwatch.probes import default_probes
from kerasmemwatch.probes.allocators import allocators
from kerasmemwatch.probes.base import Probe
from kerasmemwatch.probes.tensorflow import TensorFlowProbe
from kerasmemwatch.units import MIB


class FakeTensorFlow(ModuleType):
    """TensorFlow as far as the probe looks at it: devices with a current and a peak.

    Args:
        gpus: Number of logical GPUs.
        cpus: Number of logical CPUs, which share one allocator.
        counts_from: Bytes from which the CPU's allocator counts; ``None`` if it keeps no statistics.
        counts_constants: Whether that is so of constants, too.
    """

    def __init__(
        self, gpus: int = 0, cpus: int = 1, counts_from: int | None = 0, counts_constants: bool = True
    ) -> None:
        super().__init__("tensorflow")
        self.names = {"GPU": [f"GPU:{i}" for i in range(gpus)], "CPU": [f"CPU:{i}" for i in range(cpus)]}
        self.current = dict.fromkeys(self.names["GPU"], 0)
        if counts_from is not None:
            self.current["CPU:0"] = 0
        self.counts_from, self.counts_constants, self.float32 = counts_from, counts_constants, "float32"
        self.raw_ops = SimpleNamespace(Empty=lambda shape, dtype: self._tensor(4 * shape[0]))
        self.peak = dict(self.current)
        self.resets: list[str] = []
        self.limits: list[int | None] = [None] * gpus
        self.errors = SimpleNamespace(OpError=type("OpError", (Exception,), {}))
        self.config = SimpleNamespace(
            list_logical_devices=self._logical,
            list_physical_devices=lambda kind: list(range(len(self.names[kind]))),
            get_logical_device_configuration=lambda gpu: [SimpleNamespace(memory_limit=self.limits[gpu])],
            experimental=SimpleNamespace(get_memory_info=self._info, reset_memory_stats=self._reset),
        )

    def _logical(self, kind: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=f"/device:{name}") for name in self.names[kind]]

    def _info(self, name: str) -> dict[str, int]:
        if name not in self.current:
            raise ValueError(f"Allocator stats not available for device '{name}'")
        return {"current": self.current[name], "peak": self.peak[name]}

    def _reset(self, name: str) -> None:
        self.resets.append(name)
        self.peak[name] = self.current[name]

    def use(self, name: str, *levels: int) -> None:
        """Let the bytes in use go through some levels."""
        for level in levels:
            self.current[name] = level
            self.peak[name] = max(self.peak[name], level)

    def device(self, name: str) -> nullcontext[None]:
        assert name == "CPU:0"
        return nullcontext()

    def convert_to_tensor(self, values: list[float]) -> object:
        return self._tensor(4 * len(values)) if self.counts_constants else object()

    def _tensor(self, size: int) -> object:
        fake = self
        if self.counts_from is None or size < self.counts_from:
            return object()

        class Tensor:
            def __init__(self) -> None:
                fake.use("CPU:0", fake.current["CPU:0"] + size)

            def __del__(self) -> None:
                fake.use("CPU:0", fake.current["CPU:0"] - size)

        return Tensor()


@pytest.fixture
def tensorflow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeTensorFlow]:
    """Loads a stand-in. Without ``tensorflow.python``, so that the public calls are the ones that are used."""
    monkeypatch.delenv("TF_CPU_BFC_MEM_LIMIT_IN_MB", raising=False)
    for name in [name for name in sys.modules if name.startswith("tensorflow.")]:
        monkeypatch.delitem(sys.modules, name)

    def load(*args: object, **kwargs: object) -> FakeTensorFlow:
        fake = FakeTensorFlow(*args, **kwargs)  # type: ignore[arg-type]
        monkeypatch.setitem(sys.modules, "tensorflow", fake)
        look_up_anew(monkeypatch)
        return fake

    return load


@pytest.fixture
def opened() -> Iterator[Callable[..., TensorFlowProbe]]:
    probes: list[TensorFlowProbe] = []

    def open_probe(**options: object) -> TensorFlowProbe:
        probe = TensorFlowProbe(**options)  # type: ignore[arg-type]
        probe.open()
        probes.append(probe)
        return probe

    yield open_probe
    for probe in probes:
        probe.close()


Load = Callable[..., FakeTensorFlow]
Open = Callable[..., TensorFlowProbe]


def reading(probe: Probe) -> dict[str, list[float]]:
    values = list(probe.batch_end())
    return {column.name: [values.pop(0) for _ in range(column.size)] for column in probe.columns}


# -- which allocators ------------------------------------------------------------------------------------------


def test_gpus_come_first_then_the_cpu(tensorflow: Load) -> None:
    tensorflow(gpus=2)
    assert [one.info.name for one in allocators()] == ["GPU:0", "GPU:1", "CPU:0"]


def test_logical_cpus_share_one_allocator(tensorflow: Load) -> None:
    tensorflow(cpus=4)
    assert [one.info.name for one in allocators()] == ["CPU:0"]


def test_an_allocator_without_statistics_is_left_out(tensorflow: Load) -> None:
    fake = tensorflow(gpus=2, counts_from=None)
    del fake.current["GPU:0"]
    assert [one.info.name for one in allocators()] == ["GPU:1"]


def test_without_any_statistics_it_says_how_to_get_them(tensorflow: Load) -> None:
    tensorflow(counts_from=None)
    with pytest.raises(ProbeUnavailableError, match="no TensorFlow allocator keeps statistics") as caught:
        allocators()
    assert "TF_CPU_ALLOCATOR_USE_BFC=1" in caught.value.remedy and "kerasmemwatch run" in caught.value.remedy


def test_tensorflow_is_never_loaded_by_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with pytest.raises(ProbeUnavailableError, match="TensorFlow is not loaded"):
        TensorFlowProbe().open()
    assert "tensorflow" not in sys.modules


def test_another_backend_is_told_although_tensorflow_is_loaded(tensorflow: Load) -> None:
    tensorflow(gpus=1)
    with pytest.raises(ProbeUnavailableError, match="jax backend"):
        TensorFlowProbe(backend="jax").open()


@pytest.mark.parametrize(
    ("counts_from", "counting"), [(0, "exact"), (256, "exact"), (257, "partial"), (262_144, "partial")]
)
def test_whether_small_allocations_count_is_tried_out(tensorflow: Load, counts_from: int, counting: str) -> None:
    fake = tensorflow(counts_from=counts_from)
    [device] = [one.info for one in allocators()]
    assert device.counting == counting
    assert (device.counted_from_bytes, bool(device.remedy)) == ((0, False) if counting == "exact" else (262_144, True))
    assert fake.current["CPU:0"] == 0


def test_another_thread_that_allocates_does_not_make_a_partial_count_exact(tensorflow: Load) -> None:
    fake = tensorflow(counts_from=262_144)
    convert, noise = fake.convert_to_tensor, iter([MIB])

    def convert_amid_noise(values: list[float]) -> object:
        fake.use("CPU:0", fake.current["CPU:0"] + next(noise, 0))
        return convert(values)

    fake.convert_to_tensor = convert_amid_noise  # type: ignore[method-assign]
    [device] = [one.info for one in allocators()]
    assert device.counting == "partial"


def test_constants_that_are_not_counted_are_noted(tensorflow: Load, opened: Open) -> None:
    tensorflow(counts_constants=False)
    [one] = allocators()
    assert (one.info.counting, one.info.remedy) == ("exact", "")
    assert "constants are not" in one.note and "tf.ones(1)" in one.note
    assert opened().facts["note"] == one.note
    tensorflow()
    assert [one.note for one in allocators()] == [""]
    tensorflow(counts_from=262_144, counts_constants=False)
    assert [(one.info.counting, one.note) for one in allocators()] == [("partial", "")]


def test_the_limit_that_the_package_set_is_no_limit(tensorflow: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    tensorflow()
    for name, value in exact_variables({}).items():
        monkeypatch.setenv(name, value)
    assert [one.info.limit_bytes for one in allocators()] == [None]


def test_limits_are_those_the_user_set(tensorflow: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tensorflow(gpus=2)
    fake.limits[1] = 512
    monkeypatch.setenv("TF_CPU_BFC_MEM_LIMIT_IN_MB", "100")
    assert [one.info.limit_bytes for one in allocators()] == [None, 512 * MIB, 100 * MIB]


@pytest.mark.parametrize("text", ["", "lots", "-1"])
def test_a_limit_that_is_no_number_is_no_limit(tensorflow: Load, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    tensorflow()
    monkeypatch.setenv("TF_CPU_BFC_MEM_LIMIT_IN_MB", text)
    assert [one.info.limit_bytes for one in allocators()] == [None]


# -- windows ---------------------------------------------------------------------------------------------------


def test_batches_and_the_time_between_have_peaks_of_their_own(tensorflow: Load, opened: Open) -> None:
    fake = tensorflow()
    fake.use("CPU:0", 900, 100)  # before the watch
    probe = opened()
    fake.use("CPU:0", 300, 100)
    probe.batch_begin()
    fake.use("CPU:0", 500, 120)
    assert reading(probe) == {
        "device_in_use_bytes": [120],
        "device_peak_bytes": [500],
        "device_between_peak_bytes": [300],
    }
    fake.use("CPU:0", 700, 110)
    probe.batch_begin()
    fake.use("CPU:0", 200, 130)
    assert reading(probe) == {
        "device_in_use_bytes": [130],
        "device_peak_bytes": [200],
        "device_between_peak_bytes": [700],
    }


def test_every_device_has_its_own_values(tensorflow: Load, opened: Open) -> None:
    fake = tensorflow(gpus=2)
    probe = opened()
    for step, name in enumerate(("GPU:0", "GPU:1", "CPU:0"), 1):
        fake.use(name, 1000 * step, step)
    probe.batch_begin()
    for step, name in enumerate(("GPU:0", "GPU:1", "CPU:0"), 1):
        fake.use(name, 100 * step, 10 * step)
    assert reading(probe) == {
        "device_in_use_bytes": [10, 20, 30],
        "device_peak_bytes": [100, 200, 300],
        "device_between_peak_bytes": [1000, 2000, 3000],
    }
    assert probe.facts["devices"][2]["counting"] == "exact"  # type: ignore[index]


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize(("before", "within"), [(300, 800), (800, 300)])
def test_a_batch_that_never_ended_belongs_to_the_time_between(
    tensorflow: Load, opened: Open, gpus: int, before: int, within: int
) -> None:
    fake = tensorflow(gpus=gpus)
    probe = opened()
    fake.use("CPU:0", before, 100)
    probe.batch_begin()
    fake.use("CPU:0", within, 100)  # raises
    probe.batch_begin()
    fake.use("CPU:0", 200, 100)
    assert reading(probe)["device_between_peak_bytes"][-1] == 800


def test_a_batch_whose_begin_was_missed_has_no_peak_before_it(tensorflow: Load, opened: Open) -> None:
    fake = tensorflow()
    probe = opened()
    probe.batch_begin()
    reading(probe)
    fake.use("CPU:0", 300, 100)
    values = reading(probe)
    assert values["device_peak_bytes"] == [300] and math.isnan(values["device_between_peak_bytes"][0])


def test_the_counter_is_never_reset_if_the_user_says_so(tensorflow: Load, opened: Open) -> None:
    fake = tensorflow(gpus=1)
    fake.use("CPU:0", 900, 100)
    probe = opened(reset_peak=False)
    for _ in range(3):
        probe.batch_begin()
        fake.use("CPU:0", 500, 120)
        assert reading(probe)["device_peak_bytes"][1] == 900
    probe.close()
    assert fake.resets == []


def test_a_row_may_cover_everything_since_the_last(tensorflow: Load, opened: Open) -> None:
    fake = tensorflow()
    probe = opened(whole_window=True)
    fake.use("CPU:0", 700, 100)  # batches that are not sampled
    probe.batch_begin()
    fake.use("CPU:0", 300, 120)
    values = reading(probe)
    assert values["device_peak_bytes"] == [700] and values["device_in_use_bytes"] == [120]
    probe.batch_begin()
    fake.use("CPU:0", 400, 120)
    assert reading(probe)["device_peak_bytes"] == [400]


def test_opening_again_goes_on_with_the_window(tensorflow: Load, opened: Open) -> None:
    fake = tensorflow()
    probe = opened()
    fake.use("CPU:0", 700, 100)
    probe.open()
    probe.batch_begin()
    assert reading(probe)["device_between_peak_bytes"] == [700]


def test_a_closed_probe_reads_nothing_and_can_be_opened_again(tensorflow: Load, opened: Open) -> None:
    fake = tensorflow()
    probe = opened()
    probe.close()
    fake.resets.clear()
    probe.batch_begin()
    assert (list(probe.batch_end()), fake.resets) == ([], [])
    probe.open()
    probe.batch_begin()
    fake.use("CPU:0", 500, 100)
    assert reading(probe)["device_peak_bytes"] == [500]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda probe: pickle.loads(pickle.dumps(probe))])
def test_before_it_is_opened_it_can_be_copied(
    tensorflow: Load, duplicate: Callable[[TensorFlowProbe], TensorFlowProbe]
) -> None:
    fake = tensorflow()
    probe = duplicate(TensorFlowProbe(reset_peak=False))
    probe.open()
    probe.batch_begin()
    fake.use("CPU:0", 500, 100)
    assert reading(probe)["device_peak_bytes"] == [500] and fake.resets == []
    probe.close()


def test_a_watch_that_ends_leaves_the_other_its_window(tensorflow: Load, opened: Open) -> None:
    fake = tensorflow()
    first, second = opened(), opened()
    first.batch_begin()
    fake.use("CPU:0", 500, 100)
    second.close()
    fake.use("CPU:0", 300, 100)
    assert reading(first)["device_peak_bytes"] == [500]


def test_two_watches_see_the_same_peaks(tensorflow: Load, opened: Open) -> None:
    fake = tensorflow()
    first, second = opened(), opened()
    for probe in (first, second):
        probe.batch_begin()
    fake.use("CPU:0", 500, 100)
    assert reading(first)["device_peak_bytes"] == reading(second)["device_peak_bytes"] == [500]


def test_nothing_is_slow_to_read(tensorflow: Load, opened: Open) -> None:
    tensorflow()
    probe = opened()
    assert probe.slow_columns == () and probe.epoch_end() == ()


def test_default_probes_are_device_host_heap_driver_and_counters() -> None:
    assert [probe.name for probe in default_probes("tensorflow")] == ["tensorflow", "host", "heap", "nvml", "counters"]
