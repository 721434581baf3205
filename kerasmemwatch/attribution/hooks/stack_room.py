"""Room for the frames of deep calls.

CPython keeps Python's frames in chunks of 16 KiB, mapped when a call does not fit and unmapped when it returns
(``_PyThreadState_PushFrame``). A function that is called again and again at the end of a chunk pays for both each
time, and hooks, which make calls deeper, can move a training step's busiest calls there. A frame that needs much makes
its chunk large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kerasmemwatch.attribution.hooks.patching import unseen

__all__ = ["with_room"]

# Just over half of a chunk of 256 KiB: the other half is for the frames within.
_SLOTS = 1 << 14


def with_room(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function, with room for some hundred frames within.

    Example:
        >>> with_room(max, (1, 2), {})
        2
    """
    with unseen:
        return function(*args, **kwargs)


with_room.__code__ = with_room.__code__.replace(co_stacksize=_SLOTS)
