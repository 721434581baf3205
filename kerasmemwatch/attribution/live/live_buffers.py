"""Buffers that Python can name: variables and live tensors, with their addresses."""

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
from kerasmemwatch.records.owners import (
    DATASET_HANDLES,
    EAGER_TENSORS,
    INPUT_PIPELINE,
    OTHER_VARIABLES,
    VARIABLE_HANDLES,
)

__all__ = [
    "HANDLE_BYTES",
    "KnownBuffer",
    "Sighting",
    "as_input",
    "eager_buffer",
    "handle_keys",
    "live_buffers",
    "tensor_bytes",
    "tensor_kind",
    "variable_addresses",
    "variable_buffers",
]

# sizeof(ResourceHandle), one for each variable, in host memory (tensorflow/core/framework/resource_handle.h).
HANDLE_BYTES = 200
# sizeof(Variant), one for each dataset (tensorflow/core/framework/variant.h).
_VARIANT_BYTES = 64


@dataclass(frozen=True)
class KnownBuffer:
    """A buffer with a name."""

    owner: str  # a layer's path or a named owner
    class_name: str  # class of the layer
    category: str  # one of `CATEGORIES`
    bytes: int  # the requested size
    address: int = 0  # its address on its device; 0 if unknown
    key: int = 0  # `id` of the variable's resource handle; 0 for a tensor
    trainable: bool = False  # whether it is a variable that has a gradient
    constant: bool = False  # whether a function has kept it since the function's first call
    before: int = 0  # a variable's address before the step; 0 if unknown
    device: str = "CPU:0"  # the device of `address` and `before`, such as `"CPU:0"` or `"GPU:1"`
    reserved: int = 0  # bytes of its chunk; 0 if unknown

    @property
    def named(self) -> str:
        """The owner if it is no layer, else ``""``, as ``Frame.named``."""
        return "" if self.class_name else self.owner


class Sighting(NamedTuple):
    """Sighting of a variable within a step."""

    key: int  # `id` of the variable's resource handle
    address: int  # its address
    time_ns: int  # UNIX time of the sighting


def variable_addresses(account: Ledger, mode: str = "", *, in_step: bool = False) -> dict[int, int]:
    """By key, the known addresses of the variables of layers, metrics and optimizers.

    Args:
        in_step: Whether a step may be running, during which only addresses in host memory are known.
    """
    compiled = mode == "xla"
    with unwatched():
        parts = [part for memory, variable in account.variables() if memory.bytes for part in components(variable)]
        found = {_key(part): variable_place(part, in_step=in_step, compiled=compiled).address for part in parts}
        return {key: address for key, address in found.items() if key and address}


def variable_buffers(account: Ledger, before: Mapping[int, int] | None = None, mode: str = "") -> list[KnownBuffer]:
    """Return the variables of layers, metrics and optimizers; each replica is a separate buffer.

    Args:
        before: By key, each variable's address before the step.
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
    """Return a live tensor as an input, such as one that a step was called with."""
    return replace(buffer, owner=INPUT_PIPELINE, category="inputs") if buffer.owner == EAGER_TENSORS else buffer


def live_buffers(
    alive: defaultdict[str, list[Any]] | None = None, known: Container[int] = (), *, in_step: bool = False
) -> list[KnownBuffer]:
    """Return every live eager tensor and variable, once per buffer; datasets' buffers are the input pipeline's.

    Args:
        known: Keys of variables to leave out, which belong to watched models.
        in_step: Whether a step may be running, during which only addresses in host memory are known.
    """
    if "tensorflow" not in sys.modules:
        return []
    kept = live_objects(tensor_kind) if alive is None else alive
    found: dict[Place, KnownBuffer] = {}
    in_datasets: set[int] = set()
    for item in kept["dataset"]:
        in_datasets.update(map(id, _captured(item)))
    variants = 0
    for item in kept["tensor"]:
        variants += getattr(item.dtype, "name", "") == "variant"
        place = tensor_place(item, in_step=in_step)
        buffer = eager_buffer(item, place)
        if buffer is not None:
            before, is_input = found.get(place), id(item) in in_datasets
            if before is None or before.bytes < buffer.bytes or is_input:
                found[place] = as_input(buffer) if is_input else buffer
    pipelines = [_VARIANT_BYTES] * variants + [HANDLE_BYTES] * len(kept["iterator"])
    with unwatched():
        variables = list(_variables(kept["variable"], known, in_step=in_step))
    return [
        *found.values(),
        *variables,
        *[KnownBuffer(VARIABLE_HANDLES, "", "other", HANDLE_BYTES)] * len(handle_keys(kept["variable"])),
        *(KnownBuffer(DATASET_HANDLES, "", "other", size) for size in pipelines),
    ]


def tensor_kind(kind: type) -> str:
    """Return the kind of a class: ``"tensor"``, ``"variable"``, ``"dataset"``, ``"iterator"``, ``"graph"``, ``""``."""
    tensorflow: Any = sys.modules["tensorflow"]
    # Compares the bases themselves: issubclass of an abstract class asks each of its subclasses in turn.
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


def eager_buffer(tensor: Any, place: Place) -> KnownBuffer | None:
    """Return an eager tensor's buffer; ``None`` if its size or its place is unknown."""
    size = tensor_bytes(tensor)
    known = bool(size and place.address)
    return KnownBuffer(EAGER_TENSORS, "", "other", size, place.address, device=place.device) if known else None


def _variables(variables: Iterable[Any], known: Container[int], *, in_step: bool) -> Iterator[KnownBuffer]:
    for variable in variables:
        # Outside of a replica, the whole of a distributed variable has no handle, and raises a ValueError.
        key = 0 if getattr(variable, "values", None) else _key(variable)
        size = tensor_bytes(variable)
        if size and key and key not in known:
            place = variable_place(variable, in_step=in_step)
            yield KnownBuffer(OTHER_VARIABLES, "", "other", size, place.address, key, device=place.device)


def handle_keys(variables: Iterable[Any]) -> set[int]:
    """Return keys of variables."""
    return {_key(variable) for variable in variables if not getattr(variable, "values", None)} - {0}


def _captured(dataset: Any) -> Iterator[Any]:
    yield from DATASET_TENSORS.of(dataset) or ()
    function = getattr(DATASET_FUNCTION.of(dataset), "function", None)
    yield from getattr(function, "captured_inputs", None) or ()


def tensor_bytes(tensor: Any) -> int:
    """Return the bytes of a tensor's elements; 0 if unknown."""
    try:
        return int(tensor.shape.num_elements() or 0) * int(tensor.dtype.size or 0)
    except (AttributeError, TypeError, ValueError):
        return 0
