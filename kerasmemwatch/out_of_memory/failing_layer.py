"""Which layer asked for the memory: by the operation's name, or by the objects at work where the error was raised."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple

from kerasmemwatch.attribution.live.tensor_places import host_address
from kerasmemwatch.attribution.owners.name_scopes import frames_by_name
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.records.owners import LOSS, METRICS, OPTIMIZER, Frame

__all__ = ["Asker", "by_op_name", "by_traceback", "rows_given"]

# Base classes of Keras' objects that are no layers, by name: nothing here loads a framework.
_OTHERS = {
    "Optimizer": Frame(OPTIMIZER, "", "update"),
    "Loss": Frame(LOSS, "", "forward"),
    "Metric": Frame(METRICS, "", "forward"),
}
# The functions of a tape that compute gradients.
_GRADIENT = "_gradient_function"
# Keras' methods that are given one batch, as their first argument.
_ON_BATCH = frozenset({"train_on_batch", "test_on_batch", "predict_on_batch"})
_BACKWARD = frozenset({"imperative_grad", _GRADIENT})


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


def by_traceback(
    error: BaseException, paths: Mapping[int, tuple[str, str]], addresses: Mapping[int, tuple[str, str]]
) -> Asker | None:
    """Find the layer at work where an eager error was raised.

    Keras replaces the error by one with the call's arguments, whose context is still the first.

    Args:
        error: The error.
        paths: By id of each layer, its path and class.
        addresses: By address of each variable, its layer's path and class: a gradient function, which no layer calls,
            has the variable as an input.

    Returns:
        The innermost object at work, without a name if only the pass is known; ``None`` if nothing is.
    """
    for each in _chain(error):
        found, backward = None, False
        for frame in _ended_frames(each):
            backward |= frame.f_code.co_name in _BACKWARD
            owner = _owner(frame, paths)
            if frame.f_code.co_name == _GRADIENT:
                owner = _of_inputs(frame.f_locals.get("inputs"), addresses)
            if owner is not None:
                phase = "backward" if backward and owner.phase == "forward" else owner.phase
                found = Asker(owner._replace(phase=phase), "the traceback")
        if backward and (found is None or found.frame.phase != "backward"):
            return Asker(Frame("", "", "backward"), "the traceback")
        if found is not None:
            return found
    return None


def rows_given(error: BaseException) -> int | None:
    """Rows of the batch that ``train_on_batch`` or the like was given; ``None`` if the error left none of them."""
    for each in _chain(error):
        for frame in _ended_frames(each):
            if frame.f_code.co_name in _ON_BATCH and "x" in frame.f_code.co_varnames:
                return _rows(frame.f_locals.get("x"))
    return None


def _rows(data: Any) -> int | None:
    """Rows of the first array in a structure."""
    while isinstance(data, (list, tuple, Mapping)) and data:
        data = next(iter(data.values() if isinstance(data, Mapping) else data))
    shape = getattr(data, "shape", None)
    return int(shape[0]) if shape is not None and len(shape) and shape[0] is not None else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it replaced, the first one raised first."""
    found = [error]
    while type(before := found[-1].__context__) is type(error) and before not in found:
        found.append(before)
    return reversed(found)


def _ended_frames(error: BaseException) -> Iterator[FrameType]:
    """The Python frames that the error has left, outermost first.

    Not those that still run: to read the variables of one keeps them alive until it ends.
    """
    running, frame = set(), sys._getframe(1)
    while frame is not None:
        running.add(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return (each for each, _ in traceback.walk_tb(error.__traceback__) if each not in running)


def _owner(frame: FrameType, paths: Mapping[int, tuple[str, str]]) -> Frame | None:
    at_work = frame.f_locals.get("self")
    known = paths.get(id(at_work))
    if known is not None:
        # A model's own methods run its steps; it is at work in its call.
        is_step = frame.f_code.co_name != "call" and hasattr(at_work, "train_step")
        return None if is_step else Frame(*known, "forward")
    bases = {base.__name__ for base in type(at_work).__mro__}
    return next((owner for name, owner in _OTHERS.items() if name in bases), None)


def _of_inputs(inputs: Any, addresses: Mapping[int, tuple[str, str]]) -> Frame | None:
    """The layer whose variable a gradient function has as an input; unnamed if it has none."""
    places = [host_address(each) for each in inputs or ()]
    known = next((addresses[place] for place in places if place in addresses), ("", ""))
    return Frame(*known, "backward")
