"""Which layer asked for the memory: by the operation's name, or by the objects at work where the error was raised."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from kerasmemwatch.attribution.owners.name_scopes import frames_by_name
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.records.owners import LOSS, METRICS, OPTIMIZER, Frame

__all__ = ["Asker", "by_op_name", "by_traceback"]

# Base classes of Keras' objects that are no layers, by name: nothing here loads a framework.
_OTHERS = {
    "Optimizer": Frame(OPTIMIZER, "", "update"),
    "Loss": Frame(LOSS, "", "forward"),
    "Metric": Frame(METRICS, "", "forward"),
}
# The functions of a tape that compute gradients.
_BACKWARD = frozenset({"imperative_grad", "_gradient_function"})


class Asker(NamedTuple):
    """Who asked for memory, and how that is known.

    Attributes:
        frame: The layer or other owner, and the phase.
        known_from: How, in words.
    """

    frame: Frame
    known_from: str


def by_op_name(op: str, owners: OpOwners, layers: Mapping[str, str], optimizers: Iterable[str] = ()) -> Asker | None:
    """Find the layer of an operation in a graph.

    Args:
        op: Name of the operation in the error.
        owners: Owner of each operation that hooks saw.
        layers: By layer path, the layer's class.
        optimizers: Names of optimizers.

    Returns:
        The layer; ``None`` if the name tells nothing.
    """
    noted = owners.find(op)
    if noted is not None and noted.owner:
        return Asker(noted, "the hooks' record of the operation")
    guessed = frames_by_name([op], layers, optimizers).get(op)
    return None if guessed is None else Asker(guessed, "the operation's name")


def by_traceback(error: BaseException, paths: Mapping[int, tuple[str, str]]) -> Asker | None:
    """Find the layer at work where an eager error was raised.

    Keras replaces the error by one with the call's arguments, whose context is still the first.

    Args:
        error: The error.
        paths: By id of each layer, its path and class.

    Returns:
        The innermost object at work; ``None`` if there is none in the tracebacks.
    """
    found: Asker | None = None
    for each in _chain(error):
        backward = False
        for frame, _ in traceback.walk_tb(each.__traceback__):
            backward |= frame.f_code.co_name in _BACKWARD
            owner = _owner(frame.f_locals.get("self"), paths)
            if owner is not None:
                phase = "backward" if backward and owner.phase == "forward" else owner.phase
                found = Asker(owner._replace(phase=phase), "the traceback")
        if found is not None:
            return found
    return found


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it replaced, the first one raised first."""
    found = [error]
    while (before := found[-1].__context__) is not None and before not in found and len(found) < 8:
        found.append(before)
    return reversed(found)


def _owner(at_work: Any, paths: Mapping[int, tuple[str, str]]) -> Frame | None:
    known = paths.get(id(at_work))
    if known is not None:
        return Frame(*known, "forward")
    bases = {base.__name__ for base in type(at_work).__mro__}
    return next((frame for name, frame in _OTHERS.items() if name in bases), None)
