"""A capture's events are read into arrays, in the order in which the allocator saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
from captures import events as made_events

from kerasmemwatch.attribution.events.allocation_events import read_events
from kerasmemwatch.attribution.events.event_order import by_total

STARTED_NS = 10_000_000
NAMES = {
    1: "allocator_name", 2: "requested_bytes", 3: "allocation_bytes", 4: "bytes_allocated", 5: "addr", 6: "tf_op",
    7: "region_type", 8: "id", 9: "fragmentation", 20: "cpu", 21: "GPU_0_bfc", 30: "MatMul", 31: "Relu", 32: "(null)",
    40: "output", 41: "temp",
}  # fmt: skip
IDS = {name: key for key, name in NAMES.items()}


def stat(name: str, value: int | str) -> Message:
    if isinstance(value, str):
        return Message(metadata_id=IDS[name], ref_value=IDS[value], int64_value=0, uint64_value=0, str_value="")
    return Message(metadata_id=IDS[name], ref_value=0, int64_value=value, uint64_value=0, str_value="")


def event(kind: int, offset_ns: int, **stats: Any) -> Message:
    return Message(
        metadata_id=kind, offset_ps=offset_ns * 1000, stats=[stat(name, value) for name, value in stats.items()]
    )


def birth(
    offset_ns: int, addr: int, size: int, total: int, op: str = "", region: str = "output", **more: Any
) -> Message:
    named = {"tf_op": op, "region_type": region, "id": 5} if op else {"id": 0}
    return event(
        1, offset_ns, allocator_name=more.pop("allocator", "cpu"), bytes_allocated=total, requested_bytes=size,
        allocation_bytes=-(-size // 256) * 256, addr=addr, **named, **more,
    )  # fmt: skip


def death(offset_ns: int, addr: int, size: int, total: int) -> Message:
    return event(
        2, offset_ns, addr=addr, id=0, allocator_name="cpu", requested_bytes=size,
        allocation_bytes=-(-size // 256) * 256, bytes_allocated=total,
    )  # fmt: skip


def space(lines: dict[str, Sequence[Message]], begins_ns: Sequence[int] = ()) -> Message:
    """An ``XSpace`` of one process: events by name of the thread."""
    begins = [*begins_ns, *[0] * len(lines)]
    host = Message(
        name="/host:CPU",
        stat_metadata={key: Message(name=name) for key, name in NAMES.items()},
        event_metadata={
            key: Message(name=name) for key, name in enumerate(("MemoryAllocation", "MemoryDeallocation", "Other"), 1)
        },
        lines=[
            Message(name=name, timestamp_ns=begin, events=found)
            for (name, found), begin in zip(lines.items(), begins, strict=False)
        ],
        stats=[],
    )
    started = Message(metadata_id=1, uint64_value=STARTED_NS, int64_value=0)
    task = Message(
        name="Task Environment", stat_metadata={1: Message(name="profile_start_time")}, stats=[started], lines=[]
    )
    return Message(planes=[Message(name="/host:metadata", lines=[]), host, task])


def test_reads_what_an_event_says() -> None:
    found = read_events(
        space({"python3": [birth(5, 512, 300, 1512, "MatMul"), event(3, 6), death(9, 512, 300, 1000)]}, [100])
    )
    [events] = found.values()
    assert list(found) == ["cpu"] == [events.allocator]
    assert events.births.tolist() == [True, False]
    assert events.time_ns.tolist() == [STARTED_NS + 105, STARTED_NS + 109]
    assert events.address.tolist() == [512, 512]
    assert events.address.dtype == np.uint64
    assert events.requested_bytes.tolist() == [300, 300]
    assert events.reserved_bytes.tolist() == [512, 512]
    assert events.in_use_bytes.tolist() == [1512, 1000]
    assert events.in_use_before_bytes == 1000
    assert [events.ops[code] for code in events.op] == ["MatMul", ""]
    assert events.run.tolist() == [5, 0]
    assert [events.threads[code] for code in events.thread] == ["python3", "python3"]
    assert events.began_ns == STARTED_NS


def test_no_operation_is_none_whatever_it_is_called() -> None:
    # By TensorFlow 2.19; later versions leave the stat out.
    [events] = read_events(space({"python3": [birth(1, 256, 9, 256, "(null)"), birth(2, 512, 9, 512)]})).values()
    assert [events.ops[code] for code in events.op] == ["", ""]


def test_stats_may_stand_in_any_order_and_number() -> None:
    first = birth(0, 256, 10, 256, "MatMul")
    swapped = birth(1, 512, 20, 512, "Relu")
    swapped.stats.reverse()
    longer = birth(2, 768, 30, 768, "Relu", fragmentation=7)
    [events] = read_events(space({"python": [first, swapped, longer]})).values()
    assert events.requested_bytes.tolist() == [10, 20, 30]
    assert events.address.tolist() == [256, 512, 768]
    assert [events.ops[code] for code in events.op] == ["MatMul", "Relu", "Relu"]


def test_births_and_deaths_with_the_same_stats_are_told_apart() -> None:
    lines = []
    for turned in (False, True):
        for kind in (1, 2):
            one = event(kind, len(lines), addr=256, allocator_name="cpu", requested_bytes=10, allocation_bytes=256)
            one.stats.append(stat("bytes_allocated", 256 if kind == 1 else 0))
            one.stats = one.stats[::-1] if turned else one.stats
            lines.append(one)
    [events] = read_events(space({"python": lines})).values()
    assert events.births.tolist() == [True, False, True, False]


def test_what_is_not_said_is_unknown() -> None:
    bare = event(1, 0, allocator_name="cpu", addr=256, requested_bytes=10, allocation_bytes=256, bytes_allocated=256)
    [events] = read_events(space({"python": [bare]})).values()
    assert [events.ops[code] for code in events.op] == [""]
    assert events.run.tolist() == [0]


def test_allocators_are_kept_apart() -> None:
    found = read_events(
        space({"python": [birth(0, 256, 1, 256), birth(1, 256, 2, 256, allocator="GPU_0_bfc"), birth(2, 512, 3, 512)]})
    )
    assert {name: events.requested_bytes.tolist() for name, events in found.items()} == {
        "cpu": [1, 3],
        "GPU_0_bfc": [2],
    }


def test_events_of_all_threads_stand_in_order_of_time() -> None:
    lines = {"python": [birth(0, 256, 1, 256), birth(7, 768, 3, 768)], "tf_Compute/1": [birth(1, 512, 2, 512)]}
    [events] = read_events(space(lines, [0, 3])).values()
    assert events.requested_bytes.tolist() == [1, 2, 3]
    assert [events.threads[code] for code in events.thread] == ["python", "tf_Compute/1", "python"]


def test_the_running_total_mends_the_order_and_time_follows() -> None:
    # The second thread's clock was read late: its birth came before the first thread's death.
    lines = {"python": [birth(0, 256, 1, 256), death(5, 256, 1, 256)], "tf_Compute/1": [birth(6, 512, 2, 512)]}
    [events] = read_events(space(lines)).values()
    assert events.births.tolist() == [True, True, False]
    assert events.in_use_bytes.tolist() == [256, 512, 256]
    assert (np.diff(events.time_ns) >= 0).all()


def test_a_capture_without_allocations_has_no_allocator() -> None:
    assert read_events(space({"python": [event(3, 0)]})) == {}
    assert read_events(Message(planes=[])) == {}


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("apart", [0.0, 1.5, 4.0])
def test_any_order_of_events_that_are_near_is_mended(seed: int, apart: float) -> None:
    rng = np.random.default_rng(seed)
    changes = 256 * rng.integers(1, 10**6, 120) * rng.choice([1, -1], 120)
    totals = 10**12 + np.cumsum(changes)
    seen = np.argsort(np.arange(120) + rng.uniform(0, apart, 120), kind="stable")
    order = by_total(changes[seen], totals[seen])
    assert seen[order].tolist() == list(range(120))


@pytest.mark.parametrize("seed", range(10))
def test_a_lost_event_leaves_all_others_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    changes = 256 * rng.integers(1, 10**6, 60) * rng.choice([1, -1], 60)
    totals = 10**12 + np.cumsum(changes)
    kept = np.delete(np.arange(60), rng.integers(1, 59, 3))
    assert by_total(changes[kept], totals[kept]).tolist() == list(range(len(kept)))


@pytest.mark.parametrize(
    ("allocator", "device", "on_host"),
    [
        ("GPU_0_bfc", "GPU:0", False),
        ("GPU_11_bfc", "GPU:11", False),
        ("gpu_host_bfc", "GPU host (pinned)", True),
        ("cuda_host_bfc", "GPU host (pinned)", True),
        ("cpu", "CPU:0", True),
        ("mklcpu", "CPU:0", True),
        ("bfc_cpu_allocator_for_gpu", "CPU:0", True),
    ],
)
def test_an_allocator_is_a_devices(allocator: str, device: str, on_host: bool) -> None:
    found = replace(made_events([(256, 8)]), allocator=allocator)
    assert (found.device, found.on_host) == (device, on_host)
