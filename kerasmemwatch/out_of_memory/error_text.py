"""What the text of an out-of-memory error tells of the allocation that failed. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from kerasmemwatch.records.death import Request

__all__ = ["could_be", "read_error"]

_NUMBER = r"[\d,]+(?:\.\d+)?"
_OP = re.compile(
    r"OOM when allocating tensor with shape\[(?P<shape>[\d,]*)\] and type (?P<dtype>\w+) on (?P<device>\S+) "
    r"by allocator (?P<allocator>\S+)"
)
_PROGRAM = re.compile(
    rf"Out of memory (?:while )?(?:trying to )?alloc\w+:?\s+(?P<size>{_NUMBER})\s?(?P<unit>[KMGT]?i?B|bytes)\b",
    re.IGNORECASE,
)
# XLA while it compiles: trials of algorithms, and a program that exceeds the device from the start.
_COMPILE = (
    re.compile(rf"Allocating (?P<size>{_NUMBER}) (?P<unit>bytes) exceeds the memory limit", re.IGNORECASE),
    re.compile(
        rf"Ran out of memory in memory space \w+\. (?:It should not be possible .*?)?Used (?P<size>{_NUMBER})"
        r"(?P<unit>[KMGT]) of",
        re.IGNORECASE | re.DOTALL,
    ),
    re.compile(rf"Failed to allocate (?P<size>{_NUMBER}) (?P<unit>bytes) for new constant", re.IGNORECASE),
    re.compile(rf"Failed to allocate request for (?P<size>{_NUMBER})(?P<unit>[KMGT]?i?B)", re.IGNORECASE),
)
# PyTorch's, which names no operation.
_TORCH = re.compile(rf"Tried to allocate (?P<size>{_NUMBER}) (?P<unit>[KMGT]?i?B)", re.IGNORECASE)
_AUTOTUNING = re.compile(r"autotun", re.IGNORECASE)
# numpy's, with the array's shape and type.
_ARRAY = re.compile(
    r"Unable to allocate (?P<rounded>[\d.]+ \w+) for an array with shape \((?P<shape>[\d, ]*)\) and data type "
    r"(?P<dtype>\S+)"
)
# These do not tell how much was asked for.
_SILENT = re.compile(
    r"failed to allocate memory|Dst tensor is not initialized|CUDA_ERROR_OUT_OF_MEMORY|CUDNN_STATUS_ALLOC_FAILED"
    r"|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|Attempting to allocate .* exceeds|\bout of memory\b",
    re.IGNORECASE,
)
_CLASSES = frozenset({"ResourceExhaustedError", "InternalError", "UnknownError", "XlaRuntimeError", "OutOfMemoryError"})
# TensorFlow 1 wrote "[[node x (defined at ...)]]" and "[[Node: x = ...]]".
_NODE = re.compile(r"\{\{node (?P<op>[^}\s]+)\}\}|\[\[[Nn]ode:? (?P<old>[^\s\]{]+)")
_EAGER = re.compile(r"\[Op:(?P<op>\w+)\]")
_DEVICE = re.compile(r"device:(?P<kind>[A-Z]+):(?P<number>\d+)")
_UNITS = {"": 0, "b": 0, "bytes": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZES = {
    **dict.fromkeys(("bool", "int8", "uint8", "qint8", "quint8", "float8_e5m2", "float8_e4m3fn"), 1),
    **dict.fromkeys(("half", "float16", "bfloat16", "int16", "uint16", "qint16", "quint16"), 2),
    **dict.fromkeys(("float", "float32", "int32", "uint32", "qint32"), 4),
    **dict.fromkeys(("double", "float64", "int64", "uint64", "complex64"), 8),
    "complex128": 16,
}


def read_error(text: str, class_name: str = "ResourceExhaustedError") -> Request | None:
    r"""Read the failed allocation from an error.

    Args:
        text: The error's text.
        class_name: Class of the error. TensorFlow uses its class for a full disk, too.

    Returns:
        The request; ``None`` if the error is not about memory.

    Example:
        >>> read_error(
        ...     "OOM when allocating tensor with shape[64,32] and type float on /job:localhost/device:GPU:0 "
        ...     "by allocator GPU_0_bfc\n\t [[{{node model/dense/MatMul}}]]"
        ... )  # doctest: +NORMALIZE_WHITESPACE
        Request(kind='op', num_bytes=8192, rounded='', shape=(64, 32), dtype='float', op='model/dense/MatMul',
            device='GPU:0', allocator='GPU_0_bfc')
    """
    readers: tuple[Callable[[str], Request | None], ...] = (
        _of_operation,
        _of_compiler,
        _of_program,
        _of_host,
        _of_torch,
    )
    for read in readers:
        found = read(text)
        if found is not None:
            return found
    if class_name == "MemoryError":
        return Request("host")
    # Other errors may well say "out of memory" without being it.
    silent = _SILENT.search(text) if class_name in _CLASSES else None
    return None if silent is None else Request("op", op=_op(text, silent.end()), device=_device(text))


def _of_operation(text: str) -> Request | None:
    match = _OP.search(text)
    if match is None:
        return None
    shape = _shape(match["shape"])
    return Request(
        "op",
        _num_bytes(shape, match["dtype"]),
        shape=shape,
        dtype=match["dtype"],
        op=_op(text, match.end()),
        device=_device(match["device"]),
        allocator=match["allocator"],
    )


def _of_compiler(text: str) -> Request | None:
    match = next((found for pattern in _COMPILE if (found := pattern.search(text))), None)
    if match is None and _AUTOTUNING.search(text):
        match = _PROGRAM.search(text)
    return None if match is None else _sized("compile", match, text)


def _of_program(text: str) -> Request | None:
    match = _PROGRAM.search(text)
    return None if match is None else _sized("program", match, text)


def _of_torch(text: str) -> Request | None:
    match = _TORCH.search(text)
    return None if match is None else _sized("op", match, text)


def _of_host(text: str) -> Request | None:
    match = _ARRAY.search(text)
    if match is None:
        return None
    shape = _shape(match["shape"])
    size = _num_bytes(shape, match["dtype"])
    return Request("host", size, "" if size is not None else match["rounded"], shape, match["dtype"])


def _sized(kind: str, match: re.Match[str], text: str) -> Request:
    number, unit = match["size"].replace(",", ""), match["unit"].lower()
    power = _UNITS[unit if unit in _UNITS else unit[0]]
    is_exact = power == 0 and "." not in number
    return Request(
        kind,
        int(number) if is_exact else None,
        "" if is_exact else f"{match['size']}{match['unit']}",
        op=_op(text, match.end()),
        device=_device(text),
    )


def _op(text: str, after: int) -> str:
    """The operation named behind the message, in front of which TensorFlow lists where the model was written."""
    node = _NODE.search(text, after) or _NODE.search(text)
    eager = _EAGER.search(text, after)
    if node is not None:
        return node["op"] or node["old"]
    return "" if eager is None or eager["op"].startswith("__inference_") else eager["op"]


def _device(text: str) -> str:
    found = _DEVICE.search(text)
    return "" if found is None else f"{found['kind']}:{found['number']}"


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size.strip())


def _num_bytes(shape: tuple[int, ...], dtype: str) -> int | None:
    item = _SIZES.get(dtype)
    return None if item is None else math.prod(shape) * item


def could_be(num_bytes: int, rounded: str) -> bool:
    """Whether a size is written so when it is rounded.

    Example:
        >>> could_be(204_511_748, "195.04MiB"), could_be(204_600_000, "195.04MiB")
        (True, False)
    """
    match = re.fullmatch(rf"(?P<size>{_NUMBER})\s?(?P<unit>\w*)", rounded)
    if match is None:
        return False
    number, unit = match["size"].replace(",", ""), match["unit"].lower()
    digits, power = len(number.partition(".")[2]), _UNITS[unit if unit in _UNITS else unit[0]]
    # TensorFlow drops what is below the next smaller unit before it rounds.
    cut = num_bytes // 1024 ** max(0, power - 1) / 1024 ** min(1, power)
    return any(abs(size - float(number)) <= 0.5 * 10.0**-digits + 1e-9 for size in (cut, num_bytes / 1024**power))
