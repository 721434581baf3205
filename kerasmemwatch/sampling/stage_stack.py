"""Stack of the fits, evaluates and predicts in progress, which assigns each batch to one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from kerasmemwatch.probes.base import UNKNOWN

__all__ = ["Stage", "Stages", "num_executions"]


@dataclass(slots=True)
class Stage:
    """One fit, evaluate or predict."""

    code: int  # its index in `STAGES`
    epoch: float = UNKNOWN  # the epoch of training that it belongs to; NaN if none
    last_batch: int = -1  # 0-based number within the epoch of the last batch that ended; -1 before the first
    per_execution: int = 1  # batches per execution


class Stages(list[Stage]):
    """Nested stages, outermost first. Keras does not report which of them ended in an exception.

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
        """Begin a stage within the innermost."""
        if not self:
            self.thread = get_ident()
        self.append(Stage(code, self[-1].epoch if self else UNKNOWN, per_execution=per_execution))

    def leave_to(self, code: int) -> None:
        """Forget inner stages of a stage, which ended in an exception that was caught."""
        if any(outer.code == code for outer in self):
            while self[-1].code != code:
                self.pop()

    def left(self) -> Stage:
        """Count an execution aborted by an exception as complete; return its stage, the innermost."""
        stage = self[-1] if self else Stage(0)
        stage.last_batch += stage.per_execution
        return stage

    def executed(self, batch: int, code: int) -> tuple[Stage, int]:
        """Find the stage to which an execution belongs, and the number of batches it ran."""
        if get_ident() != self.thread:
            # Keras on JAX ends batches in a thread pool: in any order, possibly after the next stage has begun.
            stage = next((stage for stage in reversed(self) if stage.code == code), Stage(code))
            return stage, stage.per_execution
        if not self or self[-1].code != code:
            self._return_to(code, batch)
        stage = self[-1]
        try:
            executed = batch - stage.last_batch
        except TypeError:  # code that drives a callback list by hand may pass anything; Keras' own tests pass logs
            return stage, 1
        stage.last_batch = batch
        return stage, executed if executed > 1 else 1

    def _return_to(self, code: int, batch: int) -> None:
        """Resume a stage: its inner stages ended in an exception that was caught, or it was abandoned itself."""
        while self and self[-1].code != code:
            self.pop()
        if not self:
            self.append(Stage(code, last_batch=batch - 1))


def num_executions(params: Mapping[str, Any], model: Any, stage: str) -> int | None:
    """Number of calls of the step function in a stage; ``None`` if unknown."""
    steps = params.get("steps")
    if steps is None:
        return None
    per_execution = getattr(model, "steps_per_execution", None) or 1
    epochs = params.get("epochs") or 1 if stage == "train" else 1
    return int(-(-steps // per_execution) * epochs)
