"""What the driver counts of a GPU, beside what the allocator has in use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Column
from kerasmemwatch.reports.report import make_report
from kerasmemwatch.reports.text.driver_facts import driver_facts
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS
from kerasmemwatch.units import GIB, MIB

NAN = float("nan")
_IN_USE = ("device_in_use_bytes", "device_peak_bytes", "device_between_peak_bytes")
_DRIVER = ("nvml_used_bytes", "nvml_total_bytes", "nvml_process_bytes")


def facts(
    devices: Sequence[str], in_use: Sequence[Sequence[float]], own: Sequence[Sequence[float]], used: float = 9 * GIB
) -> list[str]:
    """The comments on what this process holds of each GPU.

    Args:
        devices: Their names, of which one limits itself.
        in_use: In each row, of each device.
        own: In each row, of each of the driver's GPUs.
        used: By all processes, of each.
    """
    rows, gpus = len(in_use), len(own[0])
    layout = (
        *BASE_COLUMNS,
        *(Column(name, len(devices)) for name in _IN_USE),
        *(Column(name, gpus) for name in _DRIVER),
    )
    steps = np.arange(1.0, rows + 1)
    driver = np.column_stack([np.full((rows, gpus), used), np.full((rows, gpus), 80.0 * GIB), np.array(own)])
    driver[np.isnan(np.array(own)).all(1)] = NAN
    table = np.column_stack([steps, steps, 0 * steps, 0 * steps, steps, *[np.array(in_use)] * 3, driver])
    run = RunInfo(
        "run",
        0.0,
        devices=tuple(DeviceInfo(name, limit_bytes=2 * GIB) for name in devices),
        drivers=tuple({"name": "H100"} for _ in range(gpus)),
    )
    found = list(driver_facts(make_report(run, to_samples([(layout, table)]))))
    assert [name for name, _, _ in found] == ["H100", "  this process"] * gpus
    return [f"{value} {comment}" for name, value, comment in found if "this" in name]


def test_the_pool_is_told_apart_from_what_is_in_use() -> None:
    [line] = facts(["GPU:0", "CPU:0"], [[100 * MIB, MIB]], [[3 * GIB]])
    assert line.startswith("3.0 GiB held by this process, says the driver: 100.0 MiB in use by tensors, the rest is ")


def test_with_growth_both_figures_are_of_one_moment() -> None:
    # The driver is asked at the ends of epochs; TF_FORCE_GPU_ALLOW_GROWTH has the pool grow with what is in use.
    [line] = facts(["GPU:0"], [[MIB], [100 * MIB], [5 * GIB]], [[NAN], [600 * MIB], [NAN]])
    assert line.startswith("600.0 MiB held") and ": 100.0 MiB in use" in line


def test_devices_that_share_a_gpu_with_a_limit_each_are_added() -> None:
    [line] = facts(["GPU:0", "GPU:1", "CPU:0"], [[100 * MIB, 200 * MIB, MIB]], [[3 * GIB]])
    assert ": 300.0 MiB in use" in line


@pytest.mark.parametrize(
    ("devices", "gpus"), [(["CPU:0"], 1), (["GPU:0", "GPU:1", "GPU:2"], 2), ([], 1)], ids=["no GPU", "cut", "nothing"]
)
def test_where_nothing_says_which_devices_are_on_a_gpu_nothing_is_said(devices: list[str], gpus: int) -> None:
    lines = facts(devices, [[100.0 * MIB] * len(devices)], [[3.0 * GIB] * gpus])
    assert lines == ["3.0 GiB held by this process, says the driver"] * gpus


def test_each_of_several_gpus_has_its_own() -> None:
    first, second = facts(["GPU:0", "GPU:1", "CPU:0"], [[100 * MIB, 200 * MIB, MIB]], [[3 * GIB, 2 * GIB]])
    assert ": 100.0 MiB in use" in first and ": 200.0 MiB in use" in second


def test_what_another_process_holds_is_not_this_ones() -> None:
    [line] = facts(["GPU:0"], [[100 * MIB]], [[1 * GIB]], used=70 * GIB)
    assert line.startswith("1.0 GiB held by this process")


def test_a_driver_that_does_not_list_this_process_says_nothing_of_it() -> None:
    [line] = facts(["GPU:0"], [[100 * MIB]], [[NAN]])
    assert line == "unknown held by this process, says the driver"


def test_a_driver_that_counts_less_than_is_in_use_is_not_explained_by_it() -> None:
    [line] = facts(["GPU:0"], [[3 * GIB]], [[1 * GIB]])
    assert line == "1.0 GiB held by this process, says the driver"
