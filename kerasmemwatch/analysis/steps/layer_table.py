"""Each layer over a whole step: its own maxima, the peaks while it runs, and what it adds to the step's peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.steps.live_set import peak_event, requested_at
from kerasmemwatch.analysis.steps.step_devices import on_device
from kerasmemwatch.records.categories import CATEGORIES, OF_VARIABLES
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.records.timeline import PHASES, Timeline, TracedStep

__all__ = ["added_bytes", "layer_table", "range_maxima"]

_Integers = NDArray[np.int64]
# A variable that moves to a new buffer briefly exists twice, so an owner's bytes in these are counted at rest.
_VARIABLES = ("weights", "optimizer")


def layer_table(
    step: TracedStep, inventory: Sequence[LayerMemory] = (), *, device: str | None = None
) -> tuple[LayerMemory, ...]:
    """Each owner over a whole step.

    A row has the maximum over time of each category by itself, so its columns may sum to more than ``total_bytes``,
    the maximum that the owner had alive at once; no column is below what was alive at the step's peak.
    Weights and optimizer variables are counted at rest, before or after the step. If an update briefly keeps one in
    two buffers, both count in the total, and in the column if that moment is the peak. A layer's gradients are counted
    once per variable, even if they were never all alive together; they are ``None`` if the step does not train.
    Where the step lacks an owner's variables (they live on another device, or could not be identified), the inventory
    supplies them, and ``total_bytes`` and ``added_bytes`` are unknown. If a device is named, this applies only to
    variables that are on no device of the step, and owners that hold nothing there are omitted.

    Args:
        inventory: The model's variables by owner, in the model's order.
        device: Show only this device; if ``None``, the device that heads the step, and variables on others.

    Returns:
        A row for each owner of the step or the inventory, exclusive of sub-layers: layers in the model's order, then
        owners that are not layers.

    Raises:
        InvalidArgumentError: If nothing was allocated on that device.
    """
    if device is not None:
        step = on_device(step, device)
        inventory = _without_others(step, inventory)
    measured = {row.owner: row for row in _measured(step)}
    listed = {row.owner: row for row in inventory}
    rows = [
        _completed(measured.get(key) or _idle(listed[key], step), listed.get(key))
        for key in _merged(list(listed), list(measured))
    ]
    if step.stage != "train":
        # Gradients that the user's own step computed, for example in a validation, stay.
        rows = [row if row.gradients_bytes else replace(row, gradients_bytes=None) for row in rows]
    return tuple(sorted(rows, key=lambda row: not row.owner.is_layer))


def added_bytes(timeline: Timeline) -> _Integers:
    """How far the step's peak falls without one owner's allocations.

    Returns:
        ``int64[num_owners]``: the peak minus the maximum over all moments of the total without the owner.
    """
    total = requested_at(timeline)
    owner, start, own = _steps(timeline, timeline.owner, len(timeline.owners))
    # Between two of its own changes an owner's share is constant, so the highest total of the interval decides.
    last = np.append(owner[1:] != owner[:-1], True)[: len(owner)]
    begin, end = start[~last], np.append(start[1:], 0)[: len(start)][~last]
    without = range_maxima(total, begin, end) - own[~last]
    highest = np.zeros(len(timeline.owners), np.int64)
    np.maximum.at(highest, owner[~last], without)
    added: _Integers = total.max() - highest
    return added


def range_maxima(values: _Integers, begin: _Integers, end: _Integers) -> _Integers:
    """Maxima of many ranges ``values[begin:end]``, none of them empty.

    Two ranges whose length is a power of two cover any range. Each power's maxima are computed from the previous
    power's and used at once, so they take no more memory than the values themselves.
    """
    found = np.empty(len(begin), values.dtype)
    power = np.frexp(np.asarray(end - begin, float))[1] - 1
    maxima = values
    for exponent in range(int(power.max(initial=-1)) + 1):
        asked = np.flatnonzero(power == exponent)
        found[asked] = np.maximum(maxima[begin[asked]], maxima[end[asked] - (1 << exponent)])
        maxima = np.maximum(maxima[: -(1 << exponent)], maxima[1 << exponent :])
    return found


def _measured(step: TracedStep) -> list[LayerMemory]:
    """A row for each owner of the step, from the step alone."""
    timeline = step.timeline
    num_owners, num_categories = len(timeline.owners), len(CATEGORIES)
    kind = timeline.owner.astype(np.int64) * num_categories + timeline.category
    highest = _own_maxima(timeline, kind, num_owners * num_categories).reshape(num_owners, num_categories)
    at_rest = _at_rest(timeline, kind, highest.size).reshape(highest.shape)
    event = peak_event(timeline)
    at_peak = _bytes_of(kind, timeline, (timeline.birth <= event) & (timeline.death > event), highest.size)
    for name in _VARIABLES:
        code = CATEGORIES.index(name)
        least = np.maximum(at_rest[:, code], at_peak.reshape(highest.shape)[:, code])
        highest[:, code] = np.where(at_rest[:, code] > 0, least, highest[:, code])
    gradients = CATEGORIES.index("gradients")
    for index, path in enumerate(timeline.owners):
        if timeline.classes[index]:
            highest[index, gradients] = max(step.gradient_bytes.get(path, 0), int(highest[index, gradients]))
    totals = _own_maxima(timeline, timeline.owner, num_owners).tolist()
    added = added_bytes(timeline).tolist()
    forward, backward = (_peak_while_born(timeline, phase) for phase in ("forward", "backward"))
    return [
        LayerMemory(
            path,
            class_name,
            output_bytes=step.output_bytes.get(path) if class_name else None,
            total_bytes=totals[index],
            added_bytes=added[index],
            forward_peak_bytes=forward[index],
            backward_peak_bytes=backward[index],
            **{f"{name}_bytes": size for name, size in zip(CATEGORIES, highest[index].tolist(), strict=True)},
        )
        for index, (path, class_name) in enumerate(zip(timeline.owners, timeline.classes, strict=True))
    ]


def _without_others(step: TracedStep, inventory: Sequence[LayerMemory]) -> list[LayerMemory]:
    """The inventory without variables on other devices than the step's, and without idle owners."""
    here = set(_owners(step.timeline, np.arange(step.timeline.num_allocations)))
    codes = [CATEGORIES.index(name) for name in OF_VARIABLES]
    elsewhere = {key for other in step.others for key in _owners(other, np.flatnonzero(np.isin(other.category, codes)))}
    none: dict[str, Any] = {f"{name}_bytes": 0 for name in OF_VARIABLES}
    rows = [replace(row, **none) if row.owner in elsewhere else row for row in inventory]
    return [row for row in rows if row.owner in here or any(getattr(row, name) != 0 for name in none)]


