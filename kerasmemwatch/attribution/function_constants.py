"""Constants that TensorFlow's functions leave at their first call, and keep as long as they live.

They take a few bytes each, but a chunk takes 256: next to a small model they are most of the bytes in use. Nothing
else reveals them, so the steps that trace small functions are captured.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from kerasmemwatch.attribution.events.allocation_events import AllocationEvents, read_events
from kerasmemwatch.attribution.events.pairing import pair
from kerasmemwatch.attribution.events.profiler_capture import Capture, ProfilerBusyError, ProfilerUnsafeError
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer, live_buffers
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.compat.tensorflow import XPLANE
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.owners import FUNCTIONS

__all__ = ["FirstCalls", "Kept", "constants"]

# Maximum number of operations, in general and next to a small model: building and optimizing a large function makes
# many events. With them the process grew by 6.2 to 6.7 KB an operation (measured for 2,000 to 20,000), and a first step
# of 135,000 (NASNetMobile) took 183 instead of 156 s of processor time and 1.2 GB more.
_MAX_OPERATIONS, _MAX_IF_SMALL = 2000, 10_000
_SMALL_MODEL_BYTES = 8_000_000
# A loop of few operations and many iterations makes as many events: captures above this size are not read.
_MAX_BYTES = 10_000_000
# A program that traces a function at every step, as for ever new batch shapes, has a larger problem.
_MAX_CAPTURES = 16
# One chunk. Larger constants belong to their layers.
_SMALL_BYTES = 256


class Kept(NamedTuple):
    """A buffer that a function's first call left."""

    address: int  # its address
    bytes: int  # the requested size
    op: str  # the operation that requested it, `""` without one
    device: str = "CPU:0"  # the device of `address`


class FirstCalls:
    """Captures the first few steps that trace functions, and finds the buffers that these left.

    Args:
        stack: Records each operation that is made.
        faults: Where faults are reported.

    Attributes:
        in_step: Whether the next capture is only a part of a step.
    """

    def __init__(self, stack: OwnerStack, faults: Faults) -> None:
        self.in_step = False
        self._stack, self._faults = stack, faults
        self._captured: deque[tuple[bytes, set[int], bool]] = deque()
        self._num_captured = 0
        self._kept: dict[int, Kept] = {}

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Capture a step that traces its functions, unless they turn out to be large."""
        stack, in_step, self.in_step = self._stack, self.in_step, False
        most = _MAX_IF_SMALL if _in_use_bytes() < _SMALL_MODEL_BYTES else _MAX_OPERATIONS
        capture = self._started()
        if capture is None:
            yield
            return
        made_before = stack.num_made
        stack.limit_made(made_before + most, capture.discard)
        try:
            yield
            if stack.num_made > made_before:
                self._num_captured += 1
                # TensorFlow reports a full disk as an OutOfRangeError, at which Keras would end the epoch.
                with self._faults.guard("trace", "Buffers that functions keep are unattributed."):
                    space = capture.stop()
                    if space and len(space) <= _MAX_BYTES:
                        # Variables and tensors move later, and the buffers that they leave have no name then.
                        alive = {buffer.address for buffer in live_buffers(in_step=in_step)}
                        self._captured.append((space, alive, in_step))
        finally:
            stack.limit_made(sys.maxsize, capture.discard)
            capture.discard()

    def keep(self, space: bytes, alive: set[int]) -> None:
        """Find the buffers that functions left, in a step that was captured as a whole.

        Args:
            space: A serialized ``XSpace``.
            alive: Addresses of buffers that Python knows.
        """
        if len(space) <= _MAX_BYTES:
            self._captured.append((space, alive, False))

    def kept(self) -> list[Kept]:
        """Return buffers that outlived the captured calls and belong to neither Python nor the input pipeline."""
        while self._captured:
            self._add(*self._captured.popleft())
        return list(self._kept.values())

    def _started(self) -> Capture | None:
        if self._num_captured >= _MAX_CAPTURES:
            return None
        capture = Capture()
        try:
            capture.start()
        except (ProfilerBusyError, ProfilerUnsafeError, OSError):
            return None
        return capture

    def _add(self, space: bytes, alive: set[int], in_step: bool) -> None:
        for events in read_events(XPLANE.get().FromString(space)).values():
            rows = pair(events)
            died = events.address[rows.event[rows.birth < 0]]
            for address in died.tolist():
                self._kept.pop(int(address), None)
            if in_step and events.device.startswith("GPU"):
                continue  # within a step the addresses of variables and tensors there are unknown
            # Handles of variables are known from the variables.
            handles = np.array([op.endswith("VarHandleOp") for op in events.ops], np.bool_)[events.op]
            named = events.from_input_pipeline | handles
            outlived = (rows.birth >= 0) & (rows.death >= len(events)) & ~named[rows.event]
            for event in rows.event[np.flatnonzero(outlived)].tolist():
                address = int(events.address[event])
                if address in alive:
                    continue
                op, size = events.ops[events.op[event]], int(events.requested_bytes[event])
                self._kept[address] = Kept(address, size, op, events.device)


def _in_use_bytes() -> float:
    """Return the bytes in use in host memory, where constants are."""
    tensorflow = sys.modules["tensorflow"]
    try:
        return float(tensorflow.config.experimental.get_memory_info("CPU:0")["current"])
    except (ValueError, tensorflow.errors.OpError):
        return math.inf


def constants(
    kept: Iterable[Kept], known: Iterable[KnownBuffer], events: AllocationEvents, owners: OpOwners
) -> Iterator[KnownBuffer]:
    """Yield buffers that functions have kept since their first calls, are nothing else, and are not of this step.

    A large one belongs to the owner of its operation; there are hundreds of small ones.
    """
    others = {buffer.address for buffer in known}
    anew = {events.ops[code] for code in np.unique(events.op[events.births]).tolist()} - {""}
    for each in kept:
        if each.device == events.device and each.address not in others and each.op not in anew:
            found = owners.find(each.op) if each.op and each.bytes > _SMALL_BYTES else None
            owner, class_name = (found.owner, found.class_name) if found and found.owner else (FUNCTIONS, "")
            yield KnownBuffer(owner, class_name, "other", each.bytes, each.address, constant=True, device=each.device)
