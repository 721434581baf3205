"""Steps that were captured on a GPU: whose each byte is, and whether sums are exact. They are in ``tests/data/gpu``."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_captures import FOLDER, NAMES, capture, step

from kerasmemwatch.attribution.events.allocation_events import read_events
from kerasmemwatch.attribution.hook_notes import HookNotes
from kerasmemwatch.attribution.xla.program_runs import Programs, find_runs
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import Timeline

xplane_pb2 = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2")
pytest.importorskip("rich")

ROOT = Path(__file__).parents[2]
FIRST_STEPS = ["half_precision-graph-step1", "two_towers-xla-step1"]
BATCH = [884_736, 884_736, 128]
DATA_SET_BYTES = 2 * 3_538_944 + 512


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


def rows(timeline: Timeline, owner: str, category: str) -> np.ndarray:
    """``bool[num_allocations]``."""
    owners = np.array([name == owner for name in timeline.owners])[timeline.owner]
    return owners & (timeline.category == CATEGORIES.index(category))


def held(timeline: Timeline, owner: str) -> int:
    """What an owner holds from before the step until after it."""
    owners = np.array([name == owner for name in timeline.owners])[timeline.owner]
    lasting = (timeline.birth < 0) & (timeline.death == timeline.num_events)
    return int(timeline.requested_bytes[owners & lasting].sum())


def test_the_page_of_figures_quotes_what_is_printed(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--captures", str(FOLDER), "--markdown"]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(printed) == 2 + len(NAMES)
    assert "\n".join(printed) in (ROOT / "docs" / "figures.md").read_text()


def test_a_compiled_first_steps_peak_is_told_in_the_first_line(benchmark: Any) -> None:
    found = benchmark.check_capture(capture("two_towers-xla-step1")).headline
    story = "100.0 MiB of it autotuning workspace; a steady step peaks at 21.8 MiB"
    assert found == f"142.0 MiB GPU:0, step 1 (train, epoch 1): {story}"
    assert f'"{story}"' in " ".join((ROOT / "README.md").read_text().split())
    later = benchmark.check_capture(capture("two_towers-xla")).headline
    assert later == "142.0 MiB GPU:0, step 1 (train, epoch 1), not traced; a steady step peaks at 21.8 MiB"


def test_there_are_captures_of_every_kind() -> None:
    assert len(NAMES) == 10


@pytest.mark.every
@pytest.mark.parametrize("name", NAMES)
def test_every_byte_at_the_peak_has_an_owner_and_sums_are_exact(benchmark: Any, name: str) -> None:
    found = benchmark.check_capture(capture(name))
    assert found.device == "GPU:0"
    assert found.check.covered >= 0.99
    assert found.check.activations_in_layers is None or found.check.activations_in_layers >= 0.97
    assert found.exact("weights") and found.exact("optimizer")
    assert found.sums and found.categories
    assert found.same_peak == "the same"


@pytest.mark.every
@pytest.mark.parametrize("name", NAMES)
def test_algorithms_are_tried_in_first_steps_only(benchmark: Any, name: str) -> None:
    timeline = step(name).timeline
    tried = rows(timeline, "autotuning", "temporaries")
    assert tried.any() == (name in FIRST_STEPS) == ("autotuning" in timeline.owners)
    # They are given back before the step ends.
    assert (timeline.death[tried] < timeline.num_events).all()


def test_the_first_compiled_steps_peak_is_a_trial(benchmark: Any) -> None:
    timeline = step("two_towers-xla-step1").timeline
    tried = rows(timeline, "autotuning", "temporaries")
    assert timeline.requested_bytes[tried].max() == 65_872_400
    assert tried.sum() == 748 + 48 + 24  # as many as the host's spans hold
    # The loss and metrics made none of that.
    assert rows(timeline, "metrics", "other")[timeline.requested_bytes > 1_000].sum() == 0


@pytest.mark.parametrize(
    ("name", "runs", "blocks"),
    [
        ("two_towers-xla", 1, 3),
        ("two_towers-xla-4-steps", 4, 12),
        ("two_towers-xla-step1", 1, 3),
        ("transformer-xla", 1, 3),
    ],
)
def test_every_run_of_a_program_is_opened(benchmark: Any, name: str, runs: int, blocks: int) -> None:
    space = xplane_pb2.XSpace.FromString(capture(name).captured.space)
    programs = Programs()
    programs.read(space)
    found = find_runs(space, read_events(space)["GPU_0_bfc"], programs.requests)
    assert len(found) == runs and len({run.program_id for run in found}) == 1
    assert sum(len(run.births) for run in found) == blocks
    # In each run every layer's activations are made anew.
    timeline = step(name).timeline
    made = Counter(
        timeline.ops[op] for op in timeline.op[timeline.category == CATEGORIES.index("activations")].tolist()
    )
    assert made and all(count % runs == 0 for count in made.values())


def test_copies_of_the_batch_are_inputs(benchmark: Any) -> None:
    for name in ("two_towers-graph", "two_towers-eager", "two_towers-xla", "two_towers-xla-step1"):
        timeline = step(name).timeline
        made = rows(timeline, "input pipeline", "inputs") & (timeline.birth >= 0)
        assert Counter(timeline.requested_bytes[made].tolist()) == Counter(BATCH), name
    timeline = step("two_towers-xla-4-steps").timeline
    made = rows(timeline, "input pipeline", "inputs") & (timeline.birth >= 0)
    assert Counter(timeline.requested_bytes[made].tolist()) == Counter(BATCH * 4)


@pytest.mark.every
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("two_towers")])
def test_a_data_set_that_lies_on_the_device_is_an_input(benchmark: Any, name: str) -> None:
    ahead = 2 * sum(BATCH) if name.endswith("prefetched") else 0
    assert held(step(name).timeline, "input pipeline") == DATA_SET_BYTES + ahead


def test_batches_that_wait_on_the_device_are_said_to_be_an_estimate(benchmark: Any) -> None:
    ahead, _ = step("two_towers-graph-prefetched").notes
    assert "3.4 MiB on GPU:0 are taken for batches that wait there" in ahead
    (data_set,) = step("two_towers-graph").notes
    assert data_set.startswith("A whole data set is on GPU:0 (6.8 MiB), of which a step needs 1.7 MiB.")


def test_places_of_one_device_say_nothing_of_another(benchmark: Any) -> None:
    whole = capture("two_towers-graph")
    elsewhere = [replace(buffer, device="CPU:0") for buffer in whole.captured.known]
    moved = replace(whole, captured=replace(whole.captured, known=elsewhere))
    timeline = moved.analysed().timeline
    assert held(timeline, "input pipeline") == held(timeline, "enc/conv_1_1") == 0


def test_variables_in_host_memory_are_not_missed_on_the_device(benchmark: Any) -> None:
    whole = capture("two_towers-xla")
    known = whole.captured.known
    one = max((buffer for buffer in known if buffer.category == "weights"), key=lambda buffer: buffer.bytes)
    moved = [replace(buffer, device="CPU:0") if buffer is one else buffer for buffer in known]
    found = benchmark.check_capture(replace(whole, captured=replace(whole.captured, known=moved)))
    assert found.exact("weights") and found.wanted_bytes("weights") == whole.weights_bytes - one.bytes
    # A capture that says nothing of them is not exact.
    others = [buffer for buffer in known if buffer is not one]
    found = benchmark.check_capture(replace(whole, captured=replace(whole.captured, known=others)))
    assert not found.exact("weights") and found.exact("optimizer")


def test_an_unknown_place_is_no_place(benchmark: Any) -> None:
    whole = capture("two_towers-graph")
    nowhere = [replace(buffer, address=0) for buffer in whole.captured.known]
    found = benchmark.check_capture(replace(whole, captured=replace(whole.captured, known=nowhere)))
    # Where they lie is unknown, not that they are there.
    assert found.exact("weights") and found.exact("optimizer") and found.sums and found.categories


def test_what_cannot_be_is_an_error_of_ours(benchmark: Any) -> None:
    whole = capture("two_towers-graph")
    errors = importlib.import_module("_captures").CaptureError
    with pytest.raises(errors, match="a step that can be analysed"):
        replace(whole, captured=replace(whole.captured, log=[None])).analysed()


def test_without_the_hooks_notes_names_tell(benchmark: Any) -> None:
    whole = capture("two_towers-xla")
    found = replace(whole, noted=HookNotes(type(whole.noted.owners)({}))).analysed()
    assert any("made before the watch" in note for note in found.notes)
    assert "enc/conv" in found.timeline.owners