def _owners(timeline: Timeline, chosen: NDArray[np.intp]) -> list[Owner]:
    """The owners of some allocations."""
    codes = np.unique(timeline.owner[chosen]).tolist()
    return [Owner(timeline.owners[code], timeline.classes[code]) for code in codes]


def _idle(listed: LayerMemory, step: TracedStep) -> LayerMemory:
    """A row for an owner that is not in the step because it allocated nothing."""
    return LayerMemory(
        listed.path,
        listed.class_name,
        output_bytes=step.output_bytes.get(listed.path) if listed.class_name else None,
        total_bytes=0,
        added_bytes=0,
        **{f"{name}_bytes": 0 for name in CATEGORIES},
    )


def _completed(row: LayerMemory, listed: LayerMemory | None) -> LayerMemory:
    """The row, completed with what only the inventory knows about its variables."""
    if listed is None:
        return row
    held = {f"{name}_bytes": getattr(listed, f"{name}_bytes") for name in OF_VARIABLES}
    lacking = {name: size for name, size in held.items() if not getattr(row, name) and size != 0}
    row = replace(row, num_variables=listed.num_variables, **lacking)
    is_whole = not any(f"{name}_bytes" in lacking for name in _VARIABLES)
    return row if is_whole else replace(row, total_bytes=None, added_bytes=None)


