"""In whose buffer an operation of a graph may have put its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasmemwatch.records.owners import BASE, Frame

__all__ = ["same_buffer"]

# Operations that hand their input's buffer on in another shape; a sum and a transpose only where there is nothing to
# sum over or to exchange, which shows when a step runs.
_OTHER_SHAPE = frozenset({"ExpandDims", "Reshape", "Squeeze", "Sum", "Transpose"})
# Those and others that work in their input's buffer where nobody else needs it.
_IN_PLACE = _OTHER_SHAPE | frozenset(
    {
        *("AddN", "AddV2", "Cast", "Div", "Identity", "Mul", "Neg"),
        *("RealDiv", "Select", "SelectV2", "Sub"),
        *("EluGrad", "LeakyReluGrad", "Relu6Grad", "ReluGrad", "RsqrtGrad", "SeluGrad"),
        *("SigmoidGrad", "SoftplusGrad", "SoftsignGrad", "SqrtGrad", "TanhGrad"),
    }
)
# An activation between a layer and the next takes a handful, one behind the other.
_MAX_IN_PLACE = 16


def same_buffer(operation: Any, ops: Mapping[str, Frame]) -> tuple[str, ...]:
    """Names of an operation and of those before it whose buffer it may have taken over.

    Those of the backward pass come first, the nearest at the front; of the forward pass it may take what it read last.
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
    """Whether an operation may work in the buffer of what it reads: a shape, a condition or a factor is none for it."""
    output = operation.outputs[0]
    if tensor.dtype != output.dtype or tensor.shape.rank == 0:
        return False
    return operation.type in _OTHER_SHAPE or bool(tensor.shape.is_compatible_with(output.shape))
