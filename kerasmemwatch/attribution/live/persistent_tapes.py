"""Tapes that outlive their forward pass: they keep what they saved until they are used up or deleted."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["keep", "kept_bytes"]


@dataclass(frozen=True)
class _Kept:
    bytes: int
    holds: Callable[[Any], bool]


_kept: weakref.WeakKeyDictionary[Any, _Kept] = weakref.WeakKeyDictionary()


def keep(tape: Any, saved_bytes: int, holds: Callable[[Any], bool]) -> None:
    """Register a tape for as long as it lives.

    Args:
        holds: Whether the given tape still holds them.
    """
    _kept[tape] = _Kept(saved_bytes, holds)


def kept_bytes() -> int:
    """Return the bytes held by all tapes that are alive."""
    # keyrefs is one step of the interpreter: other threads may add or remove tapes meanwhile.
    tapes = [tape for reference in _kept.keyrefs() if (tape := reference()) is not None]
    found = ((tape, _kept.get(tape)) for tape in tapes)
    return sum(kept.bytes for tape, kept in found if kept is not None and kept.holds(tape))
