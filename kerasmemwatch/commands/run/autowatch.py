"""Automatic watch on every fit without one, installed by ``kerasmemwatch run`` once Keras is imported.

``fit``, ``evaluate`` and ``predict`` stay unchanged: the watch joins their ``CallbackList`` when it begins, which also
covers lists that users build themselves. The ``*_on_batch`` methods have no callbacks, so they are wrapped.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any

from kerasmemwatch.attribution.hooks.patching import unseen
from kerasmemwatch.commands.run.shared_watch import SharedWatch
from kerasmemwatch.compat.tensorflow import FILTER_MODULE
from kerasmemwatch.switches import disabled

__all__ = ["install"]

_logger = logging.getLogger(__name__)
_BEGIN_METHODS = ("on_train_begin", "on_test_begin", "on_predict_begin")
_BATCH_METHODS = {"train_on_batch": "train", "test_on_batch": "test", "predict_on_batch": "predict"}


def install() -> None:
    """Watch Keras in this process, recording to the log dir in ``KERASMEMWATCH_RUN``. A second call does nothing."""
    if disabled():
        return
    try:
        _install(json.loads(os.environ["KERASMEMWATCH_RUN"])["log_dir"])
    except Exception:
        _logger.warning("Training is not recorded: this Keras is not as expected.", exc_info=True)


@functools.cache
def _install(log_dir: str) -> None:
    import keras

    callback_list = keras.callbacks.CallbackList
    # The backend's trainer class, which models other than keras.Model also inherit from.
    trainer = next(owner for owner in keras.Model.__mro__ if "train_on_batch" in vars(owner))
    loop_files = {_file_of(callback_list.on_train_begin), _file_of(trainer.train_on_batch)}
    shared = SharedWatch(log_dir, loop_files)
    wrapped = {(callback_list, name): shared.join for name in _BEGIN_METHODS}
    for name, stage in _BATCH_METHODS.items():
        wrapped[trainer, name] = functools.partial(shared.batch, stage=stage)
    methods = {(owner, name): getattr(owner, name) for owner, name in wrapped}
    for (owner, name), around in wrapped.items():
        setattr(owner, name, _inside(around, methods[owner, name]))


def _file_of(function: Callable[..., Any]) -> str:
    return str(inspect.unwrap(function).__code__.co_filename)


def _inside(
    around: Callable[[Any, FrameType], AbstractContextManager[None]], method: Callable[..., Any]
) -> Callable[..., Any]:
    """Run a method in a context that leaves no frames in tracebacks."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        with unseen, around(self, sys._getframe(1)), _left_out_by_tensorflow():
            return method(self, *args, **kwargs)

    return wrapper


def _left_out_by_tensorflow() -> AbstractContextManager[Any]:
    """Context that keeps this file out of the operation stacks in TensorFlow's errors."""
    module_filter = FILTER_MODULE.if_loaded()
    return nullcontext() if module_filter is None else module_filter()
