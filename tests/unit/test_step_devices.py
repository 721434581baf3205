"""A traced step as one of several devices saw it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from runs import traced_steps, two_device_steps
from timelines import assert_same_step

from kerasmemwatch.analysis.steps.layer_table import layer_table
from kerasmemwatch.analysis.steps.live_set import highest_step, traced_peak
from kerasmemwatch.analysis.steps.step_devices import device_names, headed, on_device, steps_on
from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.records.layer_memory import LayerMemory

FIRST, SECOND = two_device_steps()
PINNED = "GPU host (pinned)"


def test_timelines_are_by_device_and_the_first_heads_the_step() -> None:
    assert list(SECOND.timelines) == ["GPU:0", "CPU:0", PINNED]
    assert SECOND.timelines["GPU:0"] is SECOND.timeline
    assert device_names((FIRST, SECOND)) == ("GPU:0", "CPU:0", PINNED)
    assert device_names((on_device(FIRST, "CPU:0"), SECOND)) == ("CPU:0", "GPU:0", PINNED)
    assert device_names(()) == ()


def test_a_step_without_others_has_one_timeline() -> None:
    [one, *_] = traced_steps()
    assert one.timelines == {"GPU:0": one.timeline}


def test_a_step_on_another_device_is_headed_by_it_and_loses_nothing() -> None:
    host = on_device(SECOND, "CPU:0")
    assert host.timeline is not SECOND.timeline and host.timeline.device == "CPU:0"
    assert set(host.timelines) == set(SECOND.timelines)
    assert host.gradient_bytes == {}
    assert_same_step(on_device(host, "GPU:0"), SECOND)


def test_gradients_are_each_devices_own() -> None:
    replicas = replace(
        FIRST,
        gradient_bytes={"head": 7},
        others=(replace(FIRST.timeline, device="GPU:1", gradient_bytes={"head": 5}),),
    )
    second = on_device(replicas, "GPU:1")
    assert second.gradient_bytes == {"head": 5} and second.timeline.gradient_bytes == {}
    assert_same_step(on_device(second, "GPU:0"), replicas)


@pytest.mark.parametrize("device", ["GPU:7", "", "gpu:0", 3])
def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are(device: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"one of 'GPU:0', 'CPU:0', 'GPU host \(pinned\)'. Received"):
        on_device(SECOND, device)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"'GPU:0', 'CPU:0', .*pinned"):
        steps_on((FIRST, SECOND), device)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="of which there is none"):
        steps_on((), device)  # type: ignore[arg-type]


def test_steps_that_allocated_nothing_on_a_device_are_left_out_or_as_they_were() -> None:
    assert [one.step for one in steps_on((FIRST, SECOND), PINNED)] == [SECOND.step]
    assert [one.timeline.device for one in headed((FIRST, SECOND), PINNED)] == ["GPU:0", PINNED]
    assert headed((FIRST, SECOND), None) == (FIRST, SECOND)


def test_the_highest_step_is_of_the_device_if_any_is() -> None:
    steps = headed((FIRST, SECOND), PINNED)
    assert highest_step(steps, PINNED) is steps[1] and highest_step(steps, "no such") is steps[0]


def test_the_peak_and_the_table_of_a_device() -> None:
    peak = traced_peak(on_device(SECOND, "CPU:0"))
    assert (peak.device, peak.requested_bytes) == ("CPU:0", 24 * 1024 + 4000)
    assert traced_peak(SECOND).device == "GPU:0"
    inventory = (
        LayerMemory("embedding", "Dense", weights_bytes=24 * 1024, optimizer_bytes=0, other_bytes=0),
        LayerMemory("head", "Dense", weights_bytes=50 * 1024, optimizer_bytes=0, other_bytes=0),
        LayerMemory("nowhere", "Dense", weights_bytes=4, optimizer_bytes=0, other_bytes=0),
        LayerMemory("idle", "Flatten", weights_bytes=0, optimizer_bytes=0, other_bytes=0),
    )
    rows = {row.path: row for row in layer_table(SECOND, inventory, device="CPU:0")}
    # The head's variables lie on the GPU; those of "nowhere" could not be told from the rest, here or there.
    assert list(rows) == ["embedding", "nowhere", "input pipeline", "unattributed"]
    assert (rows["embedding"].weights_bytes, rows["embedding"].total_bytes) == (24 * 1024, 24 * 1024)
    assert (rows["nowhere"].weights_bytes, rows["nowhere"].total_bytes) == (4, None)
    assert {"head", "embedding", "idle"} < {row.path for row in layer_table(SECOND, inventory)}
