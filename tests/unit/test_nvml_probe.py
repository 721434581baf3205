"""The driver's figures, from a fake driver that fails on what it does not expect."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.probes import nvml as nvml_module
from kerasmemwatch.probes.base import Probe
from kerasmemwatch.probes.cuda_devices import visible_devices
from kerasmemwatch.probes.nvml import NvmlProbe

GIB = 1024**3
UUIDS = ("GPU-aa11-0", "GPU-ab22-1", "GPU-cc33-2")
MIG = "MIG-5c3e"
OWN = os.getpid()


class FakeNvmlError(Exception):
    """Stands for pynvml.NVMLError: NotSupported, NoPermission, GpuIsLost, ..."""


def entry(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


class FakeNvml:
    """A driver with GPUs 0, 1, ...; a handle is the GPU's UUID. ``fails`` names functions that raise."""

    NVMLError = FakeNvmlError

    def __init__(self, names: tuple[str, ...] = ("H200",), fails: tuple[str, ...] = ()) -> None:
        self.names = dict(zip(UUIDS, names, strict=False))
        self.fails = set(fails)
        self.lost: set[int] = set()
        self.mig: dict[str, int] = {}
        self.compute: dict[str, list[SimpleNamespace]] = {}
        self.graphics: dict[str, list[SimpleNamespace]] = {}
        self.references = 0
        self.calls: list[str] = []

    def _enter(self, function: str) -> None:
        self.calls.append(function)
        if function in self.fails:
            raise FakeNvmlError(function)
        if self.references == 0 and function != "nvmlInit":
            raise FakeNvmlError("Uninitialized")

    def nvmlInit(self) -> None:
        self._enter("nvmlInit")
        self.references += 1

    def nvmlShutdown(self) -> None:
        self._enter("nvmlShutdown")
        self.references -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        self._enter("nvmlSystemGetDriverVersion")
        return "570.12"

    def nvmlDeviceGetCount(self) -> int:
        self._enter("nvmlDeviceGetCount")
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self._enter("nvmlDeviceGetHandleByIndex")
        if index in self.lost:
            raise FakeNvmlError("GpuIsLost")
        return UUIDS[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._enter("nvmlDeviceGetHandleByUUID")
        if uuid != MIG:
            raise FakeNvmlError("NotFound")
        return uuid

    def nvmlDeviceGetName(self, handle: str) -> str:
        self._enter("nvmlDeviceGetName")
        return "H200 MIG 1g.18gb" if handle == MIG else self.names[handle]

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        self._enter("nvmlDeviceGetUUID")
        return handle

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        self._enter("nvmlDeviceGetMemoryInfo")
        number = 9 if handle == MIG else UUIDS.index(handle)
        return SimpleNamespace(total=(10 + number) * GIB, used=(1 + number) * GIB, free=9 * GIB)

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        self._enter("nvmlDeviceGetMigMode")
        if handle not in self.mig:
            raise FakeNvmlError("NotSupported")
        return [self.mig[handle], 0]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        self._enter("nvmlDeviceGetComputeRunningProcesses")
        return self.compute.get(handle, [])

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        self._enter("nvmlDeviceGetGraphicsRunningProcesses")
        return self.graphics.get(handle, [])


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)


@pytest.fixture
def driver_sign(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bool], None]:
    """Decides whether this machine shows signs of an NVIDIA driver."""

    def decide(present: bool) -> None:
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(
            nvml_module, "_DRIVER_SIGNS", (tmp_path / "absent", tmp_path if present else tmp_path / "x")
        )

    return decide


def opened(nvml: FakeNvml) -> NvmlProbe:
    probe = NvmlProbe(nvml)
    probe.open()
    return probe


def rows(probe: NvmlProbe) -> Mapping[str, list[float]]:
    """Split what epoch_end gives by column."""
    values = iter(probe.epoch_end())
    table = {column.name: [next(values) for _ in range(column.size)] for column in probe.slow_columns}
    assert next(values, None) is None
    return table


def gpus(probe: NvmlProbe) -> list[object]:
    drivers = probe.facts["drivers"]
    assert isinstance(drivers, list)
    return [driver["uuid"] for driver in drivers]


def test_fulfils_the_protocol() -> None:
    probe: Probe = opened(FakeNvml())
    probe.batch_begin()
    assert (probe.columns, probe.batch_end()) == ((), ())
    assert [(c.name, c.width) for c in probe.slow_columns] == [
        ("nvml_used_bytes", 1),
        ("nvml_total_bytes", 1),
        ("nvml_process_bytes", 1),
    ]


def test_reads_each_gpu_in_column_order() -> None:
    nvml = FakeNvml(("H200", "H200"))
    nvml.compute = {UUIDS[0]: [entry(OWN, 300), entry(OWN + 1, 5)], UUIDS[1]: [entry(OWN, 7)]}
    assert rows(opened(nvml)) == {
        "nvml_used_bytes": [1.0 * GIB, 2.0 * GIB],
        "nvml_total_bytes": [10.0 * GIB, 11.0 * GIB],
        "nvml_process_bytes": [300.0, 7.0],
    }


