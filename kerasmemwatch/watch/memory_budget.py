"""``MemoryBudget``: warns, stops or raises before a run meets a limit of device or host memory."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from kerasmemwatch.analysis.limit_forecast import Forecast
from kerasmemwatch.errors import (
    InvalidArgumentError,
    MemoryBudgetExceededError,
    ProbeUnavailableError,
)
from kerasmemwatch.faults import Faults
from kerasmemwatch.probes.allocators import allocators
from kerasmemwatch.probes.host import HostProbe
from kerasmemwatch.probes.limits import host_limit
from kerasmemwatch.probes.peak_window import PeakWindow
from kerasmemwatch.switches import disabled
from kerasmemwatch.units import format_bytes, parse_bytes
from kerasmemwatch.watch.callback_lists import running_lists

__all__ = ["MemoryBudget"]

logger = logging.getLogger(__name__)

_ACTIONS = ("warn", "stop", "raise")
# A forecast this many steps ahead is worth a warning.
_WARN_AHEAD_STEPS = 1000
# It acts two steps early: allocations of later callbacks only show at the end of the next step.
_ACT_AHEAD_STEPS = 2


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


@dataclass
class _Watched:
    name: str
    read: Callable[[], float]
    forecast: Forecast
    warned: bool = False


class MemoryBudget(keras.callbacks.Callback):
    """Acts before a limit is met: when it is expected within two more steps, or at once when a step has met it.

    A step's device use is its highest peak; its host use is the resident set size. Once either has grown steadily for
    16 steps, or for 4 with the limit near, a warning says when the limit will be met.

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
                _limit_bytes(limit, None, name)
        self.device, self.host, self.action = device, host, action
        self.reason: str | None = None
        self._watched: list[_Watched] = []
        self._close: list[Callable[[], None]] = []
        self._running: list[_Running] = []
        self._begun_anew = True
        self._step = 0
        self._faults = Faults()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_watched": [], "_close": [], "_running": [], "_model": None, "_faults": Faults()}

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
            self.reason = None
            if not disabled():
                with self._faults.guard("budget", "The memory budget is not watched."):
                    self._watched = [*self._host_watched(), *self._device_watched()]

    def _end(self, stage: str) -> None:
        # Also end stages within it that a caught exception ended.
        if any(outer.stage == stage for outer in self._running):
            while self._running.pop().stage != stage:
                pass
        if not self._running:
            self._end_watching()

    def _end_watching(self) -> None:
        for close in self._close:
            close()
        self._close, self._watched = [], []

    def _host_watched(self) -> list[_Watched]:
        if self.host is None:
            return []
        probe = HostProbe()
        probe.open()
        self._close.append(probe.close)
        limit = _limit_bytes(self.host, host_limit().limit_bytes, "host")
        return [_Watched("Host memory (RSS)", lambda: probe.batch_end()[0], Forecast(limit))]

    def _device_watched(self) -> list[_Watched]:
        if self.device is None:
            return []
        if keras.config.backend() != "tensorflow":
            raise ProbeUnavailableError(f"Device memory is unknown on the {keras.config.backend()} backend.")
        watched = []
        for allocator in allocators():
            info = allocator.info
            whole = info.limit_bytes
            if whole is None:
                whole = host_limit().limit_bytes if info.name.startswith("CPU") else _gpu_bytes(info.name)
            window = PeakWindow(info.name, allocator.read, allocator.read_and_reset)
            window.take()
            self._close.append(window.close)
            forecast = Forecast(_limit_bytes(self.device, whole, "device"))
            watched.append(_Watched(f"Memory of {info.name}", partial(_peak, window), forecast))
        return watched

    def _check(self) -> None:
        exceeded = None
        with self._faults.guard("budget", "The memory budget is not watched."):
            self._step += 1
            for watched in self._watched:
                watched.forecast.add(watched.read())
                left = watched.forecast.steps_left
                if left is None or left > _WARN_AHEAD_STEPS:
                    continue
                if not watched.warned or left <= _ACT_AHEAD_STEPS:
                    if not watched.warned:
                        watched.warned = True
                        logger.warning("%s", self._message(watched, left))
                    if left <= _ACT_AHEAD_STEPS:
                        exceeded = exceeded or self._message(watched, left)
        if exceeded is not None and self.reason is None:
            self.reason = exceeded
            self._act(exceeded)

    def _message(self, watched: _Watched, left: int) -> str:
        forecast = watched.forecast
        used, limit = format_bytes(forecast.highest_bytes), format_bytes(forecast.limit_bytes)
        if not left:
            when = "it was met"
        else:
            growth = format_bytes(forecast.bytes_per_step, signed=True)
            when = (
                f"at {growth} a step it will be met in {left} step{'s' * (left > 1)}, at about step {self._step + left}"
            )
        return f"{watched.name} is at {used} of a budget of {limit}: {when}."

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


def _limit_bytes(limit: int | str, whole: int | None, name: str) -> int:
    """A limit in bytes. For a share without a whole, only its form is checked."""
    if not isinstance(limit, str) or not limit.strip().endswith("%"):
        return parse_bytes(limit, name=name)
    try:
        share = float(limit.strip()[:-1]) / 100
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise InvalidArgumentError(
            f"Expected {name} to be a share above 0% and up to 100%. Received: {name}={limit!r}."
        )
    return 1 if whole is None else int(whole * share)


def _peak(window: PeakWindow) -> float:
    return float(window.take()[1])


def _gpu_bytes(name: str) -> int:
    """A GPU's memory, from the driver."""
    from kerasmemwatch.probes.nvml import NvmlProbe

    probe = NvmlProbe()
    probe.open()
    try:
        drivers = probe.facts["drivers"]
        return int(drivers[int(name.rpartition(":")[2])]["total_bytes"])  # type: ignore[index]
    finally:
        probe.close()
