"""What the views say agrees with the report: its notes, the step they are about, and no columns that it leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from runs import run_info, samples, traced_steps
from timelines import step, timeline

from kerasmemwatch.notes import all_notes
from kerasmemwatch.recording import Recording
from kerasmemwatch.tensorboard_plugin.views import VIEWS
from kerasmemwatch.timeline import TracedStep

TESTED = step(timeline([(500, 0, 1, "head", "temporaries", "forward", "MatMul")], 2), 9, stage="test", epoch=None)


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
    assert tiles["tiles"][-1]["value"].startswith(f"{len(expected)} note")


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
