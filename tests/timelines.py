"""Timelines made up for tests: by hand, one allocation a line, or at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep

# requested bytes, birth, death, owner, category, phase, and the operation
Line = tuple[int, int, int, str, str, str, str]
NAMED = ("input pipeline", "loss", "metrics", "optimizer", "unattributed", "kept tapes")


def timeline(lines: Sequence[Line], num_events: int, *, owners: Sequence[str] = (), **changed: Any) -> Timeline:
    """A timeline of the allocations named; an owner that is none of the named ones is a Dense layer."""
    paths = tuple(dict.fromkeys([*owners, *(line[3] for line in lines)]))
    ops = tuple(dict.fromkeys(["", *(line[6] for line in lines)]))
    sizes, births, deaths = (np.array([line[field] for line in lines], np.int64) for field in range(3))
    made = Timeline(
        device="CPU:0",
        requested_bytes=sizes,
        reserved_bytes=np.where(births < 0, 0, -(-sizes // 256) * 256),
        birth=births,
        death=deaths,
        address=np.arange(1, len(lines) + 1, dtype=np.uint64) * np.uint64(4096),
        owner=np.array([paths.index(line[3]) for line in lines], np.int32),
        category=np.array([CATEGORIES.index(line[4]) for line in lines], np.int8),
        phase=np.array([PHASES.index(line[5]) for line in lines], np.int8),
        op=np.array([ops.index(line[6]) for line in lines], np.int32),
        time_ns=np.arange(num_events, dtype=np.int64) * 1000,
        in_use_bytes=np.arange(num_events, dtype=np.int64) * 256 + 10**6,
        in_use_before_bytes=10**6,
        owners=paths,
        classes=tuple("" if path in NAMED else "Dense" for path in paths),
        ops=ops,
    )
    return replace(made, **changed)


def step(made: Timeline, number: int = 3, **changed: Any) -> TracedStep:
    """A traced step of a timeline."""
    fields = {"stage": "train", "epoch": 0, "time_s": 1_700_000_000.0, "mode": "graph", "reason": "chosen by a test"}
    return TracedStep(step=number, timeline=made, **{**fields, **changed})


def random_timeline(rng: np.random.Generator, num_events: int, num_owners: int, num_allocations: int) -> Timeline:
    """Allocations of any owner, category and phase; some are of no bytes, and some are born where others die."""
    births = rng.integers(-1, max(num_events, 1), num_allocations) if num_events else np.full(num_allocations, -1)
    lines = [
        (
            int(rng.choice([0, 1, rng.integers(1, 10_000)])),
            int(birth),
            int(rng.integers(birth + 1, num_events + 1)),
            f"layer_{rng.integers(num_owners)}" if rng.random() < 0.8 else str(rng.choice(NAMED)),
            str(rng.choice(CATEGORIES)),
            "between" if birth < 0 else str(rng.choice(PHASES)),
            f"op_{rng.integers(20)}",
        )
        for birth in births
    ]
    return timeline(lines, num_events, owners=[f"layer_{index}" for index in range(num_owners)])


def alive(made: Timeline, event: int) -> list[int]:
    """Indices of the allocations alive at a moment, one by one."""
    return [i for i in range(made.num_allocations) if made.birth[i] <= event < made.death[i]]


# The weight lives all the time; the activation lives until the backward pass has used it.
STEP = timeline(
    [
        (100, -1, 5, "dense", "weights", "between", ""),
        (7, -1, 1, "unattributed", "unattributed", "between", ""),
        (40, 0, 4, "dense", "activations", "forward", "MatMul"),
        (10, 2, 3, "loss", "other", "forward", "Mean"),
        (30, 3, 5, "dense", "gradients", "backward", "MatMulGrad"),
    ],
    5,
)
MADE = [
    timeline([], 0),
    *(
        random_timeline(np.random.default_rng(seed), events, owners, allocations)
        for seed, (events, owners, allocations) in enumerate(
            [(0, 1, 0), (0, 2, 3), (1, 1, 1), (2, 3, 9), (20, 1, 40), (50, 5, 60), (50, 30, 20), (7, 2, 200)]
        )
    ),
]


def realistic_step(num_events: int = 100_000, num_ops: int = 5_000, seed: int = 0) -> TracedStep:
    """A step as a large model makes it: chunks used again and again, few sizes but for some, long names."""
    rng = np.random.default_rng(seed)
    num_allocations = num_events // 2
    births = np.sort(rng.choice(num_events, num_allocations, replace=False))
    # Every free event frees one of the allocations that are alive, most of them young.
    births_at = np.zeros(num_events, bool)
    births_at[births] = True
    deaths = np.full(num_allocations, num_events)
    living: list[int] = []
    next_index = 0
    for event in range(num_events):
        if births_at[event]:
            living.append(next_index)
            next_index += 1
        elif living:
            deaths[living.pop(-1 - min(int(rng.exponential(30)), len(living) - 1))] = event
    sizes = rng.choice(rng.integers(1, 10**7, 400) * 4, num_allocations)
    noisy = rng.random(num_allocations) < 0.1
    sizes[noisy] = rng.integers(1, 10**8, noisy.sum())
    reserved = -(-sizes // 256) * 256 + 256 * (rng.random(num_allocations) < 0.1) * rng.integers(0, 10**4)
    change = np.zeros(num_events + 1, np.int64)
    np.add.at(change, births, reserved)
    np.subtract.at(change, deaths, reserved)
    chunks = rng.integers(2**46, 2**47, 5000, dtype=np.uint64) // np.uint64(256) * np.uint64(256)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz_/0123456789"))
    made = Timeline(
        device="GPU:0",
        requested_bytes=sizes,
        reserved_bytes=reserved,
        birth=births,
        death=deaths,
        address=rng.choice(chunks, num_allocations),
        owner=rng.integers(0, 300, num_allocations).astype(np.int32),
        category=rng.integers(0, len(CATEGORIES), num_allocations).astype(np.int8),
        phase=np.sort(rng.integers(0, len(PHASES), num_allocations)).astype(np.int8),
        op=rng.integers(0, num_ops, num_allocations).astype(np.int32),
        time_ns=np.cumsum(rng.integers(200, 40_000, num_events)),
        in_use_bytes=10**9 + np.cumsum(change[:-1]),
        in_use_before_bytes=10**9,
        owners=tuple(f"encoder/block_{index}/attention" for index in range(300)),
        classes=("MultiHeadAttention",) * 300,
        ops=tuple("".join(name) for name in rng.choice(letters, (num_ops, 60))),
    )
    return step(made, output_bytes=dict.fromkeys(made.owners, 4096), notes=("made up",))


def assert_same_step(found: TracedStep, expected: TracedStep) -> None:
    """Compare two steps, value by value and type by type."""
    for field in fields(TracedStep):
        if field.name not in ("timeline", "others"):
            assert getattr(found, field.name) == getattr(expected, field.name), field.name
    assert list(found.timelines) == list(expected.timelines)
    for device, timeline in found.timelines.items():
        for field in fields(Timeline):
            value, wanted = getattr(timeline, field.name), getattr(expected.timelines[device], field.name)
            if isinstance(wanted, np.ndarray):
                assert value.dtype == wanted.dtype and value.tolist() == wanted.tolist(), field.name
            else:
                assert type(value) is type(wanted) and value == wanted, field.name
