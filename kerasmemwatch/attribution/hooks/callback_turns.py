"""Whose turn it is while a list of callbacks calls them: a patch of one list's own calls, for a while.

No callback is touched, and none of them has a frame of ours around it: the list is only gone through by something that
notes each turn.
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
    """Tells of each turn that a list of callbacks gives to one of them.

    Args:
        callback_list: Keras' ``CallbackList``, kept weakly: what is in place ends with it.
        turn: Called with the callback whose turn it is, with ``None`` when it is nobody's.
        failed: Called when an exception leaves one of the list's calls.

    Example:
        >>> class List:
        ...     def __init__(self): self.callbacks = ["a", "b"]
        ...     def on_epoch_end(self):
        ...         for callback in self.callbacks: print(callback)
        >>> some = List()
        >>> turns = CallbackTurns(some, lambda one: print("turn", one), lambda: None)
        >>> turns.install()
        >>> some.on_epoch_end()
        turn a
        a
        turn b
        b
        turn None
        >>> turns.remove()
        >>> vars(some)
        {'callbacks': ['a', 'b']}
    """

    def __init__(self, callback_list: Any, turn: Callable[[Any], None], failed: Callable[[], None]) -> None:
        self._list, self._turn, self._failed = weakref.ref(callback_list), turn, failed
        self._installed: dict[str, Any] = {}

    def install(self) -> None:
        """Put the patch in place, beside whatever others have put on the list."""
        owner = self._list()
        for name in _HOOKS if owner is not None else ():
            plain = getattr(type(owner), name, None)
            if plain is not None and name not in vars(owner):
                self._installed[name] = call = self._noting(plain)
                setattr(owner, name, call)

    def remove(self) -> None:
        """Take out what is still in place."""
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
    """The same callbacks, and word of each as it is reached."""

    def __init__(self, callbacks: Iterable[Any], turn: Callable[[Any], None]) -> None:
        super().__init__(callbacks)
        self._turn = turn

    def __iter__(self) -> Iterator[Any]:
        for callback in super().__iter__():
            self._turn(callback)
            yield callback
