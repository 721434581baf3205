"""Shows memory beside the loss on the epoch's line, without adding it to anyone's logs.

Keras hands one dictionary of logs from callback to callback, and its progress bar comes last. A small callback just
before the bar adds values that only the bar then sees. The list belongs to one fit, so nothing needs to be restored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from kerasmemwatch.watch.callback_lists import running_lists

__all__ = ["show_beside_loss"]


class _EpochLine(keras.callbacks.Callback):
    async_safe = True

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        super().__init__()
        self._read = read

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs.update(self._read())


def show_beside_loss(watch: keras.callbacks.Callback, read: Callable[[], Mapping[str, float]]) -> bool:
    """Show what ``read`` returns on the epoch's line; called from the watch's ``on_train_begin``.

    Returns:
        Whether there is a progress bar to show it.
    """
    callback_list = next(running_lists(watch), None)
    callbacks = getattr(callback_list, "callbacks", [])
    if any(isinstance(callback, _EpochLine) for callback in callbacks):
        return True
    for index, callback in enumerate(callbacks):
        if isinstance(callback, keras.callbacks.ProgbarLogger):
            callbacks.insert(index, _EpochLine(read))
            return True
    return False
