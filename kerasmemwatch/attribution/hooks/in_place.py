"""Operations of a graph whose buffer another operation's result may share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasmemwatch.records.owners import BASE, Frame

__all__ = ["same_buffer"]

# Operations that return their input's buffer in another shape; a sum and a transpose do so only if there is nothing to
# sum over or to exchange, which is known when a step runs.
_OTHER_SHAPE = frozenset({"ExpandDims", "Reshape", "Squeeze", "Sum", "Transpose"})
# Those, and others that may overwrite their input's buffer if nothing else needs it.
_IN_PLACE = _OTHER_SHAPE | frozenset(
    {
        *("AddN", "AddV2", "Cast", "Div", "Identity", "Mul", "Neg"),
        *("RealDiv", "Select", "SelectV2", "Sub"),
        *("EluGrad", "LeakyReluGrad", "Relu6Grad", "ReluGrad", "RsqrtGrad", "SeluGrad"),
        *("SigmoidGrad", "SoftplusGrad", "SoftsignGrad", "SqrtGrad", "TanhGrad"),
    }
)
# Between two layers an activation function has a handful of operations in a row.
_MAX_IN_PLACE = 16


def same_buffer(operation: Any, ops: Mapping[str, Frame]) -> tuple[str, ...]:
    """Return the names of an operation, and of earlier ones whose buffer it may have taken over.

    Backward operations come first, the nearest at the front, then forward operations.
    """
    found, level = {operation.name: True}, [operation]
    for _ in range(_MAX_IN_PLACE):
        inputs = {
            tensor.op.name: tensor.op
            for each in level
            if each.type in _IN_PLACE
            for tensor in each.inputs
            if _may_become(tensor, each)
        }
        level = [each for name, each in inputs.items() if name not in found]
        found.update((each.name, ops.get(each.name, BASE).phase == "backward") for each in level)
    return tuple(sorted(found, key=lambda name: not found[name]))


def _may_become(tensor: Any, operation: Any) -> bool:
    """Whether an operation may overwrite a tensor that it reads; not if that is a shape, a condition or a factor."""
    output = operation.outputs[0]
    if tensor.dtype != output.dtype or tensor.shape.rank == 0:
        return False
    return operation.type in _OTHER_SHAPE or bool(tensor.shape.is_compatible_with(output.shape))
