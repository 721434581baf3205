"""Owner of each allocation: the maker of its operation, else whatever the stack says for that time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents
from kerasmemwatch.attribution.events.pairing import Allocations
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.records.owners import FUNCTIONS, INPUT_PIPELINE, Frame

__all__ = ["row_frames", "within_calls"]

_UNKNOWN = Frame("unattributed", "", "between")
# Prefix of the names that TensorFlow gives to traced functions.
_FUNCTION = "__inference_"
_PIPELINE = Frame(INPUT_PIPELINE, "", "input")


def row_frames(
    events: AllocationEvents,
    rows: Allocations,
    ops: NDArray[np.int32],
    owners: OpOwners,
    log: Sequence[tuple[int, Frame]] = (),
    calls: Sequence[tuple[int, int]] = (),
    told: Mapping[int, Frame] | None = None,
) -> tuple[list[Frame], NDArray[np.int64]]:
    """Find the owner of each allocation.

    Args:
        ops: The operation of each row, index into the events' names.
        log: UNIX times in nanoseconds, and the top of the stack from then on, on Python's thread.
        calls: UNIX times of the beginning and end of the functions that this thread called.
        told: By event, the owner of an allocation known by other means.

    Returns:
        Frames, the first of which means unknown, and ``int64[num_rows]``, each row's index into them.
    """
    codes: dict[Frame, int] = {_UNKNOWN: 0, _PIPELINE: 1}
    event = rows.event
    from_pipeline = events.from_input_pipeline[event]
    # Python threads carry the process name; TensorFlow threads end in /number.
    python = _threads(events, event, ["/" not in name for name in events.threads])
    tops, top = _tops(log, events.time_ns[event])
    # Other threads work for Python's thread while it waits within a layer.
    top = np.where(python | np.array([_is_at_work(frame) for frame in tops])[top], top, 0)
    top = np.where(from_pipeline, 0, top)
    which = np.zeros(len(event), np.int64)
    called = within_calls(calls, events.time_ns[event])
    keys = (ops.astype(np.int64) * len(tops) + top) * 2 + called
    pairs, inverse = np.unique(keys, return_inverse=True)
    found = np.zeros(len(pairs), np.int64)
    for index, code in enumerate(pairs.tolist()):
        op, frame_code = divmod(code // 2, len(tops))
        frame = _maker(owners, events.ops[op], tops[frame_code], called=bool(code % 2))
        found[index] = codes.setdefault(frame, len(codes))
    which = np.where(from_pipeline, codes[_PIPELINE], found[inverse.reshape(-1)])
    # Functions of the input pipeline have run ids of their own, on any thread.
    runs = np.unique(events.run[event][from_pipeline & (events.run[event] != 0)])
    which[(which == 0) & np.isin(events.run[event], runs)] = codes[_PIPELINE]
    row_of = dict(zip(rows.birth.tolist(), range(len(event)), strict=True))
    of_layers = np.flatnonzero([bool(frame.class_name) for frame in codes])
    for birth, frame in (told or {}).items():
        # A program that a layer calls belongs to the layer.
        if frame.named != FUNCTIONS or which[row_of[birth]] not in of_layers:
            which[row_of[birth]] = codes.setdefault(frame, len(codes))
    which[rows.birth < 0] = 0
    # A frame may give only the phase.
    return [frame if frame.owner else frame._replace(owner=_UNKNOWN.owner) for frame in codes], which


def within_calls(calls: Sequence[tuple[int, int]], time_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``bool[n]``, whether a function was running at each of the given times."""
    # Functions may call others in Python, so calls nest.
    marks = sorted((time, step) for begun, ended in calls for time, step in ((begun, 1), (ended, -1)))
    times = np.array([time for time, _ in marks], np.int64)
    depth = np.concatenate([[0], np.cumsum([step for _, step in marks], dtype=np.int64)])
    found: NDArray[np.bool_] = depth[np.searchsorted(times, time_ns, side="right")] > 0
    return found


def _maker(owners: OpOwners, op: str, top: Frame, *, called: bool) -> Frame:
    """Return the owner of an allocation, given the top of the stack at that time; ``_UNKNOWN`` means an empty stack."""
    if op.startswith(_FUNCTION) and not top.class_name:
        # Allocations of a function's call besides its blocks: tables of pointers.
        return Frame(FUNCTIONS, "", "update")
    is_busy = _is_at_work(top)
    # In eager mode an operation's name gives only its kind; in a graph it may do so too.
    if top is not _UNKNOWN and "/" not in op and not (called and owners.exact(op)):
        return top
    frame = owners.find(op, top.owner if is_busy else "") if op else None
    return top if frame is None or not frame.owner else frame


def _is_at_work(frame: Frame) -> bool:
    """Whether a frame names something that runs, rather than a gap."""
    is_callback = frame.phase == "between" and frame != _UNKNOWN
    return bool(frame.class_name) or frame.phase in ("backward", "update") or is_callback


def _threads(events: AllocationEvents, event: NDArray[np.int64], flags: list[bool]) -> NDArray[np.bool_]:
    return np.array(flags or [False])[events.thread[event]]


def _tops(log: Sequence[tuple[int, Frame]], time_ns: NDArray[np.int64]) -> tuple[list[Frame], NDArray[np.int64]]:
    """Return the top of the stack at each time: frames, the first of which means unknown, and indices into them."""
    codes: dict[Frame, int] = {_UNKNOWN: 0}
    tops = np.array([0, *(codes.setdefault(frame, len(codes)) for _, frame in log)], np.int64)
    times = np.array([time for time, _ in log], np.int64)
    return list(codes), tops[np.searchsorted(times, time_ns, side="right")]
