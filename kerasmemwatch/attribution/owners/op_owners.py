"""Owner of an operation, by its name in the allocator's events. Pure.

Functions are inlined before they run, so an event's name is an operation's name after the names of calls and loops
(``StatefulPartitionedCall/model/lstm/while/body/_12/model/lstm/while/lstm_cell/MatMul``). Graph optimizers rename
some operations, but keep the scope.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from kerasmemwatch.attribution.owners.name_scopes import GRADIENT_SCOPES, laid_out_for, made_as
from kerasmemwatch.records.owners import Frame

__all__ = ["OpOwners", "suffixes"]

_GRADIENT_OF = re.compile(r"(?:.*/)?gradients(?:_\d+)?/(.+?)_grad/")
# TensorFlow's scope for a variable's initial value.
_INITIAL_VALUE = re.compile(r"(^|/)Initializer/")
# The call of the whole step has no owner.
_OUTERMOST = re.compile(r"^StatefulPartitionedCall(/|$)")


def suffixes(name: str) -> Iterator[str]:
    """Yield a name, then the rest of it as its leading parts are removed one by one.

    Example:
        >>> list(suffixes("call/model/Relu"))
        ['call/model/Relu', 'model/Relu', 'Relu']
    """
    yield name
    start = name.find("/")
    while start >= 0:
        yield name[start + 1 :]
        start = name.find("/", start + 1)


class OpOwners:
    """Looks up the owner of an operation.

    Args:
        ops: By name of the operation, its owner; several if several functions have an operation of that name.

    Attributes:
        ops: The constructor's argument.
    """

    def __init__(self, ops: Mapping[str, Sequence[Frame]]) -> None:
        self.ops = ops
        self._scopes = _scopes(ops)
        self._found: dict[tuple[str, str], Frame | None] = {}

    def find(self, name: str, within: str = "") -> Frame | None:
        """Return the owner of an operation, by its scope if it was renamed; ``None`` if unknown.

        Args:
            within: The layer that was running, if known.
        """
        key = name, within
        if key not in self._found:
            self._found[key] = self._look_up(name, within)
        return self._found[key]

    def exact(self, name: str) -> str | None:
        """Return the original name of an operation, if the event's name still contains it."""
        return next((suffix for suffix in suffixes(made_as(laid_out_for(name))) if suffix in self.ops), None)

    def _look_up(self, name: str, within: str) -> Frame | None:
        name = made_as(laid_out_for(name))
        made = self.exact(name)
        by_scope = self._of_scope(name)
        if made is None:
            return by_scope
        candidates = [frame for frame in self._makers(made) if frame.owner]
        if not candidates:
            return by_scope or self.ops[made][0]
        if _INITIAL_VALUE.search(made):
            # The variable's owner made it. The newest is a copy in a function that sets it, whoever calls that.
            return candidates[-1]
        # The parts before the original name are calls and loops, which have owners too.
        call = _OUTERMOST.sub("", name[: len(name) - len(made)].rstrip("/"))
        caller = self.find(call, within) if call else None
        around = caller.owner if caller is not None and caller.class_name else within
        inside = [frame for frame in candidates if _is_inside(frame.owner, around)]
        if inside or not around:
            return (inside or candidates)[0]
        # The operations of a function that several layers call have the names of the first caller.
        if "/" in made and len(candidates) == 1:
            return candidates[0]
        if caller is None or not caller.class_name:
            return by_scope
        return caller._replace(phase="backward") if candidates[0].phase == "backward" else caller

    def _makers(self, made: str) -> Sequence[Frame]:
        gradient = _GRADIENT_OF.match(made)
        if gradient is None:
            return self.ops[made]
        # The gradient of a function consists of its operations' gradients, all made at once by its caller.
        frames = [*self.ops.get(gradient[1], ()), *self.ops[made]]
        return [frame._replace(phase="backward") for frame in frames]

    def _of_scope(self, name: str) -> Frame | None:
        """Find the longest scope anywhere in a name; of two equal ones the later, which is the inner function's."""
        parts = name.split("/")
        best: tuple[int, int, Frame] | None = None
        for start in range(len(parts)):
            for stop in range(len(parts), start, -1):
                frame = self._scopes.get("/".join(parts[start:stop]))
                if frame is not None:
                    if best is None or (stop - start, start) >= best[:2]:
                        best = (stop - start, start, frame)
                    break
        if best is None:
            return None
        backward = any(part in GRADIENT_SCOPES for part in parts) and best[2].phase == "forward"
        return best[2]._replace(phase="backward") if backward else best[2]


def _is_inside(owner: str, around: str) -> bool:
    """Whether an owner is the other one or a layer within it."""
    return f"{owner}/".startswith(f"{around}/")


def _scopes(ops: Mapping[str, Sequence[Frame]]) -> dict[str, Frame]:
    """Return the owner of each scope: of its only maker, or of the maker that contains all others."""
    # Removes duplicates: a scope has many operations.
    made = dict.fromkeys(
        (name[: name.rfind("/") + 1], frame)
        for name, made_by in ops.items()
        for frame in made_by
        if frame.owner and frame.phase in ("forward", "update")
    )
    makers: dict[str, dict[str, Frame]] = {}
    for within, frame in made:
        for scope in _above(within):
            makers.setdefault(scope, {}).setdefault(frame.owner, frame)
    found = {}
    for scope, frames in makers.items():
        first = min(frames, key=len)
        if all(_is_inside(owner, first) for owner in frames):
            found[scope] = frames[first]
    return found


def _above(name: str) -> Iterable[str]:
    end = name.rfind("/")
    while end > 0:
        yield name[:end]
        end = name.rfind("/", 0, end)
