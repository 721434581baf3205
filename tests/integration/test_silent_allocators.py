"""Steps captured on a GPU, as if its allocator had told nothing of single allocations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from gpu_captures import capture as load
from gpu_captures import silence
from runs import run_info, samples

from kerasmemwatch.analysis.key_figures import headline
from kerasmemwatch.analysis.steps.live_set import by_category, coverage, peak_event, traced_peak
from kerasmemwatch.records.run import PLANNED, SILENT_ALLOCATOR
from kerasmemwatch.reports.report import make_report

xplane_pb2 = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2")
pytest.importorskip("rich")


def silenced(capture: Any) -> Any:
    """The same capture without events of the GPU's allocator."""
    space = xplane_pb2.XSpace.FromString(capture.captured.space)
    silence(space)
    return replace(capture, captured=replace(capture.captured, space=space.SerializeToString()))


@pytest.mark.parametrize("name", ["two_towers-xla", "transformer-xla"])
def test_a_compiled_step_is_shown_as_xla_planned_it(name: str) -> None:
    capture = load(name)
    measured, planned = capture.analysed(), silenced(capture).analysed()
    assert planned.timeline.device == "GPU:0"
    was, found = traced_peak(measured), traced_peak(planned)
    # All but a few numbers that neither a program nor Python's objects hold.
    assert found.requested_bytes == pytest.approx(was.requested_bytes, abs=4200)
    categories = [by_category(step.timeline, peak_event(step.timeline)) for step in (measured, planned)]
    for category in ("weights", "optimizer", "gradients", "activations", "temporaries", "inputs"):
        assert categories[1][category] == categories[0][category], category
    assert coverage(planned.timeline, peak_event(planned.timeline)) == 1
    assert not planned.timeline.address[planned.timeline.birth >= 0].any()


@pytest.mark.parametrize(("name", "batches"), [("two_towers-xla", 1), ("two_towers-xla-4-steps", 4)])
def test_each_run_has_its_batch_and_its_block(name: str, batches: int) -> None:
    timeline = silenced(load(name)).analysed().timeline
    born = timeline.birth >= 0
    assert sorted(timeline.requested_bytes[born].tolist()).count(884_736) >= 2 * batches
    assert (timeline.reserved_bytes[born] > 10 << 20).sum() == batches
    assert timeline.in_use_bytes.min() >= 0


def test_a_report_says_that_it_is_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_GPU_ALLOCATOR", "cuda_malloc_async")
    planned = silenced(load("two_towers-xla")).analysed()
    report = make_report(run_info(), samples(12), (), [planned])
    text = " ".join(report.text(everything=True).split())
    assert "At the planned peak (training step 10 on GPU:0, as XLA planned it, xla): " in text
    assert "What each layer holds itself in training step 10 on GPU:0, as XLA planned it, in " in text
    assert "the traced peak" not in text
    [known] = [tile for tile in headline(report) if tile.label == "Known by layer"]
    assert known.detail == "of the planned peak has a known layer and category"
    assert f"GPU:0: {SILENT_ALLOCATOR}. {PLANNED}, on top of the variables, and was not measured" in text
    assert "unset TF_GPU_ALLOCATOR, which is 'cuda_malloc_async'" in text


def test_what_the_host_told_beside_a_plan_is_traced() -> None:
    planned = silenced(load("two_towers-xla-4-steps")).analysed()
    assert list(planned.timelines) == ["GPU:0", "GPU host (pinned)", "CPU:0"]
    report = make_report(run_info(), samples(12), (), [planned])
    assert "At the planned peak (training step 8 on GPU:0" in str(report)
    assert "At the traced peak (training step 8 on CPU:0" in str(report.on_device("CPU:0"))


@pytest.mark.parametrize("name", ["two_towers-graph", "two_towers-eager"])
def test_a_step_without_a_plan_is_not_shown_as_the_hosts(name: str) -> None:
    capture = load(name)
    assert capture.analysed().timeline.device == "GPU:0"
    assert silenced(capture).analysed() is None


def test_a_program_of_unknown_plan_is_no_plan() -> None:
    capture = silenced(load("two_towers-xla"))
    space = xplane_pb2.XSpace.FromString(capture.captured.space)
    planes = [plane for plane in space.planes if plane.name != "/host:metadata"]
    del space.planes[:]
    space.planes.extend(planes)
    captured = replace(capture.captured, space=space.SerializeToString())
    assert replace(capture, captured=captured).analysed() is None
