"""The values in each figure are the report's, and none that matters is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import (
    MIB,
    NAN,
    lines,
    partial_report,
    run_info,
    samples,
    small_report,
    traced_steps,
    untraced_report,
    wide_report,
)
from timelines import MADE, STEP, realistic_step, step, timeline

from kerasmemwatch.analysis.steps.live_set import category_series, grouped_series, peak_event, requested_at
from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.growth import VERDICTS, Growth, LeakFinding
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.reports.figures.allocations import allocations
from kerasmemwatch.reports.figures.comparison import comparison
from kerasmemwatch.reports.figures.growth import growth, held_more, steps_to_compare
from kerasmemwatch.reports.figures.layers import layers
from kerasmemwatch.reports.figures.moments import phase_spans
from kerasmemwatch.reports.figures.overview import overview
from kerasmemwatch.reports.figures.palette import theme_named
from kerasmemwatch.reports.figures.peak import is_within, peak
from kerasmemwatch.reports.figures.step_timeline import step_timeline
from kerasmemwatch.reports.figures.thinning import drawn_points, drawn_series
from kerasmemwatch.reports.report import make_report

UNITS = {"bytes": 1, "KiB": 1024, "MiB": MIB, "GiB": 2**30, "TiB": 2**40}


def named(figure: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [trace for trace in figure["data"] if trace.get("name") == name]
    return found


def unit_of(figure: dict[str, Any], axis: str) -> int:
    """Bytes of the unit that an axis names in its title."""
    title = figure["layout"][axis]["title"]["text"]
    return UNITS[title.rpartition("(")[2].rstrip(")")]


def in_bytes(figure: dict[str, Any], values: list[float | None], axis: str = "yaxis") -> list[int | None]:
    unit = unit_of(figure, axis)
    return [None if value is None else int(value * unit) for value in values]


# -- thinning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 1000, 12_345])
def test_thinning_keeps_ends_and_the_highest_of_each_stretch(count: int) -> None:
    values = np.random.default_rng(count).random(count)
    kept = drawn_points(values, 100)
    assert len(kept) <= 103 and np.all(np.diff(kept) > 0)
    assert kept[0] == 0 and kept[-1] == count - 1 and int(values.argmax()) in kept
    highest = np.maximum.accumulate(values)
    # What is drawn never falls behind the highest so far by more than a stretch.
    assert np.isin(np.unique(highest[kept]), values[kept]).all()


def test_what_is_unknown_is_a_gap() -> None:
    x, y = drawn_series(np.arange(6.0), np.array([NAN, 1, NAN, NAN, 3, 4]), 100)
    assert (x, y) == ([1.0, 4.0, 4.0, 5.0], [1.0, None, 3.0, 4.0])
    assert drawn_series(np.arange(2.0), np.array([NAN, NAN]), 100) == ([], [])


# -- overview --------------------------------------------------------------------------------------------------


def test_the_overview_has_every_sample_of_a_short_run() -> None:
    report = small_report()
    figure = overview(report)
    curve = named(figure, "peak within a step")
    assert curve["x"] == report.samples["step"].tolist()
    assert in_bytes(figure, curve["y"]) == report.samples["device_peak_bytes"][:, 0].tolist()
    rss = named(figure, "host RSS")
    assert in_bytes(figure, rss["y"], "yaxis2") == report.samples["host_rss_bytes"].tolist()


def test_the_overview_marks_the_runs_peak() -> None:
    report = small_report()
    figure = overview(report)
    mark = named(figure, "peak of the run")
    assert mark["x"] == [report.peak.step] and in_bytes(figure, mark["y"]) == [report.peak.bytes]


@pytest.mark.parametrize("place", [0, 1, 70_000, 139_998, 139_999])
def test_the_overview_of_a_long_run_has_its_peak(place: int) -> None:
    peaks = np.full(140_000, 3.0 * MIB)
    peaks[place] = 177 * MIB
    figure = overview(make_report(run_info(), samples(140_000, peak=peaks)))
    curve = named(figure, "peak within a step")
    assert len(curve["x"]) < 4000
    assert max(in_bytes(figure, curve["y"])) == 177 * MIB  # type: ignore[type-var]
    assert curve["x"][int(np.argmax(curve["y"]))] == place + 1


def test_several_devices_have_curves_of_their_own() -> None:
    report = make_report(run_info(devices=3), samples(10, devices=3))
    figure = overview(report)
    for index in range(3):
        curve = named(figure, f"GPU:{index} peak within a step")
        assert in_bytes(figure, curve["y"]) == report.samples["device_peak_bytes"][:, index].tolist()


def test_limits_are_drawn_when_they_are_near() -> None:
    def limits(peak_bytes: float) -> list[float]:
        report = make_report(run_info(), samples(5, peak=np.full(5, peak_bytes), rss=np.full(5, 1000.0)))
        return [shape["y0"] for shape in overview(report)["layout"]["shapes"] if shape["name"] == "limit"]

    assert limits(99 * MIB) == []
    assert limits(101 * MIB) == [200.0]


def test_epochs_are_marked_where_they_begin() -> None:
    report = make_report(run_info(), samples(6, epochs=[0, 0, 1, 1, NAN, 2]))
    marks = [shape for shape in overview(report)["layout"]["shapes"] if shape["name"].startswith("epoch")]
    assert [(mark["name"], mark["x0"]) for mark in marks] == [("epoch 2", 2.5), ("epoch 3", 5.5)]
    many = overview(make_report(run_info(), samples(5000, epochs=np.arange(5000))))
    assert 30 <= len([shape for shape in many["layout"]["shapes"] if shape["name"].startswith("epoch")]) <= 60


def test_leaks_are_shaded_from_where_they_begin() -> None:
    leak = LeakFinding("graphs <b>kept</b>", "", 8.0, 7, 0.9, "", "")
    figure = overview(replace(small_report(), leaks=(leak, replace(leak, since_step=None))))
    [mark] = [shape for shape in figure["layout"]["shapes"] if shape["name"] == "leak"]
    assert (mark["x0"], mark["x1"]) == (7, 60) and mark["label"]["text"] == "graphs &lt;b&gt;kept&lt;/b&gt;"


def test_a_column_that_is_unknown_is_left_out() -> None:
    report = make_report(run_info(), samples(10, peak=np.full(10, NAN), rss=np.full(10, NAN)))
    assert overview(report)["data"] == []
    figure = overview(make_report(run_info(), samples(10, rss=np.full(10, NAN))))
    assert "yaxis2" not in figure["layout"] and "host RSS at most: unknown" in figure["layout"]["meta"][
        "summary"
    ].replace("Host", "host")


# -- peak ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("report", [small_report(), wide_report(1), wide_report(40)], ids=["small", "one", "forty"])
@pytest.mark.parametrize("shape", ["treemap", "icicle"])
def test_the_areas_are_the_live_set_of_the_peak(report: Any, shape: str) -> None:
    [trace, *keys] = peak(report, shape=shape)["data"]
    leaves = {}
    for (path, category), value in zip(trace["customdata"], trace["values"], strict=True):
        if category:
            leaves[path, category] = value
    expected = {
        (row.path, name): getattr(row, f"{name}_bytes")
        for row in report.peak.by_layer
        for name in CATEGORIES
        if getattr(row, f"{name}_bytes")
    }
    assert leaves == expected
    assert trace["values"][0] == report.peak.requested_bytes == sum(leaves.values())
    assert [key["name"] for key in keys] == [name for name in CATEGORIES if report.peak.by_category[name]]


@pytest.mark.parametrize("num_layers", [2, 500, 2000])
def test_every_area_is_the_sum_of_what_is_in_it(num_layers: int) -> None:
    report = wide_report(num_layers)
    trace = peak(report)["data"][0]
    inside: dict[str, int] = {}
    for parent, value in zip(trace["parents"], trace["values"], strict=True):
        inside[parent] = inside.get(parent, 0) + value
    for number, value, (_, category) in zip(trace["ids"], trace["values"], trace["customdata"], strict=True):
        assert category or inside[number] == value
    assert trace["values"][0] == report.peak.requested_bytes
    by_category = dict.fromkeys(CATEGORIES, 0)
    for (_, category), value in zip(trace["customdata"], trace["values"], strict=True):
        if category:
            by_category[category] += value
    assert by_category == report.peak.by_category
    assert len(trace["ids"]) == len(set(trace["ids"])) < 3000


def test_a_layer_called_as_an_owner_is_kept_apart_from_it() -> None:
    made = timeline(
        [(10, -1, 2, "metrics", "other", "between", ""), (30, 0, 2, "metrics2", "weights", "forward", "")], 2
    )
    made = replace(made, device="GPU:0", owners=("metrics", "metrics"), classes=("", "Dense"))
    trace = peak(make_report(run_info(), samples(3), (), [step(made)]))["data"][0]
    assert sorted(zip(trace["labels"], trace["values"], strict=True)) == [
        ("metrics", 10),
        ("metrics", 30),
        ("other", 10),
        ("training step 3", 40),
        ("weights", 30),
    ]


def test_the_peak_of_one_layer() -> None:
    trace = peak(small_report(), layer="encoder")["data"][0]
    assert {path for path, category in trace["customdata"] if category} == {"encoder/dense"}
    assert peak(small_report(), layer="enc")["data"] == []
    assert [is_within(path, "a") for path in ("a", "a/b", "ab", "b/a")] == [True, True, False, False]


# -- step timeline ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["category", "layer"])
@pytest.mark.parametrize("made", [STEP, *MADE], ids=range(len(MADE) + 1))
def test_the_areas_of_a_step_sum_to_what_is_alive(made: Any, by: str) -> None:
    figure = step_timeline(step(made), by=by)
    total = requested_at(made)
    if not total.any():
        assert figure["data"] == []
        return
    areas = [trace for trace in figure["data"] if "stackgroup" in trace]
    stacked = np.sum([in_bytes(figure, area["y"]) for area in areas], axis=0)
    assert stacked.tolist() == total.tolist() == in_bytes(figure, named(figure, "all")["y"])
    assert in_bytes(figure, named(figure, "peak")["y"]) == [total.max()]
    assert named(figure, "peak")["x"] == [peak_event(made) + 1]


def test_a_step_by_category_is_the_category_series() -> None:
    figure, series = step_timeline(step(STEP)), category_series(STEP)
    for index, name in enumerate(CATEGORIES):
        if series[index].any():
            assert in_bytes(figure, named(figure, name)["y"]) == series[index].tolist()


@pytest.mark.parametrize("x", ["event", "time"])
@pytest.mark.parametrize("by", ["category", "layer"])
def test_the_peak_survives_100_000_events(x: str, by: str) -> None:
    big = realistic_step()
    figure = step_timeline(big, x=x, by=by)
    total = requested_at(big.timeline)
    assert len(named(figure, "all")["x"]) < 2000
    assert in_bytes(figure, named(figure, "peak")["y"]) == [int(total.max())]
    assert max(in_bytes(figure, named(figure, "all")["y"])) == total.max()  # type: ignore[type-var]
    areas = [trace for trace in figure["data"] if "stackgroup" in trace]
    stacked = np.sum([in_bytes(figure, area["y"]) for area in areas], axis=0)
    assert stacked.tolist() == in_bytes(figure, named(figure, "all")["y"])


def test_a_window_is_drawn_in_full() -> None:
    big = realistic_step()
    figure = step_timeline(big, window=(50_000, 50_400))
    curve, total = named(figure, "all"), requested_at(big.timeline)
    assert curve["x"] == list(range(49_999, 50_402))
    assert in_bytes(figure, curve["y"]) == total[49_999:50_402].tolist()
    assert figure["layout"]["xaxis"]["range"] == [50_000, 50_400]


@pytest.mark.parametrize("window", [(-50, -10), (1e9, 2e9), (3, 3), (4, 2), (0, 0)])
def test_an_odd_window_is_no_error(window: tuple[float, float]) -> None:
    for x in ("event", "time"):
        for made in (step_timeline, allocations):
            figure = made(step(STEP), window=window, x=x)
            assert figure["layout"]["meta"]["summary"]


def test_by_layer_the_largest_are_named_and_the_others_together() -> None:
    report = wide_report(40)
    figure = step_timeline(report.steps[0], by="layer", top=3)
    areas = [trace for trace in figure["data"] if "stackgroup" in trace]
    largest = [row.path for row in report.peak.by_layer][:3]
    assert [area["meta"]["path"] for area in areas[:3]] == largest and areas[3]["name"] == "others"


def test_a_moment_says_what_was_born_and_whose_it_is() -> None:
    curve = named(step_timeline(traced_steps()[0]), "all")
    assert curve["customdata"][2] == ["encoder/dense"]
    assert "forward: +400.0 KiB by MatMul<br>of encoder/dense" in curve["text"][2]
    assert curve["customdata"][0] == [None] and "<br>" not in curve["text"][0]


def test_a_step_of_one_layer() -> None:
    figure = step_timeline(step(STEP), layer="dense")
    mine = np.where(np.array(STEP.owners)[STEP.owner] == "dense", 0, -1)
    assert in_bytes(figure, named(figure, "all")["y"]) == grouped_series(STEP, mine, 1)[0].tolist()


def test_phases_are_shaded_in_order() -> None:
    found = [(span.phase, span.begin, span.end) for span in phase_spans(traced_steps()[0].timeline)]
    assert found == [("forward", 2, 7), ("backward", 7, 11), ("update", 11, 13)]
    shapes = step_timeline(traced_steps()[0])["layout"]["shapes"]
    assert [shape["name"] for shape in shapes] == ["forward", "backward", "update"]
    assert phase_spans(MADE[0]) == []


def test_a_few_bytes_of_another_phase_are_no_phase_of_their_own() -> None:
    many = [(2**20, event, event + 1, "dense", "activations", "forward", "") for event in range(50)]
    many[20] = (8, 20, 21, "optimizer", "temporaries", "update", "")
    many += [(2**20, event, event + 1, "dense", "gradients", "backward", "") for event in range(50, 100)]
    spans = phase_spans(timeline(many, 100))
    assert [(span.phase, span.begin, span.end) for span in spans] == [("forward", 1, 51), ("backward", 51, 101)]


def test_phases_of_several_executions_repeat() -> None:
    phases = ["forward"] * 20 + ["backward"] * 20 + ["update"] * 10
    many = [(4096, event, event + 1, "dense", "other", (phases * 3)[event], "") for event in range(150)]
    assert [span.phase for span in phase_spans(timeline(many, 150))] == ["forward", "backward", "update"] * 3


# -- allocations -----------------------------------------------------------------------------------------------


def test_each_buffer_is_a_bar_as_long_as_it_lives() -> None:
    made = traced_steps()[0]
    figure = allocations(made)
    bars = [
        (trace["name"], path, begin, length)
        for trace in figure["data"]
        for (path,), begin, length in zip(trace["customdata"], trace["base"], trace["x"], strict=True)
    ]
    expected = [(line[4], line[3], max(line[1] + 1, 0), line[2] - line[1]) for line in lines()]
    assert sorted(bars) == sorted(expected)
    heights = sum(height for trace in figure["data"] for height in in_bytes(figure, trace["width"]))  # type: ignore[misc]
    assert heights == sum(line[0] for line in lines())


def test_small_buffers_are_summed_up() -> None:
    figure = allocations(traced_steps()[0], most=3)
    rest = figure["data"][-1]
    assert rest["name"] == "9 smaller buffers" and sum(len(trace.get("base", ())) for trace in figure["data"]) == 3
    largest = sorted((line[0] for line in lines()), reverse=True)[:3]
    others = [line for line in lines() if line[0] not in largest]
    alive = [sum(line[0] for line in others if line[1] + 1 <= moment < line[2] + 1) for moment in range(13)]
    assert in_bytes(figure, rest["y"], "yaxis2")[:-1] == alive


# -- layers ----------------------------------------------------------------------------------------------------


def test_the_bars_are_the_reports_layers() -> None:
    report = small_report(steps=traced_steps(with_inference=False))
    figure = layers(report)
    for name in CATEGORIES:
        expected = {row.path: getattr(row, f"{name}_bytes") for row in report.layers if getattr(row, f"{name}_bytes")}
        found = [trace for trace in figure["data"] if trace.get("name") == name]
        shown = {
            path: size
            for trace in found
            for (path,), size in zip(trace["customdata"], in_bytes(figure, trace["x"], "xaxis"), strict=True)
        }
        assert shown == expected
    most = named(figure, "most at once")
    totals = {row.path: row.total_bytes for row in report.layers if row.total_bytes}
    found_totals = zip(most["customdata"], in_bytes(figure, most["x"], "xaxis"), strict=True)
    assert {path: size for (path,), size in found_totals} == totals


def test_training_stands_beside_inference() -> None:
    figure = layers(small_report())
    headings = figure["layout"]["annotations"]
    assert [each["text"] for each in headings] == [
        "<b>Training</b><br>step 10",
        "<b>Inference</b><br>validation step 30",
    ]
    # Each is where its panel begins.
    assert [each["x"] for each in headings] == [figure["layout"][axis]["domain"][0] for axis in ("xaxis", "xaxis2")]
    assert {(each["y"], each["yanchor"]) for each in headings} == {(1, "bottom")}
    held = {trace["name"] for trace in figure["data"] if trace["xaxis"] == "x2" and trace.get("name")}
    assert "gradients" not in held and "weights" in held
    # Each category is in the legend once.
    keys = [trace["name"] for trace in figure["data"] if trace.get("showlegend")]
    assert len(keys) == len(set(keys))


def test_what_is_unknown_of_a_layer_is_called_unknown() -> None:
    figure = layers(untraced_report())
    words = [text for trace in figure["data"] if trace.get("mode") == "text" for text in trace["text"]]
    assert words == ["  unknown"]
    [bar] = [trace for trace in figure["data"] if trace.get("name") == "weights"]
    assert bar["customdata"] == [["dense"]] and "activations unknown" in bar["hovertext"][0].replace(":", "")
    assert "No step was traced" in figure["layout"]["annotations"][0]["text"]


def test_of_many_layers_the_largest_are_drawn_and_the_rest_counted() -> None:
    report = wide_report(500)
    figure = layers(report, most=10)
    assert len(figure["layout"]["yaxis"]["ticktext"]) == 10
    assert "490 smaller ones are not drawn" in figure["layout"]["annotations"][0]["text"]
    totals = sorted((row.total_bytes or 0 for row in report.layers), reverse=True)[:10]
    most = named(figure, "most at once")
    assert sorted(in_bytes(figure, most["x"], "xaxis"), reverse=True) == totals  # type: ignore[type-var]


# -- growth ----------------------------------------------------------------------------------------------------


def test_green_says_only_that_nothing_grows() -> None:
    looks = {}
    for verdict in VERDICTS:
        one = Growth("host_rss_bytes", verdict, 8.0, "step", (4.0, 12.0), 1, None, None, 8.0, verdict, 300, "host RSS")
        [point] = [trace for trace in growth(replace(small_report(), growth=(one,)))["data"] if "error_x" in trace]
        looks[verdict] = (point["marker"]["color"], point["marker"]["symbol"])
    green = looks.pop("steady")[0]
    assert green == theme_named("light").series[2] and green not in [colour for colour, _ in looks.values()]
    assert len({looks["growing"], looks["waits for the collector"], looks["too short to tell"]}) == 3


def test_growth_has_slopes_and_intervals() -> None:
    report = small_report()
    figure = growth(report)
    for one, name in zip(report.growth, ("GPU:0 in use", "host RSS"), strict=True):
        trace, unit = named(figure, name), unit_of(figure, "xaxis")
        assert trace["x"][0] * unit == pytest.approx(one.bytes_per_step)
        assert (trace["x"][0] + trace["error_x"]["array"][0]) * unit == pytest.approx(one.high)
        assert (trace["x"][0] - trace["error_x"]["arrayminus"][0]) * unit == pytest.approx(one.low)


def test_without_a_rate_there_are_no_axes_for_rates() -> None:
    short = Growth("host_rss_bytes", "too short to tell", None, "step", None, 1, None, None, None, "", 9, "host RSS")
    layout = growth(replace(small_report(), growth=(short,)))["layout"]
    assert "xaxis" not in layout and layout["yaxis2"]["domain"] == [0.0, 1.0]
    known = growth(small_report())["layout"]
    assert "xaxis" in known and layout["height"] < known["height"]
    none = growth(replace(small_report(steps=()), growth=(short,)))["layout"]
    assert "Too few samples" in none["annotations"][0]["text"]


def test_what_is_held_more_between_two_traced_steps() -> None:
    steps = traced_steps()
    first, last, _ = steps
    assert steps_to_compare(steps) == (first, last)
    assert held_more(first, last) == {Owner.layer("eager tensors"): {"other": 4096}}
    figure = growth(small_report())
    trace = named(figure, "other")
    assert trace["customdata"] == [["eager tensors"]] and in_bytes(figure, trace["x"], "xaxis2") == [4096]
    assert held_more(last, first) == {Owner.layer("eager tensors"): {"other": -4096}}


def test_steps_of_different_kinds_are_not_compared() -> None:
    first, last, inference = traced_steps()
    assert steps_to_compare([first, inference]) is None
    assert steps_to_compare([first, replace(last, mode="xla")]) is None
    assert steps_to_compare([first, replace(last, timeline=replace(last.timeline, device="CPU:0"))]) is None
    assert steps_to_compare([first]) is None


def test_nothing_held_more_is_said() -> None:
    figure = growth(wide_report(3))
    [said] = [one for one in figure["layout"]["annotations"] if "the same was held" in one["text"]]
    assert (said["x"], said["xanchor"]) == (0.5, "center")  # the panel has no bars or labels beside it


# -- comparison ------------------------------------------------------------------------------------------------


def test_runs_are_compared_by_curve_category_and_layer() -> None:
    one, other = small_report("a"), small_report("b", steps=[step(timeline(lines(2**20), 12))])
    figure = comparison([one, other])
    curves = [trace for trace in figure["data"] if trace.get("yaxis") == "y"]
    for report, curve in zip((one, other), curves, strict=True):
        highest = np.fmax(report.samples["device_peak_bytes"], report.samples["device_between_peak_bytes"])[:, 0]
        assert curve["name"] == report.run.name and in_bytes(figure, curve["y"]) == highest.tolist()
    weights = named(figure, "weights")
    expected = [report.peak.by_category["weights"] for report in (one, other)]
    assert in_bytes(figure, weights["x"], "xaxis2") == expected
    layers_drawn = [trace for trace in figure["data"] if trace.get("xaxis") == "x3"]
    assert [path for path, _ in layers_drawn[0]["customdata"]] == ["eager tensors"]
    sizes = [in_bytes(figure, trace["x"], "xaxis3")[0] for trace in layers_drawn]
    assert sizes == [8192 + 4096, 8192 + 2**20]


def test_runs_of_one_name_keep_their_colours_apart() -> None:
    figure = comparison([small_report("a"), small_report("a", steps=[step(timeline(lines(9999), 12))])])
    colours = [trace["marker"]["color"] for trace in figure["data"] if trace.get("xaxis") == "x3"]
    assert len(set(colours)) == 2


def test_of_runs_without_a_trace_there_are_curves() -> None:
    figure = comparison([untraced_report(), untraced_report()], ["a", "b"])
    assert [trace["name"] for trace in figure["data"]] == ["a", "b"]
    assert comparison([])["data"] == []
    with pytest.raises(InvalidArgumentError, match="1 names for 2 reports"):
        comparison([untraced_report()] * 2, ["a"])


def test_a_layer_of_unknown_size_is_no_error() -> None:
    report = make_report(run_info(), samples(3), (LayerMemory("a", "Dense"),), traced_steps())
    assert "  unknown" in [text for trace in layers(report)["data"] for text in trace.get("text", [])]


def test_a_partial_count_is_called_so_in_figures() -> None:
    figure = overview(partial_report())
    names = [trace["name"] for trace in figure["data"]]
    assert "peak of the run (partial)" in names and "peak within a step (partial)" in names and "host RSS" in names
    assert named(figure, "peak of the run (partial)")["text"][0].startswith("at least ")
    assert "Device peak (partial): at least" in figure["layout"]["meta"]["summary"]
    both = comparison([partial_report(), small_report()], ["a", "b"])
    assert both["layout"]["meta"]["summary"].startswith("a: device peak (partial) at least ")
    assert [trace["name"] for trace in both["data"][:2]] == ["a (partial)", "b"]
    assert "no traced step had a larger one" in peak(partial_report())["layout"]["meta"]["summary"]
