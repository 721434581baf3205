"""The traced peak in words, and the table of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from timelines import STEP, Line, step, timeline

from kerasmemwatch.analysis.steps.layer_table import layer_table
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Column, Samples
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.reports.report import Report, make_report
from kerasmemwatch.reports.text.report_text import plain_text
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS
from kerasmemwatch.units import GIB, KIB, MIB

LAYERS = 500


def report(
    lines: Sequence[Line] | TracedStep, inventory: Sequence[LayerMemory] = (), num_events: int = 4, **configuration: Any
) -> Report:
    made = lines if isinstance(lines, TracedStep) else step(timeline(lines, num_events))
    return make_report(RunInfo("run", 0.0, configuration=configuration), to_samples([]), tuple(inventory), [made])


def activation(path: str, size: int, birth: int = 0, death: int = 3) -> Line:
    return size, birth, death, path, "activations", "forward", f"StatefulPartitionedCall/{path}/Relu"


def table(text: str) -> dict[str, list[str]]:
    """The cells of each line of the table by its label, without the indent."""
    lines = text.split("What each layer holds itself")[1].splitlines()[1:]
    end = next(number for number, line in enumerate(lines) if line.startswith(("Weights to", "Added:", "and ")))
    cells = [line.split() for line in lines[:end] if line[:1].isalnum() or line.startswith("  ")]
    return {line[0]: line[1:] for line in cells}


def labels(text: str) -> list[str]:
    """The first column of the table, with its indent."""
    lines = text.split("What each layer holds itself")[1].splitlines()
    begin = next(number for number, line in enumerate(lines) if set(line) in ({"\N{BOX DRAWINGS LIGHT HORIZONTAL}"},))
    end = next(number for number, line in enumerate(lines) if line.startswith(("Weights to", "Added:", "and ")))
    return [line[: len(line) - len(line.lstrip())] + line.split()[0] for line in lines[begin + 1 : end]]


def shown(found: Report, **options: Any) -> str:
    """The report as text."""
    return plain_text(found, blocks=True, **options)


def words(found: Report, **options: Any) -> str:
    return " ".join(shown(found, **options).split())


# -- the moment --------------------------------------------------------------------------------------------------


def test_the_moment_is_told_in_two_sentences() -> None:
    made = replace(STEP, in_use_bytes=STEP.in_use_bytes * 0 + 1194, in_use_before_bytes=1000)
    text = words(report(step(made, 7)))
    assert (
        "At the traced peak (training step 7, graph): 170 B requested: weights 100 B, activations 40 B, "
        "gradients 30 B; coverage 100.0%" in text
    )
    assert "It was highest during backward, when MatMulGrad of dense allocated 30 B." in text
    assert "The allocator had 1.0 KiB more in use" in text


def test_stage_and_device_are_told_where_they_are_not_the_usual() -> None:
    found = report(step(STEP, 7, stage="predict", mode="xla", epoch=None))
    assert "(prediction step 7, xla)" in words(found)
    several = replace(found, run=replace(found.run, devices=(DeviceInfo("GPU:0"), DeviceInfo("CPU:0"))))
    assert "(prediction step 7 on CPU:0, xla)" in words(several)


def test_the_owner_tells_most_of_an_operations_name() -> None:
    found = report([(8, 0, 1, "head", "gradients", "backward", "gradient_tape/model/head/MatMul_1")])
    assert "when MatMul_1 of head allocated" in words(found)
    assert "when gradient_tape/model/head/MatMul_1 of head allocated" in words(found, everything=True)


def test_what_is_not_known_of_the_moment_is_not_told() -> None:
    found = report([(8, 0, 1, "unattributed", "unattributed", "input", "")])
    assert "highest during input, when an operation without a name allocated 8 B." in words(found)
    found = report([(8, -1, 0, "dense", "weights", "between", "")])
    assert "Nothing later in the step was as high as its begin." in words(found)


def test_a_coverage_that_is_not_whole_is_not_called_so() -> None:
    found = report([activation("a", 999_999), (1, 0, 3, "unattributed", "other", "forward", "")])
    assert "coverage 99.9%" in words(found)


def test_little_coverage_is_noted() -> None:
    found = report([activation("a", 90), (10, 0, 3, "unattributed", "other", "forward", "")])
    assert "* 10 B (10.0%) of what was alive at the traced peak has no known layer or category." in words(found)


# -- without a trace -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        ({"trace": "auto"}, "no step has been traced yet"),
        ({}, "no step has been traced yet"),
        ({"trace": False}, "tracing is off"),
        ({"trace": None}, "tracing is off"),
        ({"trace": [7, 9]}, "none of the steps asked for has been traced yet (trace=[7, 9])"),
    ],
)
def test_without_a_trace_the_reason_is_told(configuration: dict[str, Any], why: str) -> None:
    samples = to_samples([((), np.zeros((0, 0)))])
    found = make_report(RunInfo("run", 0.0, configuration=configuration), samples)
    assert why not in words(found)  # nothing was recorded at all
    recorded = to_samples([(BASE_COLUMNS, np.array([[1.0, 1, 0, 0, 1]]))])
    found = make_report(RunInfo("run", 0.0, configuration=configuration), recorded)
    assert why in words(found) and "traced peak" not in words(found)
    traced = make_report(RunInfo("run", 0.0, configuration=configuration), recorded, (), [step(STEP)])
    assert why not in words(traced) and "At the traced peak" in words(traced)


def test_a_partial_count_is_why_nothing_was_traced() -> None:
    recorded = to_samples([(BASE_COLUMNS, np.array([[1.0, 1, 0, 0, 1]]))])
    run = RunInfo("run", 0.0, devices=(DeviceInfo("CPU:0", "partial", 262_144),))
    found = words(make_report(run, recorded))
    assert "allocations below 256.0 KiB are not counted, and no traced step had a larger one" in found
    assert "no step has been traced yet" not in found
    found = words(make_report(run, recorded, (), [step(STEP)]))
    assert "At the traced peak (partial) (" in found


# -- the table -----------------------------------------------------------------------------------------------------


def test_one_layer_has_its_kinds_and_its_share() -> None:
    text = shown(report(step(STEP)), width=120)
    assert "in bytes:" in text
    assert table(text)["dense"] == ["100", "30", "-", "40", "-", "170", "100.0%", "160"]
    assert "and 2 more with 0 B at the peak" in text
    everything = table(shown(report(step(STEP)), width=120, everything=True))
    assert everything["dense"] == [*table(text)["dense"], "147", "170"]
    assert everything["loss"] == ["-", "-", "-", "-", "-", "-", "-", "-", "150", "-"]


def test_all_columns_are_shown_if_asked_for_and_there_is_room() -> None:
    found = report(step(STEP))
    assert "at the forward backward" in words(found, width=120, everything=True)
    assert "Forward and backward peak: the most that was alive" in words(found, width=120, everything=True)
    for options in ({"width": 90, "everything": True}, {"width": 200}):
        assert "backward peak" not in words(found, **options)


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (120, "layer weights gradients optimizer activations temporaries at the peak share added"),
        (80, "gradi- opti- activa- tempo- at the layer weights ents mizer tions raries peak share added"),
        (50, "at the layer peak share added"),
    ],
)
def test_a_narrow_screen_has_fewer_columns(width: int, headings: str) -> None:
    assert headings in words(report(step(STEP)), width=width)


@pytest.mark.parametrize(
    ("size", "unit", "figure"),
    [
        (9_999, "bytes", "9999"),
        (10_000, "KiB", "9.8"),
        (9_999 * KIB, "KiB", "9999.0"),
        (10 * MIB, "MiB", "10.0"),
        (10_000 * MIB, "GiB", "9.8"),
        (20_000 * GIB, "GiB", "20000.0"),
    ],
)
def test_all_figures_have_one_unit(size: int, unit: str, figure: str) -> None:
    text = shown(report([activation("big", size), activation("little", size // 500)]), width=120)
    assert f"in {unit}:" in text and table(text)["big"][3] == figure


def test_little_is_not_nothing_and_unknown_is_neither() -> None:
    lines = [activation("big", 10 * MIB), (9, 0, 3, "dense", "temporaries", "forward", "")]
    inventory = [LayerMemory("dense", "Dense", MIB, optimizer_bytes=None, other_bytes=0)]
    cells = table(shown(report(lines, inventory), width=120, everything=True))
    assert cells["dense"] == ["1.0", "-", "unknown", "-", "<0.1", "<0.1", "<0.1%", "unknown", "10.0", "-"]


def test_the_largest_at_the_peak_are_shown_in_the_models_order() -> None:
    lines = [activation(f"layer_{index}", 1000 + index) for index in range(LAYERS)]
    text = shown(report(lines))
    assert labels(text) == [f"layer_{index}" for index in range(LAYERS - 12, LAYERS)]
    hidden = sum(1000 + index for index in range(LAYERS - 12))
    assert (
        f"and {LAYERS - 12} more with {hidden / KIB:.1f} KiB at the peak (all: `kerasmemwatch show LOGDIR --all`)"
        in text
    )
    assert len(text.splitlines()) < 30


def test_all_layers_are_shown_if_asked_for() -> None:
    text = shown(report([activation(f"layer_{index}", 1000) for index in range(LAYERS)]), everything=True)
    assert labels(text) == [f"layer_{index}" for index in range(LAYERS)] and "more with" not in text


def test_what_is_next_to_nothing_is_left_out() -> None:
    lines = [activation("big", 10**6), (40, -1, 4, "metrics", "other", "between", ""), activation("little", 999)]
    text = shown(report(lines))
    assert labels(text) == ["big"] and "and 2 more with 1.0 KiB" in text


def test_nested_layers_are_a_tree_with_sums() -> None:
    lines = [
        activation("stem", 100),
        *(activation(f"encoder/block_{block}/{name}", 100) for block in (0, 1) for name in ("query", "key")),
        (100, 0, 3, "loss", "other", "forward", ""),
    ]
    text = shown(report(lines), width=120)
    expected = ["stem", "encoder", "  block_0", "    query", "    key", "  block_1", "    query", "    key", "loss"]
    assert labels(text) == expected
    cells = table(text)
    assert cells["encoder"] == ["(400)", "(66.7%)"] and cells["block_0"] == ["(200)", "(33.3%)"]
    assert "in brackets, with the layers in it" in text


def test_sums_include_what_is_not_shown() -> None:
    lines = [activation(f"encoder/layer_{index}", 1000 + index) for index in range(LAYERS)]
    assert table(shown(report(lines), width=120))["encoder"][1] == "(100.0%)"


def test_what_holds_a_shown_layer_is_shown_with_what_is_its_own() -> None:
    lines = [
        *(activation(f"layer_{index}", 10_000) for index in range(10)),
        activation("encoder", 30),
        *(activation(f"encoder/{name}", 20_000) for name in ("a", "b")),
    ]
    text = shown(report(lines), width=120)
    assert labels(text)[-3:] == ["encoder", "  a", "  b"]
    assert table(text)["encoder"][5:7] == ["<0.1", "<0.1%"] and "brackets" not in text


def test_what_only_holds_others_has_their_sum() -> None:
    made = timeline([activation(f"encoder/{name}", 100) for name in ("a", "b")], 4, owners=["encoder"])
    text = shown(report(step(made)), width=120, everything=True)
    assert labels(text) == ["encoder", "  a", "  b"] and table(text)["encoder"] == ["(200)", "(100.0%)"]


def test_a_step_in_which_nothing_was_alive_has_a_table_too() -> None:
    text = shown(report([(0, 0, 1, "dense", "activations", "forward", "")]))
    assert "0 B requested" in text and labels(text) == ["dense"]
    assert "At the traced peak" in shown(report([]))


# -- which step it is about ----------------------------------------------------------------------------------------

VALIDATED = [(200, 0, 1, "head", "temporaries", "forward", "MatMul"), (96, -1, 3, "head", "weights", "between", "")]


def recorded(*rows: tuple[int, float, float]) -> Samples:
    """Samples of one device: of each the stage (0 trains, 1 tests), the peak within the batch and before it."""
    columns = [*BASE_COLUMNS, Column("device_peak_bytes", 1), Column("device_between_peak_bytes", 1)]
    values = [[step, step, 0.0, stage, step, *own] for step, (stage, *own) in enumerate(rows, 1)]
    return to_samples([(tuple(columns), np.array(values, float))])


def of_run(samples: Samples, *steps: TracedStep) -> Report:
    return make_report(RunInfo("run", 0.0, devices=(DeviceInfo("CPU:0"),)), samples, (), steps)


def test_the_table_is_of_the_step_whose_peak_is_told() -> None:
    tested = step(timeline(VALIDATED, 4), 9, stage="test", epoch=None)
    found = of_run(recorded((0, 170, 0), (1, 300, 0)), step(STEP), tested)
    assert found.traced is not None and (found.traced.step, found.traced.stage) == (9, "test")
    assert found.layers == layer_table(tested)
    assert [row.gradients_bytes for row in found.layers] == [None]
    text = shown(found, width=120, everything=True)
    assert "At the traced peak (validation step 9, graph)" in text
    assert "What each layer holds itself in validation step 9, in bytes:" in text
    assert "The run's peak" not in text
    # Nothing is shown that only a training step has.
    for heading in ("gradients", "gradi-", "activations", "optimizer", "Backward", "backward"):
        assert heading not in text.partition("What each layer")[2], heading
    assert table(text)["head"] == ["96", "200", "296", "100.0%", "296", "296"]


def test_what_a_test_step_differentiated_is_shown() -> None:
    lines = [*VALIDATED, (50, 1, 2, "head", "gradients", "backward", "MatMul_1")]
    found = of_run(recorded((1, 300, 0)), step(timeline(lines, 4), 1, stage="test", epoch=None))
    assert [row.gradients_bytes for row in found.layers] == [50]
    assert "holds itself in evaluation step 1," in words(found)
    assert table(shown(found, width=120))["head"][:3] == ["96", "50", "200"]


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ([(0, 10, 0), (0, 10, 30)], "was between two batches, before training step 2, which was not traced"),
        ([(0, 10, 0), (1, 10, 30)], "was between two batches, before validation step 2, which was not traced"),
        ([(0, 10, 0), (1, 30, 0)], "was in validation step 2, which was not traced"),
    ],
)
def test_a_peak_that_was_not_traced_is_told_from_the_table(rows: list[tuple[int, float, float]], place: str) -> None:
    text = words(of_run(recorded(*rows), step(STEP, 1)))
    assert f"The run's peak of 30 B {place}. Shown is training step 1. What each layer holds" in text
    assert "during backward" not in text.partition("At the traced peak")[0]


def test_a_peak_of_the_traced_kind_needs_no_words() -> None:
    assert "The run's peak" not in words(of_run(recorded((0, 10, 0), (0, 30, 0)), step(STEP, 1)))


def test_what_was_fetched_beside_the_step_does_not_tell_what_it_did() -> None:
    lines = [
        (64, 0, 4, "input pipeline", "inputs", "input", "IteratorGetNext"),
        (900, 1, 4, "dense", "gradients", "backward", "MatMul_1"),
        (16, 2, 4, "input pipeline", "inputs", "input", "DecodePng"),
    ]
    found = report(lines)
    assert (found.peak.phase, found.peak.op, found.peak.requested_bytes) == ("backward", "MatMul_1", 980)
    assert (
        "It was highest during backward, when MatMul_1 of dense allocated 900 B and the input pipeline 16 B."
        in words(found)
    )
    # Before the step has done anything, the batch is what it is about.
    alone = report(lines[:1])
    assert (alone.peak.phase, alone.peak.op) == ("input", "IteratorGetNext")


@pytest.mark.parametrize(
    ("op", "what"),
    [
        ("", "a trial of algorithms allocated 900 B."),
        ("c1/Conv2D", "a trial of algorithms for Conv2D allocated 900 B."),
    ],
)
def test_a_peak_of_autotuning_says_so(op: str, what: str) -> None:
    lines = [
        (64, 0, 4, "dense", "temporaries", "update", "Mul"),
        (900, 1, 4, "autotuning", "temporaries", "between", op),
    ]
    made = timeline(lines, 4, classes=("Dense", ""))
    text = words(report(step(made)))
    assert f"It was highest during autotuning, when {what}" in text
    # A layer of that name is a layer.
    named = words(report(step(replace(made, classes=("Dense", "Dense")))))
    assert "during autotuning" not in named
