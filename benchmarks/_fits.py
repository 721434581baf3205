"""Whole fits with steps of about 5 ms: all that a callback costs, and the noise of a machine."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
from _contenders import Contender, fresh_dir
from _stats import Estimate, bootstrap, median

__all__ = ["FitCosts", "Training", "calibrated", "measure_fits"]

_BATCH = 64
_FEATURES = 32
# What costs several percent shows in fewer blocks.
_SLOW_EVERY = 4


@dataclass(frozen=True)
class Training:
    """A compiled model, and data for so many steps.

    Attributes:
        model: Compiled and traced.
        width: Units of its hidden layers.
        steps: Steps of one fit.
        step_s: Median seconds of a step.
    """

    model: keras.Model
    width: int
    steps: int
    step_s: float

    def fit(self, callback: keras.callbacks.Callback) -> tuple[float, float]:
        """Seconds of one fit, and how many of them its callback's batch hooks took."""
        rows = self.steps * _BATCH
        x, y = np.ones((rows, _FEATURES), np.float32), np.ones((rows, 1), np.float32)
        timed = _Timed(callback)
        gc.collect()
        begun = time.perf_counter()
        self.model.fit(x, y, batch_size=_BATCH, shuffle=False, verbose=0, callbacks=[timed])
        return time.perf_counter() - begun, timed.hooks_s


@dataclass
class FitCosts:
    """Seconds of every block by contender's key, each with the empty callback's in the same round.

    Attributes:
        steps: Steps of a fit.
        fit_s: Of whole fits.
        hooks_s: Of the batch hooks within them.
    """

    steps: int
    fit_s: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    hooks_s: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def percent(self, key: str) -> Estimate:
        """Percent above the same fit with the empty callback."""
        return median([100 * (with_it / without - 1) for with_it, without in self.fit_s[key]])

    def step_us(self, key: str) -> Estimate:
        """Microseconds a step above the same fit with the empty callback, whatever they were spent on."""
        return median([1e6 * (with_it - without) / self.steps for with_it, without in self.fit_s[key]])

    def hooks_us(self, key: str) -> Estimate:
        """Microseconds a step within the batch hooks, above the empty ones."""
        return median([1e6 * (with_it - without) / self.steps for with_it, without in self.hooks_s[key]])

    def times_watch(self, key: str) -> Estimate:
        """How many times the cost of MemoryWatch's batch hooks that of a slow contender's is, in the same rounds."""
        watch, other = self.hooks_s["watch"][::_SLOW_EVERY], self.hooks_s[key]
        above = [[with_it - without for with_it, without in pairs] for pairs in (watch, other)]
        return bootstrap(lambda w, o: np.median(o, axis=-1) / np.median(w, axis=-1), *above)


class _Timed(keras.callbacks.Callback):
    """Another callback, with a clock around its batch hooks; the clock costs all callbacks the same."""

    def __init__(self, inner: keras.callbacks.Callback) -> None:
        super().__init__()
        self.hooks_s = 0.0
        for name in ("set_model", "set_params", *filter(lambda name: name.startswith("on_"), dir(inner))):
            setattr(self, name, getattr(inner, name))
        for name in ("on_train_batch_begin", "on_train_batch_end"):
            setattr(self, name, self._clocked(getattr(inner, name)))

    def _clocked(self, hook: Callable[..., None]) -> Callable[..., None]:
        clock = time.perf_counter

        def clocked(batch: int, logs: object = None) -> None:
            begun = clock()
            hook(batch, logs)
            self.hooks_s += clock() - begun

        return clocked


class _StepTimes(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.ends.append(time.perf_counter())


def calibrated(step_s: float, steps: int, tries: int = 5) -> Training:
    """Find the width at which a step takes about ``step_s``."""
    width = 256
    for _ in range(tries):
        training = Training(_model(width), width, 60, 0.0)
        median_s = _median_step(training)
        if 0.85 < median_s / step_s < 1.15:
            break
        # Between linear and quadratic: layers' products against what a step costs anyway.
        width = max(8, round(width * (step_s / median_s) ** 0.6))
    return Training(training.model, training.width, steps, median_s)


def _model(width: int) -> keras.Model:
    hidden = [keras.layers.Dense(width, activation="relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((_FEATURES,)), *hidden, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def _median_step(training: Training) -> float:
    times = _StepTimes()
    training.fit(times)
    return float(np.median(np.diff(times.ends)[10:]))


def measure_fits(found: Sequence[Contender], training: Training, log_dir: str, *, blocks: int) -> FitCosts:
    """Fit with all contenders, a fresh callback each time, in another order each round.

    Args:
        found: What to measure; the first is the empty callback.
        training: What to fit.
        log_dir: Where to write.
        blocks: Number of rounds; one more goes before. Slow contenders take part in every fourth.
    """
    costs = FitCosts(training.steps, {each.key: [] for each in found[1:]}, {each.key: [] for each in found[1:]})
    shuffle = random.Random(2).shuffle
    for number in range(blocks + 1):
        order = [each for each in found if not each.slow or not number or number % _SLOW_EVERY == 1]
        shuffle(order)
        seconds = {each.key: training.fit(each.make(fresh_dir(log_dir))) for each in order}
        fit_s, hooks_s = seconds.pop("empty")
        for key, (other_fit_s, other_hooks_s) in seconds.items() if number else ():
            costs.fit_s[key].append((other_fit_s, fit_s))
            costs.hooks_s[key].append((other_hooks_s, hooks_s))
    return costs
