"""Reads one of TensorFlow's allocators in as few calls as possible, because this happens twice per batch."""

from __future__ import annotations

from collections.abc import Callable

from kerasmemwatch.compat.tensorflow import CONTEXT, CONTEXT_HANDLE, GET_MEMORY_INFO, RESET_MEMORY_STATS

__all__ = ["direct_reads"]

_Read = Callable[[], tuple[int, int]]


def direct_reads(device: str) -> tuple[_Read, _Read]:
    """The calls behind ``tf.config``, without two layers of checks, which take half the time.

    The context's handle is looked up on each call. After a reset it is ``None``, which raises an error rather than
    crashing.

    Args:
        device: Its short name: ``"GPU:0"``.

    Returns:
        A function that reads the bytes in use and the peak, and one that also resets the peak.

    Raises:
        MissingNameError: If this TensorFlow lacks these calls.
    """
    context, get, reset = CONTEXT.get()(), GET_MEMORY_INFO.get(), RESET_MEMORY_STATS.get()
    CONTEXT_HANDLE.owner()

    def read() -> tuple[int, int]:
        info = get(context._context_handle, device)
        return info["current"], info["peak"]

    def read_and_reset() -> tuple[int, int]:
        handle = context._context_handle
        info = get(handle, device)
        reset(handle, device)
        return info["current"], info["peak"]

    return read, read_and_reset