def _merged(spine: list[Owner], others: list[Owner]) -> list[Owner]:
    """The keys of both lists: the first in order, with each missing key after its predecessor in the second."""
    behind: dict[Owner | None, list[Owner]] = {}
    known, previous = set(spine), None
    for key in others:
        if key in known:
            previous = key
        else:
            behind.setdefault(previous, []).append(key)
    return [key for place in (None, *spine) for key in ([place] if place else []) + behind.get(place, [])]


def _own_maxima(timeline: Timeline, group: NDArray[np.integer], num_groups: int) -> _Integers:
    """The maximum over time of each group's live requested bytes."""
    found, _, own = _steps(timeline, group, num_groups)
    highest = np.zeros(num_groups, np.int64)
    np.maximum.at(highest, found, own)
    return highest


def _at_rest(timeline: Timeline, group: _Integers, num_groups: int) -> _Integers:
    """Each group's live requested bytes before the first event or after the last, whichever is more."""
    before, after = timeline.birth < 0, timeline.death >= timeline.num_events
    held: _Integers = np.maximum(*(_bytes_of(group, timeline, alive, num_groups) for alive in (before, after)))
    return held


def _bytes_of(group: _Integers, timeline: Timeline, alive: NDArray[np.bool_], num_groups: int) -> _Integers:
    """Each group's requested bytes, of the allocations in ``alive``."""
    sizes = np.zeros(num_groups, np.int64)
    np.add.at(sizes, group[alive], timeline.requested_bytes[alive])
    return sizes


def _steps(
    timeline: Timeline, group: NDArray[np.integer], num_groups: int
) -> tuple[NDArray[np.int64], _Integers, _Integers]:
    """The live requested bytes of every group of allocations as steps: group, first moment (counted from 0), bytes.

    Each group has a step at moment 0 and one of 0 bytes after the last moment.
    """
    num_moments = timeline.num_events + 1
    ends = np.arange(num_groups, dtype=np.int64) * (num_moments + 1)
    offset = group.astype(np.int64) * (num_moments + 1)
    key = np.concatenate([ends, ends + num_moments, offset + timeline.birth + 1, offset + timeline.death + 1])
    nothing, sizes = np.zeros(2 * num_groups, np.int64), timeline.requested_bytes
    change = np.concatenate([nothing, sizes, -sizes])
    order = np.argsort(key)
    key, change = key[order], change[order]
    # Births and deaths of one event are one step.
    first = np.flatnonzero(np.append(True, key[1:] != key[:-1])) if len(key) else np.empty(0, np.int64)
    # Every group ends at 0, so one running sum serves all of them.
    own = np.cumsum(np.add.reduceat(change, first)) if len(first) else change
    found, moment = np.divmod(key[first], num_moments + 1)
    return found, moment, own


def _peak_while_born(timeline: Timeline, phase: str) -> list[int | None]:
    """For each owner, the highest live total from its first to its last allocation in a phase."""
    found: list[int | None] = [None] * len(timeline.owners)
    born = np.flatnonzero((timeline.phase == PHASES.index(phase)) & (timeline.birth >= 0))
    if not len(born):
        return found
    first = np.full(len(timeline.owners), timeline.num_events, np.int64)
    last = np.full(len(timeline.owners), -1, np.int64)
    np.minimum.at(first, timeline.owner[born], timeline.birth[born])
    np.maximum.at(last, timeline.owner[born], timeline.birth[born])
    owners = np.flatnonzero(last >= 0)
    highest = range_maxima(requested_at(timeline), first[owners] + 1, last[owners] + 2)
    for index, value in zip(owners.tolist(), highest.tolist(), strict=True):
        found[index] = value
    return found
