"""Owner of an operation by its name alone, for functions traced before owners were recorded. Pure.

Keras opens a name scope for each layer that it calls, and appends a number to a name that is taken. So layers of the
same name in one place cannot be told apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from kerasmemwatch.records.owners import LOSS, OPTIMIZER, Frame

__all__ = ["GRADIENT_SCOPES", "frames_by_name", "laid_out_for", "made_as", "without_calls"]

# TensorFlow's scopes of gradients.
GRADIENT_SCOPES = ("gradient_tape", "gradients")
_LOSS_SCOPE = "compile_loss"
_CALL = "StatefulPartitionedCall/"
_NUMBER = re.compile(r"_\d+$")
# TensorFlow's graph optimizer moves and fuses operations, and marks that in their names.
_LAID_OUT = re.compile(r"(?:-\d+)+-[A-Za-z0-9]+-LayoutOptimizer$")
_RENAMED = re.compile(r"ArithmeticOptimizer/(?:ReorderCastLikeAndValuePreserving_[a-z0-9]+|[A-Za-z]+)_")


def made_as(name: str) -> str:
    """Return an operation's original name, as it was before a graph optimizer moved it.

    Example:
        >>> made_as("head/Tensordot/ArithmeticOptimizer/FoldTransposeIntoMatMul_MatMul")
        'head/Tensordot/MatMul'
    """
    return _RENAMED.sub("", name)


def without_calls(name: str) -> str:
    """Return the original name, without the names of the calls that the operation runs in.

    Example:
        >>> without_calls("StatefulPartitionedCall/gradient_tape/head/MatMul")
        'gradient_tape/head/MatMul'
    """
    return made_as(name.rpartition(_CALL)[2])


def laid_out_for(name: str) -> str:
    """Return the operation whose operand or result was transposed for a GPU's convolutions; else the same name.

    Example:
        >>> laid_out_for("call/AddN_2-2-TransposeNHWCToNCHW-LayoutOptimizer"), laid_out_for("call/AddN_2")
        ('call/AddN_2', 'call/AddN_2')
    """
    return _LAID_OUT.sub("", name)


def frames_by_name(names: Iterable[str], layers: Mapping[str, str], optimizers: Iterable[str] = ()) -> dict[str, Frame]:
    """Find the layers whose scopes contain the operations.

    Args:
        layers: By layer path, the layer's class.

    Returns:
        By name of the operation, its probable owner; without operations of unknown owner.
    """
    updating, inner = set(optimizers), _inner(layers)
    found = {}
    for name in names:
        scopes = name.split("/")[:-1]
        backward = any(scope in GRADIENT_SCOPES for scope in scopes)
        path = _deepest(scopes, inner)
        if path in layers:
            found[name] = Frame(path, layers[path], "backward" if backward else "forward")
        elif any(_plain(scope, _LOSS_SCOPE) for scope in scopes):
            found[name] = Frame(LOSS, "", "backward" if backward else "forward")
        elif any(_plain(scope, known) for scope in scopes for known in updating):
            found[name] = Frame(OPTIMIZER, "", "update")
    return found


def _deepest(scopes: Iterable[str], inner: Mapping[str, set[str]]) -> str:
    """Return the path of the innermost layer, skipping scopes between layers (loops, calls of functions)."""
    path = ""
    for scope in scopes:
        for candidate in (scope, _NUMBER.sub("", scope)):
            if candidate in inner.get(path, ()):
                path = f"{path}/{candidate}" if path else candidate
                break
            # Paths of layers omit the model's own name.
            if path not in inner and candidate in inner[""]:
                path = candidate
                break
    return path


def _inner(paths: Iterable[str]) -> dict[str, set[str]]:
    """By path, the names one level below it."""
    found: dict[str, set[str]] = {"": set()}
    for path in paths:
        outer = ""
        for name in path.split("/"):
            found.setdefault(outer, set()).add(name)
            outer = f"{outer}/{name}" if outer else name
    return found


def _plain(scope: str, name: str) -> bool:
    return name in (scope, _NUMBER.sub("", scope))
