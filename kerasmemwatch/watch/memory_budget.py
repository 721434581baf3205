"""``MemoryBudget``: warns, stops or raises before a run meets a limit of device or host memory."""

from __future__ import annotations

import logging
import math
import weakref
from dataclasses import dataclass
from typing import Any

import keras

from kerasmemwatch.analysis.limit_forecast import Ahead, LimitForecast
from kerasmemwatch.attribution.live.dataset_caches import cache_sizes, cached_bytes
from kerasmemwatch.attribution.live.shuffle_buffers import shuffle_buffer
from kerasmemwatch.compat.keras import ADAPTER_DATASET, CURRENT_ITERATOR, DATA_ADAPTER
from kerasmemwatch.errors import InvalidArgumentError, MemoryBudgetExceededError
from kerasmemwatch.faults import Faults
from kerasmemwatch.switches import disabled
from kerasmemwatch.units import a_unit, format_bytes
from kerasmemwatch.watch.budgeted_memory import BudgetedMemory, device_memories, host_memory, limit_bytes
from kerasmemwatch.watch.callback_lists import running_lists
from kerasmemwatch.watch.step_loop import lasts_for_epochs, running_iterator

__all__ = ["MemoryBudget"]

logger = logging.getLogger(__name__)

_ACTIONS = ("warn", "stop", "raise")
# A limit that so many steps, or other units, will meet is worth a warning.
_WARN_AHEAD_STEPS, _WARN_AHEAD_UNITS = 1000, 20

_UNITS = {"evaluate": "evaluate call", "predict": "predict call"}
_REMEDY = "Use a smaller batch, or see kerasmemwatch.MemoryWatch for what holds the memory."
_ENDED = {
    "train": "",
    "test": "evaluate was ended: it would have returned the metrics of a part of the data. ",
    "predict": "predict was ended: it would have returned a part of the rows. ",
}
_AFTER_THIS = "Training is stopped once what runs within it has ended, so that its result is whole."


@dataclass(frozen=True)
class _Running:
    """A running fit, evaluate or predict."""

    stage: str
    model: weakref.ref[Any] | None


