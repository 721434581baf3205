"""What a function of TensorFlow's leaves when it is made and first called: constants, which live as long as it does.

They are a few bytes each, but a chunk of the allocator's takes 256: beside a small model they are most of what is in
use. Nothing else tells them, so the steps that make small functions are captured.
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

# Optimizing a large function makes so many events that reading them takes long; what it keeps is worth that beside a
# small model only.
_MOST_OPERATIONS, _MOST_BESIDE_LITTLE = 2000, 10_000
_LITTLE_BYTES = 8_000_000
# A loop of few operations and many turns makes as many events: so long a capture is not read.
_MOST_BYTES = 10_000_000
# Whoever makes a function at every step, of batches of ever new shapes say, has another trouble.
_MOST_CAPTURES = 16
# A chunk: beside it, what a small constant takes is no layer's matter.
_SMALL_BYTES = 256


class Kept(NamedTuple):
    """A buffer that a function's first call left.

    Attributes:
        address: Where it lies.
        bytes: What was asked for.
        op: The operation that asked for it, ``""`` if none did.
        device: Where ``address`` is.
    """

    address: int
    bytes: int
    op: str
    device: str = "CPU:0"


class FirstCalls:
    """Captures the steps that make functions, the first few of them, and tells what these left.

    Args:
        stack: Who is told of each operation that is made.
        faults: Where faults are reported.

    Attributes:
        in_step: Whether what is captured next is but a part of a step.
    """

    def __init__(self, stack: OwnerStack, faults: Faults) -> None:
        self.in_step = False
        self._stack, self._faults = stack, faults
        self._captured: deque[tuple[bytes, set[int], bool]] = deque()
        self._num_captured = 0
        self._kept: dict[int, Kept] = {}

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Capture a step that makes its functions, unless they turn out to be large."""
        stack, in_step, self.in_step = self._stack, self.in_step, False
        most = _MOST_BESIDE_LITTLE if _in_use_bytes() < _LITTLE_BYTES else _MOST_OPERATIONS
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
                # A full disk is an OutOfRangeError to TensorFlow, at which Keras would end the epoch.
                with self._faults.guard("trace", "What functions keep is unattributed."):
                    space = capture.stop()
                    if space and len(space) <= _MOST_BYTES:
                        # Variables and tensors move on, and what has been left has no name then.
                        alive = {buffer.address for buffer in live_buffers(in_step=in_step)}
                        self._captured.append((space, alive, in_step))
        finally:
            stack.limit_made(sys.maxsize, capture.discard)
            capture.discard()

    def keep(self, space: bytes, alive: set[int]) -> None:
        """Tell from a step that was captured as a whole what its functions left.

        Args:
            space: A serialized ``XSpace``.
            alive: Where what Python knows of lies.
        """
        if len(space) <= _MOST_BYTES:
            self._captured.append((space, alive, False))

    def kept(self) -> list[Kept]:
        """What outlived the calls that were captured and is nothing that Python or the input pipeline holds."""
        while self._captured:
            self._add(*self._captured.popleft())
        return list(self._kept.values())

    def _started(self) -> Capture | None:
        if self._num_captured >= _MOST_CAPTURES:
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
                continue  # within a step nobody can tell where variables and tensors lie there
            # Variables' handles are known from the variables.
            handles = np.array([op.endswith("VarHandleOp") for op in events.ops], np.bool_)[events.op]
            outlived = (rows.birth >= 0) & (rows.death >= len(events)) & ~(events.piped | handles)[rows.event]
            for event in rows.event[np.flatnonzero(outlived)].tolist():
                address = int(events.address[event])
                if address in alive:
                    continue
                op, size = events.ops[events.op[event]], int(events.requested_bytes[event])
                self._kept[address] = Kept(address, size, op, events.device)


def _in_use_bytes() -> float:
    """What is in use in the host's memory, where constants are."""
    tensorflow = sys.modules["tensorflow"]
    try:
        return float(tensorflow.config.experimental.get_memory_info("CPU:0")["current"])
    except (ValueError, tensorflow.errors.OpError):
        return math.inf


def constants(
    kept: Iterable[Kept], known: Iterable[KnownBuffer], events: AllocationEvents, owners: OpOwners
) -> Iterator[KnownBuffer]:
    """What functions have kept since their first calls: what is nothing else, and was not made anew in this step.

    A large one belongs to whoever made its operation; there are hundreds of small ones.
    """
    others = {buffer.address for buffer in known}
    anew = {events.ops[code] for code in np.unique(events.op[events.births]).tolist()} - {""}
    for each in kept:
        if each.device == events.device and each.address not in others and each.op not in anew:
            found = owners.find(each.op) if each.op and each.bytes > _SMALL_BYTES else None
            owner, class_name = (found.owner, found.class_name) if found and found.owner else (FUNCTIONS, "")
            yield KnownBuffer(owner, class_name, "other", each.bytes, each.address, constant=True, device=each.device)
