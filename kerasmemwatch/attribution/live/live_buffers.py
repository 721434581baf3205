"""Buffers that Python can name: variables, and the tensors that are alive, with where each lies in memory."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from kerasmemwatch.attribution.live.tensor_places import Place, tensor_place, unwatched, variable_place
from kerasmemwatch.attribution.variables.live_objects import live_objects
from kerasmemwatch.attribution.variables.variable_ledger import Ledger, VariableMemory
from kerasmemwatch.attribution.variables.variable_size import components
from kerasmemwatch.compat.tensorflow import DATASET_FUNCTION, DATASET_TENSORS, EAGER_TENSOR, FUNC_GRAPH, OWNED_ITERATOR
from kerasmemwatch.records.owners import INPUT_PIPELINE

__all__ = [
    "EARLIER_MODELS",
    "HANDLE_BYTES",
    "VARIABLE_HANDLES",
    "KnownBuffer",
    "Sighting",
    "as_input",
    "handle_keys",
    "live_buffers",
    "tensor_bytes",
    "tensor_kind",
    "variable_addresses",
    "variable_buffers",
]

VARIABLE_HANDLES, _DATASET_HANDLES = "variable handles", "dataset handles"
# sizeof(ResourceHandle), which each variable has one of in host memory (tensorflow/core/framework/resource_handle.h).
HANDLE_BYTES = 200
# sizeof(Variant), one for each dataset (tensorflow/core/framework/variant.h).
_VARIANT_BYTES = 64
# The owner of what models of earlier fits still hold.
EARLIER_MODELS = "earlier models"
# Owners of what nobody watches but Python still holds.
_EAGER_TENSORS, _OTHER_VARIABLES = "eager tensors", "other variables"


@dataclass(frozen=True)
class KnownBuffer:
    """A buffer with a name.

    Attributes:
        owner: A layer's path or a named owner.
        class_name: Class of the layer.
        category: One of ``timeline.CATEGORIES``.
        bytes: What was asked for.
        address: Where it lies on its device; 0 if unknown.
        before: Where a variable lay before the step; 0 if unknown.
        key: ``id`` of the variable's resource handle; 0 for a tensor.
        trainable: Whether it is a variable that has a gradient.
        constant: Whether a function keeps it since it was first called.
        device: Where ``address`` and ``before`` are: ``"CPU:0"`` or ``"GPU:1"``, say.
    """

    owner: str
    class_name: str
    category: str
    bytes: int
    address: int = 0
    key: int = 0
    trainable: bool = False
    constant: bool = False
    before: int = 0
    device: str = "CPU:0"


class Sighting(NamedTuple):
    """Where a variable was seen within a step.

    Attributes:
        key: ``id`` of the variable's resource handle.
        address: Where it lay.
        time_ns: UNIX time at which it did.
    """

    key: int
    address: int
    time_ns: int


def variable_addresses(account: Ledger, mode: str = "", *, in_step: bool = False) -> dict[int, int]:
    """By key, where the variables of layers, metrics and optimizers lie, as far as that is known.

    Args:
        account: The variables.
        mode: How the step runs, ``"graph"``, ``"eager"`` or ``"xla"``; ``""`` if unknown.
        in_step: Whether a step may be under way, within which only host memory is told of.
    """
    compiled = mode == "xla"
    with unwatched():
        parts = [part for memory, variable in account.variables() if memory.bytes for part in components(variable)]
        found = {_key(part): variable_place(part, in_step=in_step, compiled=compiled).address for part in parts}
        return {key: address for key, address in found.items() if key and address}


def variable_buffers(account: Ledger, before: Mapping[int, int] | None = None, mode: str = "") -> list[KnownBuffer]:
    """The variables of layers, metrics and optimizers; each replica is a buffer of its own.

    Args:
        account: The variables.
        before: By key, where each lay before the step.
        mode: How the step runs, ``"graph"``, ``"eager"`` or ``"xla"``; ``""`` if unknown.
    """
    before = before or {}
    with unwatched():
        return [
            _buffer(memory, component, before, compiled=mode == "xla")
            for memory, variable in account.variables()
            if memory.bytes is not None
            for component in components(variable)
        ]


def _buffer(memory: VariableMemory, component: Any, before: Mapping[int, int], *, compiled: bool) -> KnownBuffer:
    key, place = _key(component), variable_place(component, compiled=compiled)
    return KnownBuffer(
        owner=memory.owner,
        class_name=memory.class_name,
        category=memory.category,
        bytes=memory.bytes or 0,
        address=place.address,
        key=key,
        trainable=memory.role in ("trainable", "raw"),
        before=before.get(key, 0),
        device=place.device,
    )


def _key(variable: Any) -> int:
    handle = getattr(variable, "handle", None)
    return id(handle) if handle is not None else 0


def as_input(buffer: KnownBuffer) -> KnownBuffer:
    """A live tensor that a step was called with: it belongs to its batch."""
    return replace(buffer, owner=INPUT_PIPELINE, category="inputs") if buffer.owner == _EAGER_TENSORS else buffer


def live_buffers(
    alive: defaultdict[str, list[Any]] | None = None, known: Container[int] = (), *, in_step: bool = False
) -> list[KnownBuffer]:
    """Every eager tensor and variable that is alive, once for each buffer; what datasets hold is the input pipeline's.

    Args:
        alive: The objects of each ``tensor_kind`` that are alive; looked for if not given.
        known: Keys of variables to leave out: those of watched models.
        in_step: Whether a step may be under way, within which only host memory is told of.
    """
    if "tensorflow" not in sys.modules:
        return []
    kept = live_objects(tensor_kind) if alive is None else alive
    found: dict[Place, KnownBuffer] = {}
    piped: set[int] = set()
    for item in kept["dataset"]:
        piped.update(map(id, _captured(item)))
    variants = 0
    for item in kept["tensor"]:
        variants += getattr(item.dtype, "name", "") == "variant"
        size, place = tensor_bytes(item), tensor_place(item, in_step=in_step)
        if size and place.address:
            owner, category = (INPUT_PIPELINE, "inputs") if id(item) in piped else (_EAGER_TENSORS, "other")
            before = found.get(place)
            if before is None or before.bytes < size or owner == INPUT_PIPELINE:
                found[place] = KnownBuffer(owner, "", category, size, place.address, device=place.device)
    pipelines = [_VARIANT_BYTES] * variants + [HANDLE_BYTES] * len(kept["iterator"])
    with unwatched():
        variables = list(_variables(kept["variable"], known, in_step=in_step))
    return [
        *found.values(),
        *variables,
        *[KnownBuffer(VARIABLE_HANDLES, "", "other", HANDLE_BYTES)] * len(handle_keys(kept["variable"])),
        *(KnownBuffer(_DATASET_HANDLES, "", "other", size) for size in pipelines),
    ]


def tensor_kind(kind: type) -> str:
    """What a class's objects are: ``"tensor"``, ``"variable"``, ``"dataset"``, ``"iterator"``, ``"graph"``, ``""``."""
    tensorflow: Any = sys.modules["tensorflow"]
    # By the bases themselves: issubclass of an abstract class asks each of its subclasses in turn.
    bases = kind.__mro__
    if tensorflow.data.Dataset in bases:
        return "dataset"
    if tensorflow.Variable in bases:
        return "variable"
    if OWNED_ITERATOR.names(kind) and tensorflow.data.Iterator in bases:
        return "iterator"
    if FUNC_GRAPH.names(kind) and tensorflow.Graph in bases:
        return "graph"
    return "tensor" if EAGER_TENSOR.names(kind) and tensorflow.Tensor in bases else ""


def _variables(variables: Iterable[Any], known: Container[int], *, in_step: bool) -> Iterator[KnownBuffer]:
    for variable in variables:
        # The whole of a distributed variable has no handle outside of a replica, and says so with a ValueError.
        key = 0 if getattr(variable, "values", None) else _key(variable)
        size = tensor_bytes(variable)
        if size and key and key not in known:
            place = variable_place(variable, in_step=in_step)
            yield KnownBuffer(_OTHER_VARIABLES, "", "other", size, place.address, key, device=place.device)


def handle_keys(variables: Iterable[Any]) -> set[int]:
    """Keys of variables."""
    return {_key(variable) for variable in variables if not getattr(variable, "values", None)} - {0}


def _captured(dataset: Any) -> Iterator[Any]:
    yield from DATASET_TENSORS.of(dataset) or ()
    function = getattr(DATASET_FUNCTION.of(dataset), "function", None)
    yield from getattr(function, "captured_inputs", None) or ()


def tensor_bytes(tensor: Any) -> int:
    """What a tensor's elements take; 0 if that is unknown."""
    try:
        return int(tensor.shape.num_elements() or 0) * int(tensor.dtype.size or 0)
    except (AttributeError, TypeError, ValueError):
        return 0
