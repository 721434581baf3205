"""When host memory is near its limit. Pure."""

from __future__ import annotations

__all__ = ["is_near_limit"]

_TIGHT = 0.03


def is_near_limit(used_bytes: float, limit_bytes: float, rise_bytes: float = 0) -> bool:
    """Whether less than 3 % of a limit is left, or less than twice what was added lately.

    Args:
        used_bytes: What is in use.
        limit_bytes: The limit.
        rise_bytes: What the last epoch added, after the warm-up.

    Example:
        >>> is_near_limit(900, 1000), is_near_limit(900, 1000, rise_bytes=60), is_near_limit(980, 1000)
        (False, True, True)
    """
    return limit_bytes - used_bytes < max(_TIGHT * limit_bytes, 2 * rise_bytes)
