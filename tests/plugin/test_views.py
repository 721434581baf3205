"""What the views say agrees with the report: its notes, the step they are about, and no columns that it leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from runs import run_info, samples, traced_steps, two_device_steps
from timelines import step, timeline

from kerasmemwatch.analysis.caveats import all_notes
from kerasmemwatch.analysis.leak_words import THEIRS
from kerasmemwatch.recording import Recording
from kerasmemwatch.records.death import Death
from kerasmemwatch.records.growth import Growth, LeakFinding, TraceLink
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.tensorboard_plugin.views import VIEWS

TESTED = step(
    timeline([(500, 0, 1, "head", "temporaries", "forward", "MatMul")], 2, device="GPU:0"), 9, stage="test", epoch=None
)


def sections(view: str, *steps: TracedStep, **changed: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = VIEWS[view]({"run": recorded(*steps, **changed)}, {})["sections"]
    return found


def recorded(*steps: TracedStep, **changed: Any) -> Recording:
    return Recording(replace(run_info(), **changed), samples(60), (), steps)


@pytest.mark.parametrize("steps", [(), traced_steps()], ids=["untraced", "traced"])
@pytest.mark.parametrize("notes", [(), ("something was not measured",)], ids=["no notes", "a note"])
def test_the_notes_are_the_reports_and_as_many_as_the_tile_says(steps: Any, notes: tuple[str, ...]) -> None:
    changed = {"notes": notes, "configuration": {"reset_peak": False}}
    tiles, _, listed = sections("overview", *steps, **changed)
    expected = list(all_notes(recorded(*steps, **changed).report))
    assert listed["notes"] == expected
    assert "Peaks are run maxima" in expected[0]
    assert tiles["tiles"][-1]["value"] == str(len(expected))


def test_causes_of_growth_are_counted_and_listed_with_the_notes() -> None:
    recording = recorded()
    links = (TraceLink("list", "suspect"), TraceLink("<b>Model", "stuck"))
    leak = LeakFinding("graphs are kept", "", None, None, None, "", "Drop it\x00", trace=links)
    recording.__dict__["report"] = replace(recording.report, leaks=(leak,))
    tiles, cause, _, listed = VIEWS["overview"]({"run": recording}, {})["sections"]
    assert VIEWS["growth"]({"run": recording}, {})["sections"][1] == cause
    assert (cause["title"], cause["notes"]) == ("graphs are kept", ["Fix: Drop it?"])
    assert cause["trace"] == [["list  <- CHANGE THIS", True], ["   -> <b>Model  [stuck]", False]]
    assert "graphs are kept" in listed["notes"]
    assert tiles["tiles"][-1]["value"] == str(len(listed["notes"]))


@pytest.mark.parametrize("verdict", ["growing", "steady"])
def test_growth_without_a_cause_has_an_unknown_one(verdict: Any) -> None:
    recording = recorded()
    growth = Growth("device_in_use_bytes CPU:0", verdict, 1000.0, "step", (900, 1100), 20, None, None, 1000.0, "", 200)
    recording.__dict__["report"] = replace(recording.report, growth=(growth,), leaks=())
    for view in ("overview", "growth"):
        notes = [each for each in VIEWS[view]({"run": recording}, {})["sections"] if each["kind"] == "notes"]
        told = [note for each in notes for note in each["notes"] if note.startswith("Cause: unknown")]
        assert len(told) == (verdict == "growing")
        assert any(each.get("empty") == "None was found." for each in notes) == (view == "growth" and not told)


def test_causes_in_tensorflow_are_listed_apart() -> None:
    recording = recorded()
    yours, theirs = (
        LeakFinding(whose, "", None, None, None, "", "", whose=whose) for whose in ("yours", "TensorFlow's")
    )
    recording.__dict__["report"] = replace(recording.report, leaks=(theirs, yours))
    titles = [section.get("title") for section in VIEWS["growth"]({"run": recording}, {})["sections"]]
    assert titles[1:4] == ["yours", THEIRS, "TensorFlow's, TensorFlow's own"]


def test_a_step_that_ran_out_of_memory_comes_first() -> None:
    tries = (Death(3, "train", batch=64), Death(4, "train", batch=32, followed=True, fitted_batch=16))
    notes, tiles, *_ = sections("overview", deaths=tries)
    assert notes["title"] == ("Step 4 ran out of memory: a batch of 32 did not fit. Afterwards a batch of 16 fitted.")
    assert notes["notes"][-1] == "Before: Step 3 ran out of memory: a batch of 64 did not fit."
    assert tiles["kind"] == "tiles"


def test_a_layer_that_is_called_as_an_owner_has_a_line_of_its_own_in_a_comparison() -> None:
    held = [(2**20, -1, 1, "metrics", "weights", "between", ""), (12, -1, 1, "named", "other", "between", "")]
    made = replace(timeline(held, 1, device="GPU:0"), owners=("metrics", "metrics"), classes=("Dense", ""))
    runs = {"a": recorded(step(made)), "b": recorded(step(replace(made, classes=("LSTM", ""))))}
    table = VIEWS["compare"](runs, {})["sections"][-1]
    assert [column["label"] for column in table["columns"]] == ["layer", "class", "a", "b"]
    assert table["rows"] == [["metrics", "Dense", 2**20, 2**20], ["metrics", "", 12, 12]]
    assert table["columns"][table["order"]]["label"] == "a"


@pytest.mark.parametrize("view", ["peak", "layers"])
def test_tables_name_their_step_and_show_nothing_of_training_beside_a_test_step(view: str) -> None:
    tables = {
        kind: next(one for one in sections(view, *steps) if one["kind"] == "table")
        for kind, steps in (("train", traced_steps()), ("test", (TESTED,)))
    }
    assert "training step 10" in tables["train"]["title"] and "validation step 9" in tables["test"]["title"]
    keys = {kind: {column["key"] for column in table["columns"]} for kind, table in tables.items()}
    gone = {"gradients_bytes", "optimizer_bytes", "activations_bytes"}
    assert gone <= keys["train"] and not gone & keys["test"]
    for table in tables.values():
        assert {len(row) for row in table["rows"]} == {len(table["columns"])}


def test_a_peak_that_was_not_traced_is_told() -> None:
    expected = "The run's peak of 110.0 MiB was in training step 8, which was not traced. Shown is validation step 9."
    assert sections("layers", TESTED)[0]["notes"] == [expected]
    figure = sections("peak", TESTED)[0]
    assert expected in figure["text"]
    assert expected in figure["figure"]["layout"]["annotations"][0]["text"].replace("<br>", " ").replace("&#39;", "'")
    # A step that is as high tells of those like it.
    alike = [replace(one, timeline=replace(one.timeline, in_use_before_bytes=110 << 20)) for one in traced_steps()]
    assert all(one["kind"] != "notes" for one in sections("layers", *alike))


# -- several devices -----------------------------------------------------------------------------------------------

_SHOWS_DEVICE = ("peak", "timeline", "layers")


def asked_of(view: str, *steps: TracedStep, **asked: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = VIEWS[view]({"run": recorded(*steps)}, asked)["sections"]
    return found


@pytest.mark.parametrize("view", _SHOWS_DEVICE)
def test_a_device_is_chosen_where_a_step_has_several(view: str) -> None:
    assert all(one.get("name") != "device" for one in asked_of(view, *traced_steps()))
    choice, *rest = asked_of(view, *two_device_steps())
    options = [
        ["GPU:0", "GPU:0: 1.1 MiB at most"],
        ["CPU:0", "CPU:0: 27.9 KiB at most"],
        ["GPU host (pinned)", "GPU host (pinned): 2.0 KiB at most"],
    ]
    assert (choice["kind"], choice["name"], choice["value"]) == ("choice", "device", "GPU:0")
    assert choice["options"] == options
    again, *other = asked_of(view, *two_device_steps(), device="CPU:0")
    assert (again["value"], again["options"]) == ("CPU:0", options)
    shown = [one["text"] for one in (*rest, *other) if one["kind"] == "figure"]
    assert len(shown) == len(set(shown)) and any("embedding" in str(one) for one in other)


@pytest.mark.parametrize("view", _SHOWS_DEVICE)
def test_a_device_that_another_run_has_is_passed_over(view: str) -> None:
    assert asked_of(view, *two_device_steps(), device="GPU:7") == asked_of(view, *two_device_steps())
    assert asked_of(view, *traced_steps(), device="CPU:0") == asked_of(view, *traced_steps())
    assert asked_of(view, device="CPU:0") == asked_of(view)


def test_a_step_without_the_device_is_shown_on_its_own() -> None:
    choice, steps, *_ = asked_of("timeline", *two_device_steps(), step="2", device="GPU host (pinned)")
    assert (choice["value"], steps["value"]) == ("GPU:0", 2)
    assert [value for value, _ in choice["options"]] == ["GPU:0", "CPU:0"]
    choice, steps, *_ = asked_of("timeline", *two_device_steps(), device="GPU host (pinned)")
    assert (choice["value"], steps["value"]) == ("GPU host (pinned)", 10)
    assert [value for value, _ in steps["options"]] == [2, 10]


@pytest.mark.parametrize("view", ["moments", "buffers"])
def test_a_window_is_of_the_device(view: str) -> None:
    asked = {"step": "10", "from": "0", "to": "4", "by": "layer"}
    found = [
        VIEWS[view]({"run": recorded(*two_device_steps())}, {**asked, **more}) for more in ({}, {"device": "CPU:0"})
    ]
    assert found[0] != found[1] and "embedding" in str(found[1]) and "embedding" not in str(found[0])


def test_what_is_shown_names_its_device_and_where_the_peak_was() -> None:
    _, notes, *_ = asked_of("layers", *two_device_steps(), device="CPU:0")
    assert notes["notes"] == [
        "The run's peak of 110.0 MiB was on GPU:0, in training step 8. Shown is training step 10 on CPU:0."
    ]
    titles = [one["title"] for one in asked_of("peak", *two_device_steps())]
    assert titles[1:] == [
        "Alive at the peak of training step 10 on GPU:0",
        "At the peak of training step 10 on GPU:0, by layer",
    ]
