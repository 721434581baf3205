"""Memory beside the loss on the epoch's line, without putting it into anybody's logs.

Keras hands one dictionary of logs from callback to callback, and its progress bar comes last. A small callback that
stands just before the bar adds to the dictionary what only the bar then sees. The list belongs to one fit, so
nothing needs to be restored.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import keras

__all__ = ["show_beside_loss"]

_MOST_FRAMES = 6


class _EpochLine(keras.callbacks.Callback):
    async_safe = True

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        super().__init__()
        self._read = read

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs.update(self._read())


def show_beside_loss(watch: keras.callbacks.Callback, read: Callable[[], Mapping[str, float]]) -> bool:
    """Put what ``read`` returns on the epoch's line; called from the watch's ``on_train_begin``.

    Args:
        watch: The callback whose list is meant.
        read: Returns what to show, by name.

    Returns:
        Whether there is a progress bar to show it.
    """
    callback_list = _list_of(watch)
    callbacks = getattr(callback_list, "callbacks", [])
    if any(isinstance(callback, _EpochLine) for callback in callbacks):
        return True
    for index, callback in enumerate(callbacks):
        if isinstance(callback, keras.callbacks.ProgbarLogger):
            callbacks.insert(index, _EpochLine(read))
            return True
    return False


def _list_of(watch: keras.callbacks.Callback) -> Any:
    """The list that calls us: Keras tells a callback nothing of its list, but the list is on the stack."""
    frame = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList) and watch in owner.callbacks:
            return owner
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None
