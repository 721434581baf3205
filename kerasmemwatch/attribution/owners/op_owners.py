"""Whose an operation is, by its name in the allocator's events. Pure.

Functions are inlined before they run, so an event's name is an operation's name behind the names of calls and loops
(``StatefulPartitionedCall/model/lstm/while/body/_12/model/lstm/while/lstm_cell/MatMul``). Optimizers of graphs rename
some; those keep the scope.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from kerasmemwatch.attribution.owners.name_scopes import GRADIENT_SCOPES, laid_out_for, made_as
from kerasmemwatch.records.owners import Frame

__all__ = ["OpOwners", "suffixes"]

_GRADIENT_OF = re.compile(r"(?:.*/)?gradients(?:_\d+)?/(.+?)_grad/")
# TensorFlow's scope for what a variable is set to first.
_INITIAL_VALUE = re.compile(r"(^|/)Initializer/")
# The call of the whole step, which is nobody's.
_OUTERMOST = re.compile(r"^StatefulPartitionedCall(/|$)")


def suffixes(name: str) -> Iterator[str]:
    """A name, then what is left when its first parts are taken away one by one.

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
    """Looks up who made an operation.

    Args:
        ops: By name of the operation, who made it; several where several functions have one of that name.

    Attributes:
        ops: The same.

    Example:
        >>> conv = Frame("c1", "Conv2D", "forward")
        >>> owners = OpOwners({"model/c1/convolution": [conv]})
        >>> owners.find("StatefulPartitionedCall/model/c1/convolution") == conv
        True
        >>> owners.find("StatefulPartitionedCall/model/c1/convolution-0-TransposeNHWCToNCHW-LayoutOptimizer").owner
        'c1'
    """

    def __init__(self, ops: Mapping[str, Sequence[Frame]]) -> None:
        self.ops = ops
        self._scopes = _scopes(ops)
        self._found: dict[tuple[str, str], Frame | None] = {}

    def find(self, name: str, within: str = "") -> Frame | None:
        """Who made an operation; by its scope if it was renamed; ``None`` if nobody is known to have.

        Args:
            name: Of the operation, as in an event.
            within: The layer that was at work when it ran, if that is known.
        """
        key = name, within
        if key not in self._found:
            self._found[key] = self._look_up(name, within)
        return self._found[key]

    def exact(self, name: str) -> str | None:
        """The name that an operation was made under, if it is still to be seen in its own."""
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
            # The variable's maker made it. The newest is a copy, in a function that sets it, whoever is at work then.
            return candidates[-1]
        # What is before the name it was made under are calls and loops, which somebody made too.
        call = _OUTERMOST.sub("", name[: len(name) - len(made)].rstrip("/"))
        caller = self.find(call, within) if call else None
        around = caller.owner if caller is not None and caller.class_name else within
        inside = [frame for frame in candidates if _is_inside(frame.owner, around)]
        if inside or not around:
            return (inside or candidates)[0]
        # A function that several layers call has the one's names who called it first.
        if "/" in made and len(candidates) == 1:
            return candidates[0]
        if caller is None or not caller.class_name:
            return by_scope
        return caller._replace(phase="backward") if candidates[0].phase == "backward" else caller

    def _makers(self, made: str) -> Sequence[Frame]:
        gradient = _GRADIENT_OF.match(made)
        if gradient is None:
            return self.ops[made]
        # The gradient of a function is made of its operations' gradients, all at once and by whoever calls it.
        frames = [*self.ops.get(gradient[1], ()), *self.ops[made]]
        return [frame._replace(phase="backward") for frame in frames]

    def _of_scope(self, name: str) -> Frame | None:
        """The longest scope anywhere in a name; of two the later, which is the inner function's."""
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
    """Whether an owner is another or a layer within it."""
    return f"{owner}/".startswith(f"{around}/")


def _scopes(ops: Mapping[str, Sequence[Frame]]) -> dict[str, Frame]:
    """The owner of each scope: who made what is in it, or of several the one that the others are parts of."""
    # Each once: a scope has many operations.
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
