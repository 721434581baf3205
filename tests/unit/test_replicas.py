"""Which gradients one device has, where several have a copy of each variable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from captures import events

from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.owners.replicas import gradients_on
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer

FIRST = replace(events([(256, 400, "call/StatefulPartitionedCall/grad/a")]), allocator="GPU_0_bfc")
SECOND = replace(events([(256, 400, "StatefulPartitionedCall/replica_1/grad/a")]), allocator="GPU_1_bfc")
HOST = events([(256, 400, "grad/a")])


def variable(key: int, device: str, size: int = 400) -> KnownBuffer:
    return KnownBuffer("a", "Dense", "weights", size, key=key, trainable=True, device=device)


REPLICAS = [variable(1, "GPU:0"), variable(11, "GPU:1"), variable(2, "GPU:0"), variable(12, "GPU:1")]


def keys(gradients: Sequence[GradientBuffer]) -> list[int]:
    return [each.key for each in gradients]


def test_with_one_copy_of_each_all_are_as_they_were() -> None:
    seen = [GradientBuffer("a", "Dense", 400, 1, ops=("elsewhere",)), GradientBuffer("a", "Dense", 400, 1)]
    assert gradients_on(FIRST, seen, [variable(1, "GPU:0"), variable(2, "GPU:0"), variable(3, "CPU:0")]) == seen
    # A variable of the host's may have its gradient on the GPU, where its layer runs.
    assert keys(gradients_on(FIRST, [GradientBuffer("a", "Dense", 400, 3)], [variable(3, "CPU:0")])) == [3]


def test_each_device_has_its_own_replicas() -> None:
    seen = [
        GradientBuffer("a", "Dense", 400, 1, ops=("grad/a",)),
        GradientBuffer("a", "Dense", 400, 11, ops=("replica_1/grad/a",)),
    ]
    assert gradients_on(FIRST, seen, REPLICAS) == [seen[0]]
    assert gradients_on(SECOND, seen, REPLICAS) == [seen[1]]


def test_what_names_the_first_copy_is_the_others_by_its_operation() -> None:
    # As hooks see a distributed variable: whichever replica's gradient, it is the whole variable's.
    seen = [GradientBuffer("a", "Dense", 400, 1, ops=(name,)) for name in ("grad/a", "replica_1/grad/a")]
    assert gradients_on(FIRST, seen, REPLICAS) == [seen[0]]
    assert gradients_on(SECOND, seen, REPLICAS) == [replace(seen[1], key=11)]


def test_variables_that_are_alike_are_told_apart_by_their_order() -> None:
    seen = [GradientBuffer("a", "Dense", 400, key) for key in (1, 2, 11, 12)]
    assert keys(gradients_on(FIRST, seen, REPLICAS)) == [1, 2]
    assert keys(gradients_on(SECOND, seen, REPLICAS)) == [11, 12]


def test_an_operation_that_nobody_saw_run_is_looked_for_by_size_once() -> None:
    seen = [GradientBuffer("a", "Dense", 400, key, ops=(f"in_place_{key}",)) for key in (1, 11)]
    assert keys(gradients_on(SECOND, seen, REPLICAS)) == [11]


def test_operations_of_programs_count_as_run() -> None:
    seen = [GradientBuffer("a", "Dense", 400, 1, ops=(name,)) for name in ("other", "compiled")]
    assert gradients_on(SECOND, seen, REPLICAS, ["call/StatefulPartitionedCall/compiled"])[0].ops == ("compiled",)


def test_the_host_has_no_gradients_of_a_gpus_variables() -> None:
    seen = [GradientBuffer("a", "Dense", 400, key) for key in (1, 3)]
    assert keys(gradients_on(HOST, seen, [variable(1, "GPU:0"), variable(3, "CPU:0")])) == [3]
