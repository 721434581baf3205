"""Which device an allocator of TensorFlow's is of, by its name. Pure."""

from __future__ import annotations

__all__ = ["HOST", "PINNED", "device_of"]

# The process's logical CPUs share one allocator; what GPUs copy from and to has one of its own.
HOST, PINNED = "CPU:0", "GPU host (pinned)"


def device_of(allocator: str) -> str:
    """The device that an allocator is of.

    Example:
        >>> [device_of(name) for name in ("GPU_1_bfc", "gpu_host_bfc", "mklcpu")]
        ['GPU:1', 'GPU host (pinned)', 'CPU:0']
    """
    kind, _, rest = allocator.partition("_")
    index = rest.partition("_")[0]
    if index == "host":
        return PINNED
    return f"GPU:{index}" if kind == "GPU" and index.isdecimal() else HOST