class MemoryBudget(keras.callbacks.Callback):
    """Acts before a limit is met: when it is expected within two more steps, or at once when a step has met it.

    A step's device use is its highest peak; its host use is the resident set size. Where memory grows, by the verdict
    that reports give too, a warning says when the limit will be met. Nothing is called growing within the first epoch,
    or while the dataset's cache fills. A budget remembers: with the same object in many fits, evaluates and predicts,
    growth from one to the next is found, and a fit ends early if the next one would meet the limit.

    Args:
        device: Limit of each device: bytes, a size such as ``"12 GiB"``, or a share such as ``"90%"`` of what its
            allocator may hand out (for a CPU without a limit of its own, of the host's limit).
        host: Limit of the process's RSS: bytes, a size, or a share of what this process may use, which is the
            smallest of its cgroups' limits and the machine's memory.
        action: ``"warn"``; ``"stop"``, which ends a fit after the batch, and raises in a separate ``evaluate`` or
            ``predict``; or ``"raise"``.

    ``"stop"`` never leaves a partial result that looks complete. A stopped fit keeps its weights and history. A
    separate ``evaluate`` or ``predict`` raises, because it would return the metrics or rows of its first batches as if
    they were all. A fit's validation runs to its end, so its metrics cover all data and no training is lost; then the
    fit ends.

    Attributes:
        reason: Why it acted, in words; ``None`` until it acts.

    Raises:
        InvalidArgumentError: If no limit is given, one is not positive, or the action is unknown (a ``ValueError``).
        InvalidTypeError: If a limit is neither a number of bytes nor a string (a ``TypeError``).
        MemoryBudgetExceededError: With ``action="raise"``; with ``"stop"`` from an ``evaluate`` or ``predict`` that is
            not within a fit (a ``MemoryError``).

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile("sgd", "mse")
        >>> budget = MemoryBudget(host="1 TiB")
        >>> history = model.fit(np.ones((64, 8)), np.ones((64, 4)), verbose=0, callbacks=[budget])
        >>> budget.reason is None
        True
    """

    async_safe = True

    def __init__(self, device: int | str | None = None, host: int | str | None = None, action: str = "stop") -> None:
        super().__init__()
        if device is None and host is None:
            raise InvalidArgumentError(
                "Expected a limit: device=, host=, or both. Received: neither. For example MemoryBudget(device='90%')."
            )
        if action not in _ACTIONS:
            raise InvalidArgumentError(f"Expected action to be one of {_ACTIONS}. Received: action={action!r}.")
        for name, limit in (("device", device), ("host", host)):
            if limit is not None:
                limit_bytes(limit, None, name)
        self.device, self.host, self.action = device, host, action
        self.reason: str | None = None
        self._memories: list[BudgetedMemory] = []
        self._running: list[_Running] = []
        self._begun_anew = True
        self._forecasts: dict[str, LimitForecast] = {}
        self._warned: set[str] = set()
        self._step, self._epoch = 0, math.nan
        self._faults = Faults()

    def __getstate__(self) -> dict[str, Any]:
        # A copy reads and remembers for itself.
        own: dict[str, Any] = {"_memories": [], "_running": [], "_forecasts": {}, "_warned": set()}
        return {**self.__dict__, **own, "_model": None, "_faults": Faults()}

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Called when a list of callbacks is made: any earlier stage has ended, perhaps in an exception."""
        super().set_params(params)
        self._begun_anew = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """A fit begins."""
        self._begin("train")

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """An evaluate begins, perhaps within a fit."""
        self._begin("test")

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """A predict begins."""
        self._begin("predict")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """A fit ends."""
        self._end("train")

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """An evaluate ends."""
        self._end("test")

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """A predict ends."""
        self._end("predict")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """An epoch begins."""
        self._epoch = float(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """An epoch ends, with its validation."""
        self._read_caches()
        self._end_unit()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """A batch ends."""
        self._check()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """A batch of an evaluate ends."""
        self._check()

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """A batch of a predict ends."""
        self._check()

    def _begin(self, stage: str) -> None:
        if self._begun_anew:
            # Unless another callback of a running fit started this stage.
            if len(list(running_lists(self))) < 2:
                self._running.clear()
            self._begun_anew = False
        self._running.append(_Running(stage, None if self._model is None else weakref.ref(self._model)))
        if len(self._running) == 1:
            self._end_watching()
            self.reason, self._epoch = None, math.nan
            if not disabled():
                with self._faults.guard("budget", "The memory budget is not watched."):
                    if self.host is not None:
                        self._memories.append(host_memory(self.host))
                    if self.device is not None:
                        self._memories += device_memories(self.device)
                    for memory in self._memories:
                        forecast = self._forecasts.setdefault(memory.name, LimitForecast(memory.kind))
                        forecast.limit_bytes = memory.limit_bytes
                        forecast.begin_call()
                    if stage == "train":
                        self._begin_caches()

    def _end(self, stage: str) -> None:
        # Also end stages within it that a caught exception ended.
        if any(outer.stage == stage for outer in self._running):
            while self._running.pop().stage != stage:
                pass
        if not self._running:
            self._end_unit()
            self._end_watching()

    def _end_unit(self) -> None:
        with self._faults.guard("budget", "The memory budget is not watched."):
            for memory in self._memories:
                self._forecasts[memory.name].end_unit()

    def _begin_caches(self) -> None:
        if keras.config.backend() == "tensorflow":
            loop = running_iterator()
            sizes = cache_sizes(ADAPTER_DATASET.of(DATA_ADAPTER.of(loop)))
            for memory in self._memories:
                if memory.holds_datasets:
                    self._forecasts[memory.name].begin_pass(sizes, is_one_pass=lasts_for_epochs(loop))

    def _read_caches(self) -> None:
        with self._faults.guard("caches", "A cache that fills is not known to be one."):
            forecasts = [self._forecasts[memory.name] for memory in self._memories if memory.holds_datasets]
            due = [forecast for forecast in forecasts if forecast.caches.is_due(forecast.steps)]
            shuffled = [forecast for forecast in forecasts if forecast.is_shuffle_due]
            iterator = CURRENT_ITERATOR.of(running_iterator()) if due or shuffled else None
            held = cached_bytes(iterator) if due else None
            for forecast in due:
                forecast.caches.add(forecast.steps, held)
            found = shuffle_buffer(iterator) if shuffled else None
            for forecast in shuffled:
                forecast.note_shuffle(found)

    def _end_watching(self) -> None:
        for memory in self._memories:
            memory.close()
        self._memories = []

    def _check(self) -> None:
        exceeded = None
        with self._faults.guard("budget", "The memory budget is not watched."):
            self._step += 1
            stage = self._running[-1].stage if self._running else "train"
            for memory in self._memories:
                forecast = self._forecasts[memory.name]
                forecast.add(*memory.read(), stage=stage, epoch=self._epoch)
                ahead = forecast.ahead
                if ahead is None:
                    continue
                if ahead.is_near:
                    exceeded = exceeded or self._message(memory, ahead)
                if memory.name not in self._warned and (ahead.is_near or _is_worth_a_warning(ahead)):
                    self._warned.add(memory.name)
                    logger.warning("%s", self._message(memory, ahead))
        if exceeded is not None and self.reason is None:
            self.reason = exceeded
            self._act(exceeded)

    def _message(self, memory: BudgetedMemory, ahead: Ahead) -> str:
        used, limit = format_bytes(self._forecasts[memory.name].highest_bytes), format_bytes(memory.limit_bytes)
        at = f"{memory.name} is at {used} of a budget of {limit}{' and grows' if ahead.is_growth else ''}"
        if not ahead.count:
            return f"{at}: it was met."
        unit = _UNITS.get(ahead.unit, ahead.unit)
        when = f"at {format_bytes(ahead.rate, signed=True)} {a_unit(unit)} it will be met in {ahead.count} {unit}"
        last = f", at about step {self._step + ahead.count}" if unit == "step" else ""
        return f"{at}: {when}{'s' * (ahead.count > 1)}{last}."

    def _act(self, reason: str) -> None:
        fits = [running for running in self._running if running.stage == "train"]
        if self.action == "raise" or (self.action == "stop" and not fits):
            self._end_watching()
            raise MemoryBudgetExceededError(f"{reason} {_ENDED[self._running[-1].stage]}{_REMEDY}")
        if self.action == "stop":
            is_within = self._running[-1:] != fits[-1:]
            logger.warning("%s %s", reason, _AFTER_THIS if is_within else "Training is stopped.")
            for fit in fits:
                model = None if fit.model is None else fit.model()
                if model is not None:
                    model.stop_training = True


def _is_worth_a_warning(ahead: Ahead) -> bool:
    return ahead.count <= (_WARN_AHEAD_STEPS if ahead.unit == "step" else _WARN_AHEAD_UNITS)
