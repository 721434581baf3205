"""Allocations that hold the gradients of variables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.pairing import Allocations
from kerasmemwatch.attribution.owners.name_scopes import without_calls

__all__ = ["GradientBuffer", "gradient_bytes", "gradient_rows"]


@dataclass(frozen=True)
class GradientBuffer:
    """A sighting of a variable's gradient."""

    owner: str  # the variable's layer
    class_name: str  # the layer's class
    bytes: int | None  # its size; `None` if it is sparse
    key: int  # key of the variable
    ops: tuple[str, ...] = ()  # in a graph, the operation that returns it, then those whose buffer it may share
    address: int = 0  # in eager mode, its address
    time_ns: int = 0  # UNIX time of the sighting


def gradient_rows(
    events: AllocationEvents,
    rows: Allocations,
    gradients: Iterable[GradientBuffer],
    owners: Sequence[str],
    backward: NDArray[np.bool_],
) -> dict[int, GradientBuffer]:
    """Find the allocations of gradients.

    Args:
        backward: ``bool[num_rows]``, whether the backward pass made the row.

    Returns:
        By row, the gradient that it holds; for each variable the certain ones first. A sparse gradient may be in an
        allocation of the forward pass.
    """
    requested = events.requested_bytes[rows.event]
    free, forward = (made & (rows.birth >= 0) for made in (backward, ~backward))
    by_op, by_address = _rows_by_op(events, rows), _Groups(events.address[rows.event])
    found: dict[int, GradientBuffer] = {}
    missed = []
    for gradient in gradients:
        if gradient.address:
            row = _alive(events, rows, by_address.of(gradient.address), gradient.time_ns)
        else:
            row = _made_by(by_op, gradient, requested, free)
            if row is None and gradient.bytes is None:
                row = _taken_over(by_op, gradient, rows.death, forward)
        if row is None:
            missed.append(gradient)
        else:
            found[row], free[row], forward[row] = gradient, False, False
    # An allocation that an operation took over in place, or a loop added up, has another name, perhaps that of a layer
    # above. Take the one of its size that lives longest.
    by_size = _Groups(requested)
    for gradient in missed:
        around = {"/".join(gradient.owner.split("/")[:depth]) for depth in range(1, gradient.owner.count("/") + 2)}
        of_size = by_size.of(gradient.bytes) if gradient.bytes else []
        candidates = [row for row in of_size if free[row] and owners[row] in around]
        if candidates:
            row = max(candidates, key=lambda row: int(rows.death[row] - rows.birth[row]))
            found[row], free[row] = gradient, False
    return found


def gradient_bytes(found: dict[int, GradientBuffer], requested: NDArray[np.int64]) -> dict[str, int]:
    """By layer path, the gradient bytes of its variables, each variable counted once."""
    sizes: dict[tuple[str, int], int] = {}
    for row, gradient in found.items():
        variable = gradient.owner, gradient.key
        sizes[variable] = max(sizes.get(variable, 0), int(requested[row]))
    of_layer: dict[str, int] = {}
    for (path, _), size in sizes.items():
        of_layer[path] = of_layer.get(path, 0) + size
    return of_layer


class _Groups:
    """Rows grouped by one of their values, in order."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        self._order = np.argsort(values, kind="stable")
        self._sorted = values[self._order]

    def of(self, value: int) -> list[int]:
        typed = self._sorted.dtype.type(value)
        first, last = np.searchsorted(self._sorted, typed), np.searchsorted(self._sorted, typed, side="right")
        found: list[int] = self._order[first:last].tolist()
        return found


def _rows_by_op(events: AllocationEvents, rows: Allocations) -> dict[str, list[int]]:
    """Rows by name of the operation, without the names of the calls that it runs in."""
    groups = _Groups(events.op[rows.event])
    found: dict[str, list[int]] = {}
    for index, name in enumerate(events.ops):
        if name:
            found.setdefault(without_calls(name), []).extend(groups.of(index))
    return found


def _made_by(
    by_op: dict[str, list[int]], gradient: GradientBuffer, requested: NDArray[np.int64], free: NDArray[np.bool_]
) -> int | None:
    def fitting(name: str) -> Iterator[int]:
        for row in by_op.get(name, ()):
            if free[row] and gradient.bytes in (None, int(requested[row])):
                yield row

    names = (list(fitting(name)) for name in gradient.ops)
    return next((max(found, key=lambda row: int(requested[row])) for found in names if found), None)


def _taken_over(
    by_op: dict[str, list[int]], gradient: GradientBuffer, death: NDArray[np.int64], forward: NDArray[np.bool_]
) -> int | None:
    """Find the allocation of the forward pass that a gradient took over: one that backward only reads dies earlier."""
    found = [row for name in gradient.ops for row in by_op.get(name, ()) if forward[row]]
    return max(found, key=lambda row: int(death[row]), default=None)


def _alive(events: AllocationEvents, rows: Allocations, at_address: list[int], time_ns: int) -> int | None:
    """Return the newest allocation at an address before a time, if it was alive then."""
    moment = int(np.searchsorted(events.time_ns, time_ns))
    alive = [row for row in at_address if 0 <= rows.birth[row] < moment <= rows.death[row]]
    return max(alive, key=lambda row: int(rows.birth[row]), default=None)