def test_facts_describe_driver_and_gpus() -> None:
    assert opened(FakeNvml()).facts == {
        "drivers": [{"name": "H200", "uuid": UUIDS[0], "total_bytes": 10 * GIB}],
        "driver_version": "570.12",
    }


def test_every_failing_query_gives_nan_not_0() -> None:
    nvml = FakeNvml()
    probe = opened(nvml)
    nvml.fails = {
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetGraphicsRunningProcesses",
    }
    assert len(probe.epoch_end()) == 3
    assert all(math.isnan(value) for value in probe.epoch_end())


def test_unknown_facts_are_none() -> None:
    fails = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlSystemGetDriverVersion")
    assert opened(FakeNvml(fails=fails)).facts == {
        "drivers": [{"name": None, "uuid": None, "total_bytes": None}],
        "driver_version": None,
    }


def test_a_call_that_the_fake_does_not_expect_is_not_swallowed() -> None:
    """The fake would be no use if the probe's choke point hid a wrong function name."""
    with pytest.raises(AttributeError, match="nvmlDeviceGetTypo"):
        opened(FakeNvml())._query("nvmlDeviceGetTypo")


@pytest.mark.parametrize(
    ("compute", "graphics", "expected"),
    [
        ([], [], math.nan),
        ([entry(OWN + 1, 9)], [], math.nan),
        ([entry(OWN, None)], [], math.nan),
        ([entry(OWN, None)], [entry(OWN, 4)], math.nan),
        ([entry(OWN, 0)], [], 0.0),
        ([entry(OWN, 3), entry(OWN, 4)], [], 7.0),
        ([], [entry(OWN, 4)], 4.0),
        ([entry(OWN, 9)], [entry(OWN, 9)], 9.0),
    ],
    ids=["nobody", "others", "untold", "half untold", "none", "two instances", "graphics", "both kinds"],
)
def test_share_of_this_process(
    compute: list[SimpleNamespace], graphics: list[SimpleNamespace], expected: float
) -> None:
    nvml = FakeNvml()
    nvml.compute, nvml.graphics = {UUIDS[0]: compute}, {UUIDS[0]: graphics}
    assert rows(opened(nvml))["nvml_process_bytes"] == pytest.approx([expected], abs=0, nan_ok=True)


def test_share_needs_the_compute_list_but_not_the_graphics_list() -> None:
    nvml = FakeNvml()
    nvml.compute = nvml.graphics = {UUIDS[0]: [entry(OWN, 6)]}
    probe = opened(nvml)
    nvml.fails = {"nvmlDeviceGetGraphicsRunningProcesses"}
    assert rows(probe)["nvml_process_bytes"] == [6.0]
    nvml.fails = {"nvmlDeviceGetComputeRunningProcesses"}
    assert math.isnan(rows(probe)["nvml_process_bytes"][0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", [1]),
        (" 2 , 0", [2, 0]),
        ("+1,2gpu", [1, 2]),
        ("0,-1,1", [0]),
        ("0,3,1", [0]),
        ("0,,1", [0]),
        ("0,1,0", []),
        ("GPU-cc33-2,GPU-aa", [2, 0]),
        ("GPU-a", []),
        ("GPU-aa,GPU-zz,GPU-cc", [0]),
        ("GPU-aa,GPU-aa11", []),
        ("0,GPU-cc", [0]),
        ("GPU-cc,0", [2]),
        (MIG, [MIG]),
        (f"{MIG},MIG-77", [MIG]),
        (f"{MIG},{MIG}", []),
    ],
)
def test_visible_devices(value: str | None, expected: list[int | str]) -> None:
    assert visible_devices(value, UUIDS) == expected


def test_cuda_visible_devices_chooses_and_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    probe = opened(FakeNvml(("H200", "H200", "H200")))
    assert gpus(probe) == [UUIDS[2], UUIDS[0]]
    assert rows(probe)["nvml_used_bytes"] == [3.0 * GIB, 1.0 * GIB]


def test_a_mig_id_reads_the_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", MIG)
    nvml = FakeNvml()
    nvml.mig = {UUIDS[0]: 1, MIG: 1}
    probe = opened(nvml)
    assert gpus(probe) == [MIG]
    assert rows(probe)["nvml_total_bytes"] == [19.0 * GIB]
    assert "note" not in probe.facts


def test_mig_without_an_id_is_noted() -> None:
    nvml = FakeNvml()
    nvml.mig = {UUIDS[0]: 1}
    assert "MIG is on" in str(opened(nvml).facts["note"])
    nvml.mig = {UUIDS[0]: 0}
    assert "note" not in opened(nvml).facts


