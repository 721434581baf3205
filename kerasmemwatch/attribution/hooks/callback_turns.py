"""Turns of callbacks in a list of callbacks, from a temporary patch of the list's calls.

The patch touches no callback and adds no Python frame around one: the list is only iterated by something that reports
each turn.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kerasmemwatch.attribution.hooks.patching import unseen

__all__ = ["CallbackTurns"]

_STAGES = ("train", "test", "predict")
_HOOKS = (
    "on_epoch_begin",
    "on_epoch_end",
    *(f"on_{stage}_{moment}" for stage in _STAGES for moment in ("begin", "end", "batch_begin", "batch_end")),
)


class CallbackTurns:
    """Reports each turn that a list of callbacks gives to a callback.

    Args:
        callback_list: Keras' ``CallbackList``, held weakly: the patch ends with it.
        turn: Called with the callback at the start of its turn, and with ``None`` after the last turn.
        failed: Called when one of the list's calls raises.
    """

    def __init__(self, callback_list: Any, turn: Callable[[Any], None], failed: Callable[[], None]) -> None:
        self._list, self._turn, self._failed = weakref.ref(callback_list), turn, failed
        self._installed: dict[str, Any] = {}

    def install(self) -> None:
        """Install the patch, next to any others on the list."""
        owner = self._list()
        for name in _HOOKS if owner is not None else ():
            plain = getattr(type(owner), name, None)
            if plain is not None and name not in vars(owner):
                self._installed[name] = call = self._noting(plain)
                setattr(owner, name, call)

    def remove(self) -> None:
        """Remove what is still in place."""
        owner, installed = self._list(), self._installed
        self._installed = {}
        for name, call in installed.items() if owner is not None else ():
            if vars(owner).get(name) is call:
                delattr(owner, name)

    def _noting(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        reference, turn, failed = self._list, self._turn, self._failed

        def call(*args: Any, **kwargs: Any) -> Any:
            with unseen:
                owner: Any = reference()
                callbacks = owner.callbacks
                told = owner.callbacks = _InTurn(callbacks, turn)
                try:
                    return plain(owner, *args, **kwargs)
                except BaseException:
                    failed()
                    raise
                finally:
                    turn(None)
                    if owner.callbacks is told:
                        owner.callbacks = callbacks
                        if list.__ne__(told, callbacks):
                            callbacks[:] = list.__iter__(told)  # a callback has changed the list

        return call


class _InTurn(list[Any]):
    """The same callbacks, with a report of each as it is reached."""

    def __init__(self, callbacks: Iterable[Any], turn: Callable[[Any], None]) -> None:
        super().__init__(callbacks)
        self._turn = turn

    def __iter__(self) -> Iterator[Any]:
        for callback in super().__iter__():
            self._turn(callback)
            yield callback
