"""Captured steps put together into what several GPUs would have captured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

__all__ = ["on_two_gpus"]

_KINDS = ("MemoryAllocation", "MemoryDeallocation")
_REPLICA = "replica_1/"
_OTHER_KEYS = 10**9


def on_two_gpus(capture: Any, more_bytes: int = 0) -> Any:
    """A captured step as if a replica on a second GPU had done the same at the same time, at the same addresses.

    As under ``tf.distribute.MirroredStrategy``, its operations have the replica's name before their own.

    Args:
        capture: A ``GpuCapture``.
        more_bytes: How much more is in use on the second.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(capture.captured.space)
    for plane in space.planes:
        if plane.name == "/host:CPU":
            _double(plane, more_bytes)
    known = capture.captured.known
    captured = replace(
        capture.captured,
        space=space.SerializeToString(),
        known=[*known, *map(_replica, (buffer for buffer in known if buffer.device == "GPU:0"))],
    )
    noted = capture.noted
    gradients = [
        replace(each, key=each.key + _OTHER_KEYS, ops=tuple(_REPLICA + op for op in each.ops))
        for each in noted.gradients
    ]
    assigned = {_REPLICA + op: _replica(buffer) for op, buffer in noted.assigned.items()}
    more = replace(noted, assigned={**noted.assigned, **assigned}, gradients=[*noted.gradients, *gradients])
    kept = [*capture.kept, *(each._replace(device="GPU:1") for each in capture.kept if each.device == "GPU:0")]
    return replace(capture, captured=captured, noted=more, kept=kept)


def _replica(buffer: Any) -> Any:
    return replace(buffer, device="GPU:1", key=buffer.key + _OTHER_KEYS if buffer.key else 0)


def _double(plane: Any, more_bytes: int) -> None:
    """Each allocation of the first GPU's once more, by the second's."""
    stats = {key: each.name for key, each in plane.stat_metadata.items()}
    numbers = {name: key for key, name in stats.items()}
    kinds = {key for key, each in plane.event_metadata.items() if each.name in _KINDS}
    allocator, op = numbers["allocator_name"], numbers.get("tf_op")

    def number(name: str) -> int:
        if name not in numbers:
            numbers[name] = max(plane.stat_metadata) + 1
            plane.stat_metadata[numbers[name]].id = numbers[name]
            plane.stat_metadata[numbers[name]].name = name
        return numbers[name]

    for line in plane.lines:
        events = list(line.events)
        del line.events[:]
        for event in events:
            line.events.append(event)
            if event.metadata_id not in kinds:
                continue
            if not any(stat.metadata_id == allocator and stats[stat.ref_value] == "GPU_0_bfc" for stat in event.stats):
                continue
            twin = line.events.add()
            twin.CopyFrom(event)
            for stat in twin.stats:
                if stat.metadata_id == numbers["bytes_allocated"]:
                    stat.int64_value += more_bytes
                if stat.metadata_id == allocator:
                    stat.ref_value = number("GPU_1_bfc")
                elif stat.metadata_id == op and "/" in stats[stat.ref_value]:
                    stat.ref_value = number(_REPLICA + stats[stat.ref_value])
