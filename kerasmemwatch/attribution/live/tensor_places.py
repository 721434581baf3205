"""Places of tensors and variables: device, and address in its memory.

Only DLPack gives addresses in a GPU's memory, and it waits until the device has finished its work. Before and after a
step, nothing that it waits for depends on this thread. Within a step something may, such as one replica's kernel that
waits for another's: with ``in_step``, only addresses in host memory are returned.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from kerasmemwatch.compat.tensorflow import STOP_RECORDING

__all__ = [
    "Place",
    "captured_handle",
    "host_address",
    "is_scattered",
    "note_scatter",
    "resource_place",
    "tensor_place",
    "unwatched",
    "variable_place",
]

# TensorFlow aborts the process if DLPack is asked for a tensor of strings, variants or resources, and raises an error
# for float8 and quantized ones.
_BY_DLPACK = frozenset(
    {
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    }
)
# A separate prototype: other code may have declared that of ``ctypes.pythonapi`` differently.
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
# Operations that write some rows of a variable.
_SCATTERS = ("ResourceScatter", "ResourceSparseApply")
# By id, handles of variables that TensorFlow copies on every read.
_scattered: dict[int, weakref.ref[Any]] = {}


class Place(NamedTuple):
    """Place of a buffer."""

    device: str = "CPU:0"  # `"CPU:0"` for all host memory, `"GPU:1"`
    address: int = 0  # 0 if unknown


def tensor_place(tensor: Any, *, in_step: bool = False) -> Place:
    """Return the place of an eager tensor's buffer, as far as it is known without a copy."""
    try:
        # Not `.device`, where its operation ran: shapes and int32 numbers of a GPU's operations are in host memory.
        device = _device(tensor.backing_device)
        if device.startswith("GPU"):
            return Place(device, 0 if in_step else _shared_address(tensor))
        if "CPU" not in tensor.backing_device or not tensor.dtype.size:
            return Place()
        return Place(device, int(np.asarray(tensor).__array_interface__["data"][0]))  # not .numpy(), which copies
    except Exception:
        return Place()  # strings, resources, variants, symbolic tensors


def host_address(tensor: Any) -> int:
    """Return an eager tensor's address in host memory, even within a step; 0 if elsewhere or unknown."""
    return tensor_place(tensor, in_step=True).address


def variable_place(variable: Any, *, in_step: bool = False, compiled: bool = False) -> Place:
    """Return the place of a variable that is on one device; see ``resource_place``."""
    try:
        return resource_place(variable.handle, variable.dtype, in_step=in_step, compiled=compiled)
    except Exception:
        return Place()  # not a resource variable


def resource_place(handle: Any, dtype: Any, *, in_step: bool = False, compiled: bool = False) -> Place:
    """Return the place of the variable behind a handle.

    Args:
        compiled: Whether XLA compiled the operations that scatter into it: then it is not copied on read.
    """
    device = _device(getattr(handle, "device", ""))
    if (in_step and device.startswith("GPU")) or (not compiled and is_scattered(handle)):
        return Place(device)
    try:
        # Not read_value(), which runs two operations: that takes a while for thousands of variables.
        read = sys.modules["tensorflow"].raw_ops.ReadVariableOp
        once, again = read(resource=handle, dtype=dtype), read(resource=handle, dtype=dtype)
    except Exception:
        return Place(device)  # not initialized
    # Both are held, so that a variable that is copied on read has two buffers.
    place = tensor_place(once, in_step=in_step)
    if place == tensor_place(again, in_step=in_step):
        return place
    _note_scattered(handle)
    return Place(device)


def note_scatter(operation: Any) -> None:
    """Record the variables that an operation of a graph scatters into, if any: TensorFlow copies them on read."""
    if operation.type.startswith(_SCATTERS):
        for handle in (each for each in operation.inputs if each.dtype.name == "resource"):
            _note_scattered(captured_handle(handle))


def is_scattered(handle: Any) -> bool:
    """Whether a variable is known to be scattered into."""
    return id(handle) in _scattered


def captured_handle(handle: Any) -> Any:
    """Return the resource handle that a function's argument stands for, through nested functions."""
    captures = getattr(getattr(handle, "graph", None), "captures", None) or ()
    outer = next((outer for outer, inner in captures if inner is handle), None)
    return handle if outer is None else captured_handle(outer)


def unwatched() -> AbstractContextManager[None]:
    """Stop recording on all tapes: a tape of the user's would record our reads."""
    stop_recording = STOP_RECORDING.if_loaded()
    unwatched: AbstractContextManager[None] = stop_recording() if stop_recording else nullcontext()
    return unwatched


def _note_scattered(handle: Any) -> None:
    key = id(handle)
    _scattered[key] = weakref.ref(handle, lambda _: _scattered.pop(key, None))


def _device(name: str) -> str:
    kind, _, index = name.rpartition("device:")[2].partition(":")
    return f"GPU:{index}" if kind == "GPU" else Place().device


def _shared_address(tensor: Any) -> int:
    """Return a tensor's address by DLPack; 0 if unknown. Collecting the capsule releases the buffer."""
    tensorflow = sys.modules["tensorflow"]
    # A separate executor may need Python, which this thread blocks while it waits.
    if tensor.dtype.name not in _BY_DLPACK or not tensorflow.config.experimental.get_synchronous_execution():
        return 0
    capsule = tensorflow.experimental.dlpack.to_dlpack(tensor)
    # The first field of DLManagedTensor is its DLTensor, whose first field is the address.
    return ctypes.c_uint64.from_address(_pointer(capsule, b"dltensor")).value
