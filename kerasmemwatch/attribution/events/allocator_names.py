"""Mapping from the names of TensorFlow's allocators to devices. Pure."""

from __future__ import annotations

__all__ = ["HOST", "PINNED", "device_of"]

# All logical CPUs share one allocator; buffers that GPUs copy from and to have another.
HOST, PINNED = "CPU:0", "GPU host (pinned)"


def device_of(allocator: str) -> str:
    """Return the device that an allocator serves.

    Example:
        >>> [device_of(name) for name in ("GPU_1_bfc", "gpu_host_bfc", "mklcpu")]
        ['GPU:1', 'GPU host (pinned)', 'CPU:0']
    """
    kind, _, rest = allocator.partition("_")
    index = rest.partition("_")[0]
    if index == "host":
        return PINNED
    return f"GPU:{index}" if kind == "GPU" and index.isdecimal() else HOST
