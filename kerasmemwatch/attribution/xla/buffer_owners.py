"""Owner and category of each buffer of a compiled program. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer
from kerasmemwatch.attribution.xla.program_memory import XlaBuffer, XlaModule
from kerasmemwatch.records.owners import LOSS, METRICS, Frame

__all__ = ["XlaCategories"]

_UNKNOWN = Frame("unattributed", "", "forward")
_SCALAR_BYTES = 8
_FAR = sys.maxsize


class XlaCategories:
    """Finds owner, phase and category of buffers."""

    def __init__(
        self, owners: OpOwners, gradients: Iterable[GradientBuffer], assigned: Mapping[str, KnownBuffer]
    ) -> None:
        self._owners, self._assigned = owners, assigned
        self._sizes: dict[tuple[str, int], int] = {}
        self._by_op: dict[str, dict[int, GradientBuffer]] = {}
        self._by_bytes: dict[int, dict[int, GradientBuffer]] = {}
        for gradient in gradients:
            for op in gradient.ops:
                self._by_op.setdefault(op, {})[gradient.key] = gradient
            if gradient.bytes is not None:
                self._by_bytes.setdefault(gradient.bytes, {})[gradient.key] = gradient

    def of_buffers(self, module: XlaModule) -> list[tuple[Frame, str]]:
        """Return the owner and category of each buffer of a program."""
        found = []
        for buffer in module.buffers:
            frame = self._frame(buffer, module)
            found.append((frame, self._category(buffer, module, frame)))
        for number, gradient in self._gradients(module, [frame for frame, _ in found]).items():
            found[number] = Frame(gradient.owner, gradient.class_name, "backward"), "gradients"
            variable = gradient.owner, gradient.key
            self._sizes[variable] = max(self._sizes.get(variable, 0), module.buffers[number].bytes)
        return found

    @property
    def gradient_bytes(self) -> dict[str, int]:
        """By layer path, the gradient bytes in the programs so far, each variable counted once, whatever its place.

        Some gradients are in the place of a future variable of the optimizer, which is no allocation of the step.
        """
        found: dict[str, int] = {}
        for (path, _), size in self._sizes.items():
            found[path] = found.get(path, 0) + size
        return found

    def _frame(self, buffer: XlaBuffer, module: XlaModule) -> Frame:
        frame = (self._owners.find(buffer.op_name) if buffer.op_name else None) or _UNKNOWN
        if not frame.owner:
            frame = frame._replace(owner=_UNKNOWN.owner)
        late = module.backward_from is not None and buffer.first >= module.backward_from
        if (buffer.op_from == "user" or frame is _UNKNOWN) and frame.phase != "input":
            # A user's name does not show the phase; the schedule does.
            frame = frame._replace(phase="backward" if late else "forward")
        elif frame.phase == "backward" and not late:
            # Nor does the name of an activation's derivative, which needs no incoming gradient.
            frame = frame._replace(phase="forward")
        return frame

    def _gradients(self, module: XlaModule, frames: Sequence[Frame]) -> dict[int, GradientBuffer]:
        """By buffer number, the gradient that it holds: one buffer per variable at a time, those named as such first.

        If a layer is called several times, the update may add up the gradients of the calls: the first is the gradient.
        """
        wanted = []
        for number, buffer in enumerate(module.buffers):
            if buffer.alias_of is None and frames[number].phase == "backward":
                candidates = self._candidates(buffer, frames[number].owner)
                ranks = [rank for rank, _ in candidates]
                if candidates:
                    wanted.append((min(ranks), buffer.first - buffer.last, number, candidates))
        found: dict[int, GradientBuffer] = {}
        taken: dict[int, list[XlaBuffer]] = {}
        for _, _, number, candidates in sorted(wanted, key=lambda each: each[:3]):
            buffer = module.buffers[number]
            for _, gradient in candidates:
                others = taken.setdefault(gradient.key, [])
                if all(other.last < buffer.first or buffer.last < other.first for other in others):
                    others.append(buffer)
                    found[number] = gradient
                    break
        return found

    def _candidates(self, buffer: XlaBuffer, owner: str) -> list[tuple[int, GradientBuffer]]:
        """Return the gradients that a buffer may hold, with their distances, the likeliest first.

        A gradient is as large as its variable, and the update reads it. An operand in another layout also has the name
        of the operation that computes the gradient.
        """
        users = {self._owners.exact(name) or name for name in buffer.used_by}
        if buffer.kind != "output" and "update" not in self._phases_of_users(buffer):
            return []
        name = self._owners.exact(buffer.op_name) or ""
        named = [
            (gradient.ops.index(name), gradient)
            for gradient in self._by_op.get(name, {}).values()
            # The size of a sparse gradient is unknown, so an operand's name is not enough.
            if gradient.bytes == buffer.bytes or (gradient.bytes is None and buffer.op_from in ("own", "fusion"))
        ]
        # The update assigns the variable, or the optimizer's variable for it, after it has read the gradient.
        layers = {self._assigned[name].owner for name in users & self._assigned.keys()} or {owner}
        of_layer = [
            (_FAR, gradient)
            for gradient in self._by_bytes.get(buffer.bytes, {}).values()
            if any(gradient.owner == layer or gradient.owner.startswith(f"{layer}/") for layer in layers)
        ]
        return sorted(named, key=lambda found: found[0]) + of_layer

    def _category(self, buffer: XlaBuffer, module: XlaModule, frame: Frame) -> str:
        """Return the category of a buffer that holds no variable's gradient."""
        if frame.named == _UNKNOWN.owner:
            return "unattributed"
        if frame.phase == "input":
            return "inputs"
        if frame.named == METRICS or (frame.named == LOSS and buffer.bytes <= _SCALAR_BYTES):
            return "other"
        if frame.phase == "forward" and buffer.copy_of is None:
            needed = module.backward_from is not None and buffer.last >= module.backward_from > buffer.first
            if needed and (not buffer.used_by or "backward" in self._phases_of_users(buffer)):
                return "activations"
        return "temporaries"

    def _phases_of_users(self, buffer: XlaBuffer) -> set[str]:
        users = (self._owners.find(name) for name in buffer.used_by)
        return {user.phase for user in users if user is not None}
