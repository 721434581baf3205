"""Captured GPU steps by device: the host's memory beside the GPU's, and two GPUs beside each other."""

from __future__ import annotations

import functools
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from gpu_captures import NAMES, capture, step
from timelines import assert_same_step
from two_gpus import on_two_gpus

from kerasmemwatch.analysis.steps.layer_table import layer_table
from kerasmemwatch.analysis.steps.live_set import by_category, category_series, coverage, peak_event, requested_at
from kerasmemwatch.analysis.steps.step_devices import on_device
from kerasmemwatch.attribution.events.allocation_events import AllocationEvents, read_events
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.timeline import Timeline
from kerasmemwatch.reports.report import make_report
from kerasmemwatch.storage.codecs.step_codec import decode_step, encode_step

xplane_pb2 = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2")

PINNED = "GPU host (pinned)"
# What a step's host memory adds to a recording, at most: trials and four steps in one have the most of it.
MOST_ADDED_BYTES = 1024


@functools.cache
def two_gpus(name: str) -> Any:
    return on_two_gpus(capture(name)).analysed()


def events_of(name: str) -> dict[str, AllocationEvents]:
    return read_events(xplane_pb2.XSpace.FromString(capture(name).captured.space))


@pytest.mark.every
@pytest.mark.parametrize("name", NAMES)
def test_every_allocator_that_gave_anything_out_has_a_timeline(name: str) -> None:
    found = step(name).timelines
    assert next(iter(found)) == step(name).timeline.device == "GPU:0"
    expected = {each.device for each in events_of(name).values() if each.births.any()}
    assert set(found) == expected >= {"GPU:0"}
    assert set(found) <= {"GPU:0", PINNED, "CPU:0"}


@pytest.mark.every
@pytest.mark.parametrize("name", NAMES)
def test_sums_of_every_device_are_the_allocators_own(name: str) -> None:
    allocators = {each.device: each for each in events_of(name).values()}
    for device, timeline in step(name).timelines.items():
        told = allocators[device].in_use_bytes
        # An XLA program's inner buffers have no event of the allocator's.
        assert np.isin(told, timeline.in_use_bytes).all()
        assert timeline.in_use_before_bytes == allocators[device].in_use_before_bytes
        assert (category_series(timeline).sum(axis=0) == requested_at(timeline)).all()
        event = peak_event(timeline)
        assert sum(by_category(timeline, event).values()) == requested_at(timeline)[event + 1]


def test_a_fetched_batch_lies_on_the_host_as_an_input() -> None:
    host = step("two_towers-xla-4-steps").timelines["CPU:0"]
    made = host.birth >= 0
    assert made.sum() == 8 and {host.owners[code] for code in host.owner[made].tolist()} == {"input pipeline"}
    assert set(host.requested_bytes[made].tolist()) == {884_736}
    [note] = [note for note in step("two_towers-xla-4-steps").notes if note.startswith("On CPU:0")]
    assert note == "On CPU:0, only allocations of 256.0 KiB or more are known in the traced step."


@pytest.mark.parametrize("name", [name for name in NAMES if "CPU:0" in step(name).timelines])
def test_data_sets_on_the_gpu_are_inputs_on_the_host_too(name: str) -> None:
    timeline = step(name).timelines["CPU:0"]
    assert coverage(timeline, peak_event(timeline)) >= 0.99
    held = timeline.requested_bytes[(timeline.birth < 0) & (timeline.category == CATEGORIES.index("inputs"))]
    # Labels are small, and in an allocator that tells nothing.
    arrays = [each.bytes for each in capture(name).captured.known if each.category == "inputs" and each.bytes > 1 << 18]
    assert sorted(held.tolist()) == sorted(arrays)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("step1")])
def test_what_is_copied_for_an_optimizer_s_slots_is_no_metric_s(name: str) -> None:
    timeline = step(name).timelines[PINNED]
    slots = np.array(["_momentum/Initializer/" in op for op in timeline.ops])[timeline.op]
    assert slots.any() and {timeline.owners[code] for code in timeline.owner[slots].tolist()} == {"optimizer"}
    assert {CATEGORIES[code] for code in timeline.category[slots].tolist()} == {"temporaries"}


@pytest.mark.every
@pytest.mark.parametrize("name", NAMES)
def test_the_host_holds_none_of_the_gpus_variables(name: str) -> None:
    for device in set(step(name).timelines) - {"GPU:0"}:
        rows = layer_table(step(name), device=device)
        assert not sum(row.weights_bytes + row.optimizer_bytes + (row.gradients_bytes or 0) for row in rows)


@pytest.mark.every
@pytest.mark.parametrize("name", NAMES)
def test_other_devices_take_little_of_a_file(name: str) -> None:
    whole = encode_step(step(name))
    assert len(whole) - len(encode_step(replace(step(name), others=()))) < MOST_ADDED_BYTES
    assert_same_step(decode_step(whole), step(name))


def test_the_report_is_of_the_gpu_and_the_host_is_one_choice_away() -> None:
    run = RunInfo("run", 0.0, devices=(DeviceInfo("GPU:0"),))
    report = make_report(run, to_samples([]), (), [step("two_towers-xla-4-steps")])
    assert report.traced is not None and report.traced.device == "GPU:0"
    assert report.devices == ("GPU:0", PINNED, "CPU:0")
    host = report.on_device("CPU:0")
    data_set = 2 * 3_538_944
    assert host.peak.by_category["inputs"] == 8 * 884_736 + data_set
    assert "training step" in str(host) and "on CPU:0" in str(host)


# -- two GPUs ------------------------------------------------------------------------------------------------------


def without_replica(timeline: Timeline) -> Timeline:
    """A second GPU's timeline as if it were the first's."""
    ops = tuple(op.removeprefix("replica_1/") for op in timeline.ops)
    return replace(timeline, device="GPU:0", ops=ops, gradient_bytes={})


@pytest.mark.every
@pytest.mark.parametrize("name", NAMES)
def test_replicas_on_two_gpus_have_a_timeline_each_as_if_alone(name: str) -> None:
    alone, both = step(name), two_gpus(name)
    assert {"GPU:0", "GPU:1"} <= set(both.timelines) and both.mode == alone.mode
    for device in ("GPU:0", "GPU:1"):
        one = on_device(both, device)
        assert_same_timeline(without_replica(one.timeline), alone.timeline)
        assert one.gradient_bytes == alone.gradient_bytes
        event = peak_event(one.timeline)
        assert coverage(one.timeline, event) >= 0.99
        rows = layer_table(one, device=device)
        assert sum(row.weights_bytes for row in rows) == capture(name).weights_bytes
        assert sum(row.optimizer_bytes for row in rows) == capture(name).optimizer_bytes


def assert_same_timeline(found: Timeline, expected: Timeline) -> None:
    for field in fields(Timeline):
        value, wanted = getattr(found, field.name), getattr(expected, field.name)
        if field.name in ("op", "ops"):
            continue
        assert np.array_equal(value, wanted) if isinstance(wanted, np.ndarray) else value == wanted, field.name
    names = [[each.ops[code] for code in each.op.tolist()] for each in (found, expected)]
    assert names[0] == names[1]


def test_the_gpu_with_most_in_use_heads_the_step() -> None:
    both = on_two_gpus(capture("two_towers-eager"), more_bytes=1 << 30).analysed()
    assert both.timeline.device == "GPU:1" and list(both.timelines)[:2] == ["GPU:1", "GPU:0"]