@pytest.mark.parametrize("value", [None, "1"])
def test_different_models_make_the_order_unknown(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert "different models" in str(opened(FakeNvml(("T4", "H200"))).facts["note"])
    assert "note" not in opened(FakeNvml(("H200", "H200"))).facts
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert "note" in opened(FakeNvml(("T4", "H200"))).facts
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert "note" not in opened(FakeNvml(("T4", "H200"))).facts


def test_uuids_make_the_order_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-ab,GPU-aa")
    probe = opened(FakeNvml(("T4", "H200")))
    assert gpus(probe) == [UUIDS[1], UUIDS[0]]
    assert "note" not in probe.facts


def test_a_lost_gpu_has_no_column() -> None:
    nvml = FakeNvml(("H200", "H200"))
    nvml.lost = {0}
    probe = opened(nvml)
    assert gpus(probe) == [UUIDS[1]]
    # Its unknown name is not another model.
    assert "note" not in probe.facts


def unavailable(nvml: FakeNvml | None) -> ProbeUnavailableError:
    with pytest.raises(ProbeUnavailableError) as caught:
        NvmlProbe(nvml).open()
    # What open() took is given back where it fails.
    assert nvml is None or nvml.references == 0
    return caught.value


@pytest.mark.parametrize("value", ["", "-1"])
def test_hidden_gpus_are_no_mistake(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    error = unavailable(FakeNvml())
    assert (error.reason, error.remedy) == ("No GPU is visible to CUDA.", "")


@pytest.mark.parametrize("value", ["5", "MIG-unknown", "GPU-zz"])
def test_a_wrong_id_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    error = unavailable(FakeNvml())
    assert error.reason == "No GPU is visible to CUDA."
    assert "below 1" in error.remedy and repr(value) in error.remedy


@pytest.mark.parametrize(("present", "remedy"), [(True, "nvidia-smi"), (False, "")])
@pytest.mark.parametrize(
    ("nvml", "reason"),
    [
        (FakeNvml(fails=("nvmlInit",)), "No NVIDIA driver answers (nvmlInit)."),
        (FakeNvml(names=()), "The NVIDIA driver finds no GPU."),
        (FakeNvml(fails=("nvmlDeviceGetCount",)), "The NVIDIA driver finds no GPU."),
    ],
    ids=["init fails", "no gpu", "count fails"],
)
def test_no_driver_or_no_gpu(
    driver_sign: Callable[[bool], None], nvml: FakeNvml, reason: str, present: bool, remedy: str
) -> None:
    driver_sign(present)
    error = unavailable(nvml)
    assert error.reason == reason
    assert remedy in error.remedy and bool(error.remedy) == present


def test_pynvml_not_installed(monkeypatch: pytest.MonkeyPatch, driver_sign: Callable[[bool], None]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    driver_sign(True)
    error = unavailable(None)
    assert error.reason == "nvidia-ml-py is not installed."
    assert error.remedy == "Install it with: pip install 'kerasmemwatch[nvml]'"
    driver_sign(False)
    error = unavailable(None)
    assert (error.reason, error.remedy) == ("There is no NVIDIA GPU here.", "")


@pytest.mark.parametrize(("platform", "installable"), [("win32", True), ("darwin", False)])
def test_pynvml_not_installed_elsewhere(monkeypatch: pytest.MonkeyPatch, platform: str, installable: bool) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(sys, "platform", platform)
    assert bool(unavailable(None).remedy) == installable


def test_pynvml_is_imported_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    probe = NvmlProbe()
    assert nvml.calls == []
    probe.open()
    assert gpus(probe) == [UUIDS[0]]


def test_the_real_pynvml_has_every_function_of_the_fake() -> None:
    """The fake's names are only worth something if the real module has them."""
    pynvml = pytest.importorskip("pynvml")
    names = [name for name in vars(FakeNvml) if name.startswith(("nvml", "NVML"))]
    assert len(names) == 13
    assert [name for name in names if not hasattr(pynvml, name)] == []


def test_open_again_asks_nothing() -> None:
    nvml = FakeNvml()
    probe = opened(nvml)
    nvml.calls.clear()
    probe.open()
    assert nvml.calls == []


def test_open_after_a_fork_starts_the_library_again(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    probe = opened(nvml)
    nvml.compute = {UUIDS[0]: [entry(OWN, 8), entry(OWN + 1, 3)]}
    monkeypatch.setattr(os, "getpid", lambda: OWN + 1)
    nvml.calls.clear()
    probe.open()
    assert nvml.calls[0] == "nvmlInit"
    assert rows(probe)["nvml_process_bytes"] == [3.0]


def test_close_shuts_down_once_and_leaves_nan() -> None:
    nvml = FakeNvml()
    probe = opened(nvml)
    probe.close()
    probe.close()
    assert nvml.references == 0
    assert nvml.calls.count("nvmlShutdown") == 1
    assert [math.isnan(value) for value in probe.epoch_end()] == [True, True, True]


def test_close_never_raises() -> None:
    NvmlProbe().close()
    nvml = FakeNvml()
    probe = opened(nvml)
    nvml.fails = {"nvmlShutdown"}
    probe.close()
    assert nvml.calls[-1] == "nvmlShutdown"
