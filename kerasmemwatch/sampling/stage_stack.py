"""The fits, evaluates and predicts that are under way, and to which of them a batch belongs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from kerasmemwatch.probes.base import UNKNOWN

__all__ = ["Stage", "Stages", "num_executions"]


@dataclass(slots=True)
class Stage:
    """One fit, evaluate or predict.

    Attributes:
        code: Its index in ``STAGES``.
        epoch: The epoch of training that it belongs to; NaN if none.
        last_batch: 0-based number, within the epoch, of the batch that ended last; -1 before the first.
        per_execution: Batches that one execution runs.
    """

    code: int
    epoch: float = UNKNOWN
    last_batch: int = -1
    per_execution: int = 1


class Stages(list[Stage]):
    """They nest: the outermost comes first. Keras does not tell which of them have ended in an exception.

    Example:
        >>> stages = Stages()
        >>> stages.begin(0, per_execution=4)
        >>> [stages.executed(batch, 0)[1] for batch in (3, 7, 8)]
        [4, 4, 1]
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread = get_ident()

    def begin(self, code: int, *, per_execution: int = 1) -> None:
        """A stage begins within the innermost."""
        if not self:
            self.thread = get_ident()
        self.append(Stage(code, self[-1].epoch if self else UNKNOWN, per_execution=per_execution))

    def leave_to(self, code: int) -> None:
        """Forget what was begun within a stage and ended in an exception that somebody caught."""
        if any(outer.code == code for outer in self):
            while self[-1].code != code:
                self.pop()

    def left(self) -> Stage:
        """The innermost stage, an execution of which has been left by an exception; what it ran counts as a whole."""
        stage = self[-1] if self else Stage(0)
        stage.last_batch += stage.per_execution
        return stage

    def executed(self, batch: int, code: int) -> tuple[Stage, int]:
        """The stage to which an execution belongs, and how many batches it ran.

        Args:
            batch: 0-based number, within its epoch, of the last batch it ran.
            code: The stage's.
        """
        if get_ident() != self.thread:
            # Keras on JAX ends batches in a pool of threads: in any order, and when the next stage may have begun.
            stage = next((stage for stage in reversed(self) if stage.code == code), Stage(code))
            return stage, stage.per_execution
        if not self or self[-1].code != code:
            self._return_to(code, batch)
        stage = self[-1]
        try:
            executed = batch - stage.last_batch
        except TypeError:  # who drives a list of callbacks by hand may pass anything; Keras' own tests pass logs
            return stage, 1
        stage.last_batch = batch
        return stage, executed if executed > 1 else 1

    def _return_to(self, code: int, batch: int) -> None:
        """A stage goes on: those within it ended in an exception that somebody caught, or it was abandoned itself."""
        while self and self[-1].code != code:
            self.pop()
        if not self:
            self.append(Stage(code, last_batch=batch - 1))


def num_executions(params: Mapping[str, Any], model: Any, stage: str) -> int | None:
    """How often the step's function will be called in a stage; ``None`` if that is not known.

    Args:
        params: What Keras tells its callbacks.
        model: The model.
        stage: ``"train"``, ``"test"`` or ``"predict"``.
    """
    steps = params.get("steps")
    if steps is None:
        return None
    per_execution = getattr(model, "steps_per_execution", None) or 1
    epochs = params.get("epochs") or 1 if stage == "train" else 1
    return int(-(-steps // per_execution) * epochs)
