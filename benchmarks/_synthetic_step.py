"""A traced step with made-up allocations that look like a large model's."""

from __future__ import annotations

import numpy as np

from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep

__all__ = ["synthetic_step"]

_BLOCKS, _PARTS, _OPS = 60, ("attention", "dense", "norm", "dropout", "dense_1"), 4_000
_LEAST_BYTES, _WEIGHT_BYTES = 64, 4 * 2**20
# Forward, backward and update: how much of the step each takes, and of which category most of what is born then is.
_SHARES = {"forward": 0.45, "backward": 0.45, "update": 0.1}
_BORN = {"forward": "activations", "backward": "gradients", "update": "temporaries"}
_TEMPORARY = 0.3
# How many of the newest buffers a death picks among, on average: most die young.
_YOUNG = 30


def synthetic_step(num_events: int, number: int, epoch: int | None, time_s: float) -> TracedStep:
    """Make a step up.

    Args:
        num_events: How many births and deaths it has, half of them each.
        number: Its number, which is what it is made from.
        epoch: Its epoch.
        time_s: UNIX time of its begin.
    """
    rng = np.random.default_rng(number)
    owners = tuple(f"encoder/block_{block}/{part}" for block in range(_BLOCKS) for part in _PARTS)
    births, deaths = _lifetimes(rng, num_events)
    # Forward through the layers, and back.
    share = births / num_events
    phase = np.searchsorted(np.cumsum(list(_SHARES.values()))[:-1], share, "right")
    begins, lengths = np.cumsum([0, *_SHARES.values()])[:-1], np.array(list(_SHARES.values()))
    along = (share - begins[phase]) / lengths[phase]
    layer = (np.where(phase == 1, 1 - along, along) * (len(owners) - 1)).astype(np.int64)
    born = np.array([CATEGORIES.index(name) for name in _BORN.values()])[phase]
    category = np.where(rng.random(len(births)) < _TEMPORARY, CATEGORIES.index("temporaries"), born)
    sizes = _sizes(rng, len(births))
    held = np.arange(len(owners))
    weights, slots = np.full(len(owners), _WEIGHT_BYTES), np.full(len(owners), 2 * _WEIGHT_BYTES)
    before, after = np.full(2 * len(owners), -1), np.full(2 * len(owners), num_events)
    held_categories = np.repeat([CATEGORIES.index("weights"), CATEGORIES.index("optimizer")], len(owners))
    reserved = -(-sizes // 256) * 256
    change = np.zeros(num_events + 1, np.int64)
    np.add.at(change, births, reserved)
    np.subtract.at(change, deaths, reserved)
    in_use_before = int(weights.sum() + slots.sum())
    phases = np.array([PHASES.index(name) for name in _SHARES])[phase]
    timeline = Timeline(
        device="CPU:0",
        requested_bytes=np.concatenate([weights, slots, sizes]),
        reserved_bytes=np.concatenate([np.zeros(len(before), np.int64), reserved]),
        birth=np.concatenate([before, births]),
        death=np.concatenate([after, deaths]),
        address=rng.integers(2**38, 2**38 + 2**26, len(before) + len(births), dtype=np.uint64) * np.uint64(256),
        owner=np.concatenate([held, held, layer]).astype(np.int32),
        category=np.concatenate([held_categories, category]).astype(np.int8),
        phase=np.concatenate([np.full(len(before), PHASES.index("between")), phases]).astype(np.int8),
        op=np.concatenate([np.zeros(len(before), np.int64), rng.integers(1, _OPS, len(births))]).astype(np.int32),
        time_ns=np.cumsum(rng.integers(200, 4_000, num_events)),
        in_use_bytes=in_use_before + np.cumsum(change[:-1]),
        in_use_before_bytes=in_use_before,
        owners=owners,
        classes=tuple("Dense" if "dense" in path else "Layer" for path in owners),
        ops=("", *(f"model/{owners[op % len(owners)]}/MatMul_{op}" for op in range(1, _OPS))),
    )
    output_bytes = dict.fromkeys(owners, _LEAST_BYTES)
    return TracedStep(number, "train", epoch, time_s, "graph", "made up", timeline, output_bytes)


def _lifetimes(rng: np.random.Generator, num_events: int) -> tuple[np.ndarray, np.ndarray]:
    """Births, and for each its death: that event frees one of what is alive then, most of the time a young one."""
    births = np.sort(rng.choice(num_events, num_events // 2, replace=False))
    is_birth = np.zeros(num_events, bool)
    is_birth[births] = True
    deaths, living, newest = np.full(len(births), num_events), list[int](), -1
    ages = rng.exponential(_YOUNG, num_events).astype(int).tolist()
    for event, born in enumerate(is_birth.tolist()):
        if born:
            newest += 1
            living.append(newest)
        elif living:
            deaths[living.pop(max(-1 - ages[event], -len(living)))] = event
    return births, deaths


def _sizes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Sizes over six orders of magnitude, few distinct ones, as layers of one shape ask for the same."""
    distinct = (_LEAST_BYTES * 10 ** rng.uniform(0, 5.5, 400)).astype(np.int64)
    return rng.choice(distinct, count)
