"""Which allocators a step has a timeline of, and whose the constants are that functions keep."""

from __future__ import annotations

from dataclasses import replace

from captures import events

from kerasmemwatch.attribution.events.allocators_by_device import by_device
from kerasmemwatch.attribution.function_constants import Kept, constants
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.records.owners import Frame

OWNERS = OpOwners({"model/a/Mul": [Frame("a", "Dense", "forward")]})
MADE = events([(256, 10, "again"), (256, -10)], before=0)


def found(*kept: Kept, known: tuple[KnownBuffer, ...] = ()) -> list[tuple[str, str, int]]:
    made = list(constants(kept, known, MADE, OWNERS))
    assert all(each.constant and each.category == "other" for each in made)
    return [(each.owner, each.class_name, each.bytes) for each in made]


def test_a_large_constant_belongs_to_whoever_made_its_operation() -> None:
    name = "StatefulPartitionedCall/model/a/Mul"
    assert found(Kept(4096, 257, name)) == [("a", "Dense", 257)]
    assert found(Kept(4096, 256, name)) == [("functions", "", 256)]
    assert found(Kept(4096, 4096, "elsewhere"), Kept(8192, 4096, "")) == [("functions", "", 4096)] * 2


def test_what_is_something_else_or_made_anew_is_no_constant() -> None:
    assert found(Kept(4096, 300, ""), known=(KnownBuffer("a", "Dense", "weights", 300, 4096),)) == []
    assert found(Kept(4096, 300, "again")) == []


BIRTHS, DEATH = [(256, 10), (512, 20), (256, -10)], [(256, -10)]


def devices(**lines: list[tuple[int, int]]) -> list[tuple[str, str]]:
    made = [replace(events(each), allocator=allocator) for allocator, each in lines.items()]
    return [(device, each.allocator) for device, each in by_device(made).items()]


def test_a_gpu_comes_before_the_host_and_the_one_with_most_in_use_first() -> None:
    found = devices(cpu=BIRTHS * 3, gpu_host_bfc=BIRTHS, GPU_0_bfc=BIRTHS, GPU_1_bfc=[(256, 10**6)])
    assert [device for device, _ in found] == ["GPU:1", "GPU:0", "CPU:0", "GPU host (pinned)"]


def test_an_allocator_that_gave_nothing_out_has_no_timeline_unless_it_is_the_only_one() -> None:
    assert devices(GPU_0_bfc=BIRTHS, gpu_host_bfc=DEATH) == [("GPU:0", "GPU_0_bfc")]
    assert devices(cpu=DEATH) == [("CPU:0", "cpu")]
    assert devices() == []


def test_two_allocators_of_one_device_are_told_apart() -> None:
    assert devices(cpu=BIRTHS, mklcpu=BIRTHS * 2) == [("CPU:0", "mklcpu"), ("CPU:0 (cpu)", "cpu")]
