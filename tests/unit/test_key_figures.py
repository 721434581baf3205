"""The first figures of a report in plain words, and where growth leads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from runs import MIB, NAN, empty_report, run_info, samples, small_report, untraced_report

from kerasmemwatch.analysis.growth_words import by_weight
from kerasmemwatch.analysis.key_figures import headline, verdict_tiles
from kerasmemwatch.records.growth import Growth, LeakFinding, Verdict
from kerasmemwatch.records.run import DeviceInfo
from kerasmemwatch.reports.report import Report, make_report
from kerasmemwatch.units import GIB


def tile(report: Report, label: str) -> tuple[str, str, str]:
    [found] = [one for one in headline(report) if one.label == label]
    return found.value, found.detail, found.tone


def judged(label: str, verdict: Verdict = "growing", rate: float = 100.0, limit: int | None = None) -> Growth:
    return Growth(label, verdict, rate, "step", (rate, rate), 1, limit, None, rate, f"{label}.", 30, label)


def test_every_report_has_the_same_tiles() -> None:
    labels = ["Device peak", "Share of the device limit", "Host RSS", "Growth", "Known by layer", "Notes"]
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


@pytest.mark.parametrize(
    ("verdict", "value", "tone"),
    [("growing", "+100 B a step", "warning"), ("steady", "steady", "good"), ("settling", "settling", "")],
)
def test_the_tile_tells_the_verdict(verdict: Verdict, value: str, tone: str) -> None:
    report = replace(small_report(), growth=(judged("host RSS", verdict),))
    found = tile(report, "Growth")
    assert (found[0], found[2]) == (value, tone)
    assert found[1] == ("host RSS, since step 1" if verdict == "growing" else "host RSS.")


def test_the_tile_tells_when_the_limit_is_met() -> None:
    growing = replace(judged("host RSS", limit=GIB), met_at=1234, unit="epoch")
    value, detail, _ = tile(replace(small_report(), growth=(growing,)), "Growth")
    assert value == "+100 B an epoch"
    assert detail == "host RSS, since step 1; at this pace it meets its limit of 1.0 GiB at step 1,234"


def test_a_tile_of_a_series_does_not_name_it_twice() -> None:
    [found] = verdict_tiles(replace(small_report(), growth=(judged("host RSS"),)))
    assert (found.label, found.detail) == ("host RSS", "since step 1")


def test_what_grows_is_told_first_and_then_what_takes_most_of_its_limit() -> None:
    small, large = judged("small", rate=72.0, limit=8 * GIB), judged("large", rate=22_000.0, limit=64 * GIB)
    still = judged("still", "steady", rate=1e6, limit=GIB)
    assert [one.label for one in by_weight([still, small, large])] == ["large", "small", "still"]
    near = replace(small, limit=MIB)
    assert tile(replace(small_report(), growth=(still, large, near)), "Growth")[1].startswith("small, ")


def test_rss_that_only_shows_a_devices_growth_comes_after_it() -> None:
    device = replace(judged("CPU:0", rate=128.0), series="device_in_use_bytes CPU:0", interval=(127.0, 129.0))
    rss = replace(judged("host RSS", rate=150.0, limit=GIB), series="host_rss_bytes", interval=(120.0, 180.0))
    other = judged("other", rate=140.0, limit=GIB)
    assert [one.label for one in by_weight([rss, device])] == ["CPU:0", "host RSS"]
    assert [one.label for one in by_weight([rss, device, other])] == ["other", "CPU:0", "host RSS"]
    assert by_weight([replace(rss, interval=(135.0, 165.0)), device])[0] is device  # Python objects come on top
    # RSS that surely grows by more has a cause of its own, and a GPU's memory is not the host's.
    more = replace(rss, interval=(170.0, 180.0))
    gpu = replace(device, series="device_in_use_bytes GPU:0")
    assert by_weight([device, more])[0] is more and by_weight([gpu, rss])[0] is rss
    # What does not grow explains nothing.
    still = replace(device, verdict="steady")
    assert [one.label for one in by_weight([still, rss])] == ["host RSS", "CPU:0"]


def test_what_is_not_known_yet_comes_before_what_is_steady() -> None:
    verdicts: list[Verdict] = ["steady", "too short to tell", "filling", "waits for the collector", "growing"]
    found = by_weight([judged(verdict, verdict) for verdict in verdicts])
    assert [one.verdict for one in found] == verdicts[::-1]


def test_without_a_limit_the_largest_known_one_stands_for_it() -> None:
    known, unknown = judged("known", rate=100.0, limit=GIB), judged("unknown", rate=200.0)
    assert (
        by_weight([known, unknown])[0] is unknown
        and by_weight([known, replace(unknown, bytes_per_step=50.0)])[0] is known
    )
