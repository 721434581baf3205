"""What a recording is judged to say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import two_device_steps
from timelines import STEP, step, timeline

from kerasmemwatch.analysis.findings import find_peak
from kerasmemwatch.analysis.steps.layer_table import layer_table
from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.peaks import TracedPeak
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Column, Samples
from kerasmemwatch.reports.figures.views import view_figure
from kerasmemwatch.reports.report import Report, make_report
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS

NAN = float("nan")
TRAIN, TEST = 0, 1


def run(*devices: str, **configuration: object) -> RunInfo:
    return RunInfo("run", 0.0, devices=tuple(map(DeviceInfo, devices)), configuration=configuration)


def recorded(
    within: Sequence[Sequence[float]],
    between: Sequence[Sequence[float]] | None = None,
    in_use: Sequence[Sequence[float]] | None = None,
    rss: Sequence[float] | None = None,
    stages: Sequence[int] | None = None,
    epochs: Sequence[float] | None = None,
) -> Samples:
    """Samples of steps 10, 20, ..., with a value for each device in each row."""
    rows, width = len(within), len(within[0])
    steps = 10.0 * np.arange(1, rows + 1)
    unknown = np.full((rows, width), NAN)
    layout = (
        *BASE_COLUMNS,
        *(Column(name, width) for name in ("device_peak_bytes", "device_between_peak_bytes", "device_in_use_bytes")),
        Column("host_rss_bytes"),
    )
    table = np.column_stack(
        [
            steps,
            steps,
            np.zeros(rows) if epochs is None else epochs,
            np.zeros(rows) if stages is None else stages,
            steps,
            within,
            unknown if between is None else between,
            unknown if in_use is None else in_use,
            np.full(rows, NAN) if rss is None else rss,
        ]
    )
    return to_samples([(layout, table)])


# -- peak ------------------------------------------------------------------------------------------------------


def test_the_peak_is_the_highest_batch() -> None:
    samples = recorded([[5], [9], [7]], [[1], [1], [1]], epochs=[0, 1, 2])
    peak = find_peak(run("GPU:0"), samples)
    assert (peak.bytes, peak.step, peak.device, peak.stage, peak.epoch, peak.phase) == (
        9,
        20,
        "GPU:0",
        "train",
        1,
        None,
    )


def test_a_peak_between_two_batches_is_the_runs_peak() -> None:
    peak = find_peak(run("GPU:0"), recorded([[5], [9], [7]], [[1], [2], [30]]))
    assert (peak.bytes, peak.step, peak.phase) == (30, 30, "between")


@pytest.mark.parametrize("configuration", [{"reset_peak": False}, {"sample_every": 5}])
def test_where_windows_overlap_the_phase_is_unknown(configuration: dict[str, object]) -> None:
    assert find_peak(run("GPU:0", **configuration), recorded([[5]], [[30]])).phase is None


def test_over_devices_it_is_the_maximum_and_never_a_sum() -> None:
    peak = find_peak(run("GPU:0", "GPU:1"), recorded([[5, 6], [6, 7]], [[1, 1], [1, 1]]))
    assert (peak.bytes, peak.device, peak.step) == (7, "GPU:1", 20)


def test_of_equal_peaks_it_is_the_first() -> None:
    assert find_peak(run("GPU:0"), recorded([[5], [5]], [[5], [5]])).step == 10


def test_unknown_values_are_passed_over() -> None:
    peak = find_peak(run("A", "B"), recorded([[NAN, 3], [NAN, NAN]], [[NAN, NAN], [NAN, 2]]))
    assert (peak.bytes, peak.device, peak.step) == (3, "B", 10)


def test_a_peak_outside_of_training_has_no_epoch() -> None:
    peak = find_peak(run("A"), recorded([[3]], stages=[TEST], epochs=[NAN]))
    assert (peak.stage, peak.epoch, peak.bytes) == ("test", None, 3)


@pytest.mark.parametrize("samples", [to_samples([]), recorded([[NAN], [NAN]]), recorded([[]])])
def test_without_an_allocator_it_is_unknown(samples: Samples) -> None:
    peak = find_peak(run("A"), samples)
    assert (peak.bytes, peak.step, peak.device) == (None, None, None)


def test_large_values_stay_exact() -> None:
    big = 2**53 - 1
    assert find_peak(run("A"), recorded([[big], [big - 1]])).bytes == big


# -- the whole -------------------------------------------------------------------------------------------------


def layer(path: str, **sizes: int | None) -> LayerMemory:
    return LayerMemory(path, "Dense", **sizes)


def test_totals_are_sums_over_layers() -> None:
    report = make_report(
        run(),
        to_samples([]),
        (layer("a", weights_bytes=1, optimizer_bytes=2), layer("b", weights_bytes=3, optimizer_bytes=0)),
    )
    assert (report.weights_bytes, report.optimizer_bytes) == (4, 2)


def test_a_total_with_an_unknown_part_is_unknown() -> None:
    report = make_report(run(), to_samples([]), (layer("a", weights_bytes=1), layer("b")))
    assert report.weights_bytes is None and report.optimizer_bytes is None
    assert make_report(run(), to_samples([])).weights_bytes is None


def test_peaks_that_equal_what_is_in_use_are_doubted() -> None:
    values = [[5.0 + row] for row in range(20)]
    assert "reset_memory_stats" in make_report(run("A"), recorded(values, in_use=values)).notes[-1]
    # One in twenty may be another thread's doing, one in four is what batches are like.
    once, often = ([[value + (not row % every)] for row, [value] in enumerate(values)] for every in (20, 4))
    assert len(make_report(run("A"), recorded(once, in_use=values)).notes) == 1
    assert make_report(run("A"), recorded(often, in_use=values)).notes == ()
    assert make_report(run("A"), recorded(values[:5], in_use=values[:5])).notes == ()
    unknown = [[NAN]] * 20
    assert make_report(run("A"), recorded(unknown, in_use=unknown)).notes == ()


def test_a_dictionary_is_json_without_nan() -> None:
    information = RunInfo(
        "run", NAN, ("t",), (DeviceInfo("A"),), {"python": "3"}, {"x": [NAN, (1,)]}, {}, ({"total": NAN},), ("n",)
    )
    values = np.arange(50.0)[:, None]
    report = make_report(information, recorded(values, in_use=values), (layer("a", weights_bytes=1),))
    raw: dict[str, Any] = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert raw["run"]["created"] is None and raw["run"]["configuration"] == {"x": [None, [1]]}
    assert raw["num_samples"] == 50 and raw["peak"]["bytes"] == 49 and raw["weights_bytes"] == 1
    assert raw["layers"][0]["path"] == "a" and raw["layers"][0]["total_bytes"] is None
    assert raw["growth"][0]["verdict"] == "too short to tell" and raw["growth"][0]["low"] is None


def test_later_findings_have_their_place() -> None:
    report = make_report(run(), to_samples([]))
    assert (report.leaks, report.coverage, report.growth) == ((), None, ())
    assert isinstance(report, Report)


# -- with traced steps -----------------------------------------------------------------------------------------


def test_the_highest_traced_step_explains_the_peak() -> None:
    higher = step(STEP, 7, output_bytes={"dense": 40})
    low = step(timeline([(169, 0, 1, "low", "activations", "forward", "MatMul")], 1), 3, mode="eager")
    samples = recorded([[5], [900], [7]])
    report = make_report(run("GPU:0"), samples, (layer("dense", weights_bytes=96),), (low, higher))
    peak = report.peak
    # The run's peak is the sampled one, wherever the traced steps were.
    assert (peak.bytes, peak.step, peak.device) == (900, 20, "GPU:0")
    assert (peak.requested_bytes, peak.phase, peak.op) == (170, "backward", "MatMulGrad")
    assert sum(peak.by_category.values()) == sum(row.total_bytes or 0 for row in peak.by_layer) == 170
    assert [row.path for row in peak.by_layer] == ["dense"]
    assert report.layers == layer_table(higher, (layer("dense", weights_bytes=96),))
    assert report.coverage == 1.0 and report.traced_steps == (3, 7)
    assert report.traced == TracedPeak(
        step=7,
        stage="train",
        epoch=0,
        mode="graph",
        device="CPU:0",
        phase="backward",
        op="MatMulGrad",
        owner="dense",
        allocated_bytes=30,
        requested_bytes=170,
        in_use_bytes=10**6 + 3 * 256,
    )


@pytest.mark.parametrize(
    ("within", "between", "phase"), [(9, NAN, None), (NAN, 9, "between"), (9, 9, None), (8, 9, "between")]
)
def test_a_window_that_is_unknown_does_not_hold_the_peak(within: float, between: float, phase: str | None) -> None:
    peak = find_peak(run("GPU:0"), recorded([[within]], [[between]]))
    assert (peak.bytes, peak.phase) == (9, phase)


def test_a_sampled_peak_between_batches_stays_one() -> None:
    between = make_report(run("GPU:0"), recorded([[5]], [[9]]), (), [step(STEP)])
    assert between.peak.phase == "between" and between.traced is not None and between.traced.phase == "backward"
    unknown_window = make_report(run("GPU:0", sample_every=2), recorded([[5]], [[9]]), (), [step(STEP)])
    assert unknown_window.peak.phase == "backward"


def test_without_samples_a_traced_step_still_tells() -> None:
    report = make_report(run(), to_samples([]), (), [step(STEP)])
    assert (report.peak.bytes, report.peak.requested_bytes) == (None, 170)


def test_a_step_that_only_falls_was_highest_before_it_began() -> None:
    lines = [(8, -1, 0, "dense", "weights", "between", "X")]
    report = make_report(run(), to_samples([]), (), [step(timeline(lines, 1))])
    assert (report.peak.requested_bytes, report.peak.phase, report.peak.op) == (8, "between", None)
    assert report.traced is not None and report.traced.allocated_bytes is report.traced.owner is None
    assert report.traced.in_use_bytes == 10**6


def test_a_step_without_allocations_says_so_little() -> None:
    report = make_report(run(), to_samples([]), (), [step(timeline([], 0))])
    assert (report.peak.requested_bytes, report.coverage, report.layers) == (0, None, ())


def test_a_nameless_operation_is_unknown() -> None:
    report = make_report(run(), to_samples([]), (), [step(timeline([(8, 0, 1, "a", "weights", "input", "")], 1))])
    assert (report.peak.phase, report.peak.op) == ("input", None)


@pytest.mark.parametrize(("unknown", "is_told"), [(9, False), (10, False), (11, True)])
def test_too_much_that_has_no_owner_is_told_first(unknown: int, is_told: bool) -> None:
    lines = [
        (1000 - unknown, 0, 1, "dense", "activations", "forward", "X"),
        (unknown, 0, 1, "unattributed", "unattributed", "forward", ""),
    ]
    traced = step(timeline(lines, 1), notes=("of the step",))
    report = make_report(replace(run(), notes=("of the run",)), to_samples([]), (), [traced])
    assert report.coverage == (1000 - unknown) / 1000
    assert report.notes[-2:] == ("of the run", "of the step")
    if is_told:
        assert report.notes[0].startswith("11 B (1.1%) of what was alive at the traced peak")
    else:
        assert len(report.notes) == 2


def test_a_dictionary_holds_the_traced_peak_too() -> None:
    raw = json.loads(json.dumps(make_report(run(), to_samples([]), (), [step(STEP)]).to_dict(), allow_nan=False))
    assert raw["peak"]["requested_bytes"] == 170 and raw["peak"]["by_category"]["activations"] == 40
    assert raw["peak"]["by_layer"][0]["total_bytes"] == 170 and raw["peak"]["bytes"] is None
    assert raw["traced"]["owner"] == "dense" and raw["traced_steps"] == [3] and raw["coverage"] == 1.0
    assert raw["layers"][0]["added_bytes"] == 160 and raw["layers"][0]["output_bytes"] is None
    assert make_report(run(), to_samples([])).to_dict()["traced"] is None


# -- on several devices ----------------------------------------------------------------------------------------


def test_the_table_is_of_the_device_that_the_peak_names() -> None:
    samples = recorded([[5, 900], [6, 7]], [[1, 1], [1, 1]])
    report = make_report(run("GPU:0", "CPU:0"), samples, (), two_device_steps())
    assert report.traced is not None and report.peak.device == report.traced.device == "CPU:0"
    assert report.peak.requested_bytes == sum(report.peak.by_category.values()) == 24 * 1024 + 4000
    assert {one.timeline.device for one in report.steps} == {"CPU:0"}
    assert report.devices == ("CPU:0", "GPU:0", "GPU host (pinned)")
    # Where the peak is on a device of which nothing is traced, it is that of the device that heads the steps.
    elsewhere = make_report(run("GPU:5"), recorded([[5]], [[1]]), (), two_device_steps())
    assert elsewhere.traced is not None and elsewhere.traced.device == "GPU:0"


def test_another_device_is_one_choice_away() -> None:
    held = (
        layer("embedding", weights_bytes=24 * 1024, optimizer_bytes=0, other_bytes=0),
        layer("head", weights_bytes=4),
    )
    samples = recorded([[900], [7]], [[1], [1]])
    report = make_report(replace(run("GPU:0"), notes=("of the run",)), samples, held, two_device_steps())
    host = report.on_device("CPU:0")
    assert (host.peak.bytes, host.peak.device, host.device) == (900, "GPU:0", "CPU:0")
    assert host.traced is not None and host.traced.device == "CPU:0" and host.peak.phase is None
    assert host.peak.requested_bytes == sum(row.total_bytes or 0 for row in host.peak.by_layer) == 24 * 1024 + 4000
    assert [row.path for row in host.layers] == ["embedding", "input pipeline", "unattributed"]
    # The model's variables are as many, wherever they lie.
    assert host.weights_bytes == report.weights_bytes == (24 + 100 + 50) * 1024
    assert host.coverage is not None and host.coverage < 1 and host.notes[0].startswith("1000 B (3.5%)")
    assert [note for note in host.notes if note == "of the run"] == ["of the run"]
    assert host.growth == report.growth and host.samples is report.samples
    back = host.on_device("GPU:0")
    assert back.peak.by_category == report.peak.by_category and back.traced == report.traced
    assert report.on_device("GPU:0") is report


def test_a_device_of_some_steps_has_those() -> None:
    pinned = make_report(run("GPU:0"), recorded([[5]]), (), two_device_steps()).on_device("GPU host (pinned)")
    assert pinned.traced_steps == (10,) and pinned.peak.requested_bytes == 2048
    assert pinned.to_dict()["devices"][0] == "GPU host (pinned)"


@pytest.mark.parametrize("view", ["peak", "step", "allocations", "layers"])
def test_figures_are_of_the_device_that_is_asked_for(view: str) -> None:
    report = make_report(run("GPU:0"), recorded([[5]]), (), two_device_steps())
    host = report.on_device("CPU:0")
    assert view_figure(report, view, device="CPU:0") == view_figure(host, view) != view_figure(report, view)
    with pytest.raises(InvalidArgumentError, match="'GPU:0', 'CPU:0', 'GPU host"):
        view_figure(report, view, device="GPU:9")
    with pytest.raises(InvalidArgumentError, match="Received: device"):
        view_figure(report, "overview", device="CPU:0")
