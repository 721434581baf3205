"""The callback lists that are running: Keras does not tell a callback its list, but the list is on the stack."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import keras

__all__ = ["running_lists"]

_FILE = keras.callbacks.CallbackList.__init__.__code__.co_filename


def running_lists(callback: keras.callbacks.Callback) -> Iterator[Any]:
    """The lists that hold a callback and are calling something now, innermost first, each once.

    There are several if, for example, another callback of a fit calls ``evaluate`` with the same callback.
    """
    frame: FrameType | None = sys._getframe(1)
    found: list[Any] = []
    while frame is not None:
        # Only the lists' own frames: reading a user's frame would keep its variables' values alive.
        owner = frame.f_locals.get("self") if frame.f_code.co_filename == _FILE else None
        is_list = isinstance(owner, keras.callbacks.CallbackList) and callback in owner.callbacks
        if is_list and not any(owner is known for known in found):
            found.append(owner)
            yield owner
        frame = frame.f_back
