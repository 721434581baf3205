"""Steps of this process that ran out of memory and have not been followed by one that fitted, for any watch. Pure.

Whoever catches the error may try a smaller batch with a watch of its own, whose run then has the earlier tries, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from kerasmemwatch.records.death import Death
from kerasmemwatch.records.layer_memory import LayerMemory

__all__ = ["Kind", "Tries", "kind_of"]

_MOST = 32


class Kind(NamedTuple):
    """What tries have in common: the log dir, the stage and the model's variables."""

    log_dir: str | None
    stage: str
    variables: tuple[int, int]


def kind_of(log_dir: str | None, stage: str, layers: Sequence[LayerMemory]) -> Kind | None:
    """The kind of a try; ``None`` if the model is unknown. A model that is made anew has other names."""
    held = [layer.weights_bytes for layer in layers if layer.class_name and layer.weights_bytes]
    return Kind(log_dir, stage, (len(held), sum(held))) if held else None


class Tries:
    """The tries so far, oldest first; those that are too many are forgotten."""

    def __init__(self) -> None:
        self._tries: deque[tuple[Kind, str, Death]] = deque(maxlen=_MOST)

    def __bool__(self) -> bool:
        return bool(self._tries)

    def add(self, kind: Kind, run: str, death: Death) -> None:
        """Remember a death in a run."""
        self._tries.append((kind, run, death))

    def of_others(self, kind: Kind, run: str) -> tuple[Death, ...]:
        """Deaths of this kind in other runs, which they name."""
        return tuple(
            replace(death, run=death.run or name) for each, name, death in self._tries if each == kind and name != run
        )

    def settle(self, kind: Kind) -> None:
        """Forget what is of a kind, because one has fitted."""
        kept = [each for each in self._tries if each[0] != kind]
        self._tries.clear()
        self._tries.extend(kept)
