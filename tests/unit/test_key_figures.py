"""The first figures of a report in plain words, and where growth leads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from runs import MIB, NAN, empty_report, run_info, samples, small_report, untraced_report

from kerasmemwatch.analysis.growth import Outlook, outlooks
from kerasmemwatch.analysis.key_figures import headline
from kerasmemwatch.records.growth import Growth, LeakFinding
from kerasmemwatch.records.run import DeviceInfo
from kerasmemwatch.reports.report import Report, make_report


def tile(report: Report, label: str) -> tuple[str, str, str]:
    [found] = [one for one in headline(report) if one.label == label]
    return found.value, found.detail, found.tone


def outlook(report: Report, growth: Growth) -> Outlook:
    [found] = outlooks(replace(report, growth=(growth,)))
    return found


def grows(series: str, low: float = 50.0, slope: float = 100.0, high: float = 200.0) -> Growth:
    return Growth(series, slope, low, high, 30)


def test_every_report_has_the_same_tiles() -> None:
    labels = ["Device peak", "Share of the device limit", "Host RSS", "Growth a step", "Known by layer", "Notes"]
    for report in (small_report(), untraced_report(), empty_report()):
        assert [one.label for one in headline(report)] == labels


def test_what_is_unknown_is_called_unknown() -> None:
    found = {one.label: one.value for one in headline(empty_report())}
    assert found.pop("Notes") == "none"
    assert set(found.values()) == {"unknown"}


@pytest.mark.parametrize(
    ("peak", "share", "tone"), [(50, "25.0%", "good"), (160, "80.0%", ""), (190, "95.0%", "warning")]
)
def test_the_peak_and_its_share_of_the_limit(peak: int, share: str, tone: str) -> None:
    report = make_report(run_info(), samples(5, peak=np.full(5, peak * MIB)))
    assert tile(report, "Device peak")[:2] == (f"{peak}.0 MiB", "GPU:0 at step 1, epoch 1")
    left = f"of 200.0 MiB; {200 - peak}.0 MiB were left at the peak"
    assert tile(report, "Share of the device limit") == (share, left, tone)


def test_host_rss_stands_beside_its_limit() -> None:
    report = make_report(run_info(), samples(5, rss=np.full(5, 512 * MIB)))
    assert tile(report, "Host RSS") == ("512.0 MiB", "peak, 50.0% of 1.0 GiB (cgroup)", "good")
    unlimited = make_report(replace(run_info(), host={}), samples(5, rss=np.full(5, 512 * MIB)))
    assert tile(unlimited, "Host RSS") == ("512.0 MiB", "peak", "")
    assert tile(make_report(run_info(), samples(5, rss=np.full(5, NAN))), "Host RSS")[0] == "unknown"


def test_coverage_is_never_rounded_up() -> None:
    assert tile(replace(small_report(), coverage=0.9999), "Known by layer")[0] == "99.9%"
    assert tile(replace(small_report(), coverage=1.0), "Known by layer")[0] == "100.0%"
    assert tile(replace(small_report(), coverage=0.98), "Known by layer")[2] == "warning"


def test_causes_of_growth_come_before_notes() -> None:
    leak = LeakFinding("graphs are kept", "", None, None, None, "", "")
    value, detail, tone = tile(replace(small_report(), leaks=(leak,), notes=("a", "b")), "Notes")
    assert (value, detail, tone) == ("3", "graphs are kept", "warning")


def test_a_partial_count_is_no_headline() -> None:
    device = DeviceInfo("CPU:0", "partial", 262_144, limit_bytes=200 * MIB, remedy="Do this.")
    report = make_report(replace(run_info(), devices=(device,)), samples(5, peak=np.full(5, 50 * MIB)))
    assert tile(report, "Device peak (partial)") == ("at least 50.0 MiB", "CPU:0 at step 1, epoch 1", "warning")
    assert tile(report, "Share of the device limit")[0] == "unknown"
    assert "below 256.0 KiB are not counted" in tile(report, "Known by layer")[1]


def test_growth_leads_to_a_limit() -> None:
    report = make_report(run_info(), samples(10, rss=np.full(10, 1024 * MIB - 1000)))
    found = outlook(report, grows("host_rss_bytes"))
    assert (found.newest_bytes, found.newest_step, found.limit_bytes) == (1024 * MIB - 1000, 10, 1024 * MIB)
    assert (found.limit_step, found.earliest_step, found.latest_step) == (20, 15, 30)
    assert found.words.endswith("it meets its limit of 1.0 GiB at step 20 (15 to 30)")
    assert tile(replace(report, growth=(found.growth,)), "Growth a step")[2] == "warning"


def test_growth_of_a_device_leads_to_that_devices_limit() -> None:
    report = make_report(run_info(devices=2), samples(10, devices=2))
    found = outlook(report, grows("device_in_use_bytes GPU:1"))
    assert found.name == "GPU:1 in use" and found.limit_bytes == 200 * MIB
    assert found.newest_bytes == report.samples["device_in_use_bytes"][-1, 1]


def test_what_does_not_grow_meets_no_limit() -> None:
    found = outlook(small_report(), grows("host_rss_bytes", low=-1.0))
    assert not found.is_growing and found.limit_step is None and found.words.startswith("no steady growth of host RSS")
    report = replace(small_report(), growth=(found.growth,))
    assert tile(report, "Growth a step")[::2] == ("none seen", "good")


def test_at_the_limit_already() -> None:
    report = make_report(run_info(), samples(10, rss=np.full(10, 2048 * MIB)))
    found = outlook(report, grows("host_rss_bytes"))
    assert found.limit_step == 10 and "is at its limit" in found.words


@pytest.mark.parametrize("series", ["host_rss_bytes worker:1", "device_in_use_bytes none", "something new"])
def test_of_what_else_grows_no_limit_is_known(series: str) -> None:
    found = outlook(small_report(), grows(series))
    assert found.limit_step is None and "its limit is not known" in found.words


def test_the_first_that_grows_is_told() -> None:
    report = small_report()
    steady = grows("device_in_use_bytes GPU:0", low=-5.0)
    told = tile(replace(report, growth=(steady, grows("host_rss_bytes"))), "Growth a step")
    assert told[0] == "+100 B" and told[1].startswith("host RSS grows")
