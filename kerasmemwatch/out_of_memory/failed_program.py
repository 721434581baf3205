"""The XLA program that asked for the memory, and what its block would have held: XLA's plan, which is exact.

A program's plan is known only to XLA, which registers it as it compiles. A profiler session of no length lists the
registered programs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kerasmemwatch.attribution.events.profiler_capture import Capture
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer
from kerasmemwatch.attribution.xla.buffer_owners import XlaCategories
from kerasmemwatch.attribution.xla.program_memory import XlaAllocation, XlaModule, live_bytes
from kerasmemwatch.attribution.xla.program_runs import Programs
from kerasmemwatch.compat.tensorflow import XPLANE
from kerasmemwatch.out_of_memory.error_text import could_be
from kerasmemwatch.records.death import Request
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import Owner

__all__ = ["FailedProgram", "find_program"]


@dataclass(frozen=True)
class FailedProgram:
    """A program whose block did not fit.

    Attributes:
        module: The program.
        block: The allocation that failed.
        owners: Owner of each operation.
        gradients: Gradients of variables, by size.
    """

    module: XlaModule
    block: XlaAllocation
    owners: OpOwners
    gradients: Sequence[GradientBuffer] = ()

    def by_owner(self) -> tuple[LayerMemory, ...]:
        """What the block holds when it is fullest, by owner, the largest first."""
        module = self.module
        # The fullest moment of the block; its holes belong to nobody.
        moment = int(np.argmax(live_bytes(module, self.block.index)))
        sizes: Counter[tuple[Owner, str]] = Counter()
        found = XlaCategories(self.owners, self.gradients, {}).of_buffers(module)
        for buffer, (frame, category) in zip(module.buffers, found, strict=True):
            alive = buffer.first <= moment <= buffer.last and buffer.alias_of is None
            if alive and buffer.allocation_index == self.block.index:
                sizes[Owner(frame.owner, frame.class_name), category] += buffer.bytes
        rows: dict[Owner, LayerMemory] = {}
        for (owner, category), size in sizes.items():
            row = rows.get(owner) or LayerMemory(owner.path, owner.class_name, total_bytes=0)
            added: dict[str, Any] = {f"{category}_bytes": size, "total_bytes": (row.total_bytes or 0) + size}
            rows[owner] = replace(row, **added)
        return tuple(sorted(rows.values(), key=lambda row: -(row.total_bytes or 0)))

    @property
    def shapes(self) -> set[tuple[int, ...]]:
        """Shapes of its buffers."""
        return {buffer.shape for buffer in self.module.buffers}


def find_program(request: Request, owners: OpOwners, gradients: Sequence[GradientBuffer] = ()) -> FailedProgram | None:
    """Find the newest program that asks for as much as failed; ``None`` if there is none.

    Args:
        request: The failed request, whose size may be rounded.
        owners: Owner of each operation.
        gradients: Gradients of variables, by size.

    Raises:
        ProfilerBusyError: If somebody else's profiler session is active.
        ProfilerUnsafeError: If a session could end the process.
    """
    capture = Capture()
    capture.start()
    space = capture.stop()
    if not space:
        return None
    programs = Programs()
    programs.read(XPLANE.get().FromString(space))
    for program_id in sorted(programs.requests, reverse=True):
        block = _asked_for(programs.requests[program_id], request)
        if block is not None:
            module = programs.opened([program_id]).get(program_id)
            return None if module is None else FailedProgram(module, block, owners, gradients)
    return None


def _asked_for(requests: Sequence[XlaAllocation], request: Request) -> XlaAllocation | None:
    return next((each for each in requests if _is_of_size(each.bytes, request)), None)


def _is_of_size(size: int, request: Request) -> bool:
    return size == request.num_bytes if request.num_bytes is not None else could_be(size, request.rounded)
