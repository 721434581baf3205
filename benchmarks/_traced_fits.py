"""Fits of the zoo's models with traced steps: what the traces say, and what they cost."""

from __future__ import annotations

import functools
import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from _timeline_checks import check_step
from _zoo import ZooModel, build

from kerasmemwatch.attribution.events.profiler_capture import Capture
from kerasmemwatch.tracing.controller import AHEAD
from kerasmemwatch.tracing.traced_before import TRACED
from kerasmemwatch.watch.memory_watch import MemoryWatch

__all__ = ["measure_auto", "measure_million", "measure_plain", "measure_row", "traced_fit"]

# An epoch long enough that its first batches, which fill the input pipeline, are not compared with traced ones.
_EPOCH_STEPS, _FIRST_COMPARED = 24, 4
_TRACED = (6, 14, 22)
# Steps with TensorFlow's profiler and nothing of ours: no traced step can cost less.
_BARE = (10, 18)
_MOST_EPOCHS, _LONGEST_S = 4, 20.0
# A recurrent layer over so many time steps makes about a million events.
_LONG, _MILLION = 17_000, 1_000_000


@dataclass
class _Clock:
    """Seconds of every step, in the function that trains and in the watch around it."""

    bare: frozenset[int] = frozenset()
    function_s: list[float] = field(default_factory=list)
    batch_s: list[float] = field(default_factory=list)
    hooks_s: float = 0.0
    begun: float = 0.0

    def watch_s(self, step: int) -> float:
        """What the watch took of a step (from 1), outside of the function that trains."""
        return self.batch_s[step - 1] - self.function_s[step - 1]


class _First(keras.callbacks.Callback):
    """Before the watch: its batch begins earlier, and its clock is within whatever the watch puts around a step."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock

    def on_train_begin(self, logs: Any = None) -> None:
        self.model.train_function = _timed(self.model.train_function, self._clock)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._clock.begun = time.perf_counter()


class _Last(keras.callbacks.Callback):
    """After the watch, whose batch has ended; ends a fit that takes long."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._clock.batch_s.append(time.perf_counter() - self._clock.begun)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # The first step makes the graph, and is no measure.
        self.model.stop_training = sum(self._clock.batch_s[1:]) > _LONGEST_S


def measure_row(name: str, mode: str) -> dict[str, Any]:
    """Train a model with several traced steps; every figure of its row, JSON-able."""
    return traced_fit(name, mode)[2]


def traced_fit(
    name: str, mode: str, *, first_step: bool = False, epochs: int = _MOST_EPOCHS
) -> tuple[ZooModel, MemoryWatch, dict[str, Any]]:
    """Train a model with several traced steps.

    Args:
        name: Of the model.
        mode: ``"graph"``, ``"eager"`` or ``"xla"``.
        first_step: Whether to trace the first step, too; no figure of the row is of it.
        epochs: How many at most.

    Returns:
        The model, the watch, and every figure of its row, JSON-able.
    """
    zoo = build(name, mode)
    traced, bare = ([e * _EPOCH_STEPS + batch for e in range(epochs) for batch in each] for each in (_TRACED, _BARE))
    watch, clock, fit_s = _fit(zoo, [*([1] if first_step else ()), *traced], frozenset(bare), epochs=epochs)
    begun = time.perf_counter()
    steps = [step for step in watch.recording.steps if step.step > 1]
    read_s = time.perf_counter() - begun
    report = watch.report
    checks = [check_step(step) for step in steps]
    taken = {check.step for check in checks}
    row = {
        "steps": [asdict(check) for check in checks],
        "expected_steps": [step for step in traced if step <= len(clock.batch_s)],
        "mode": sorted({step.mode for step in steps}),
        "notes": sorted({note for step in steps for note in step.notes} | set(watch.recording.run.notes)),
        "weights_bytes": zoo.weights_bytes,
        "optimizer_bytes": zoo.optimizer_bytes,
        "layers_weights_bytes": _sum(layer.weights_bytes for layer in report.layers),
        "layers_optimizer_bytes": _sum(layer.optimizer_bytes for layer in report.layers),
        "report_step": report.traced.step if report.traced else None,
        "report_requested_bytes": report.peak.requested_bytes,
        "report_by_category": dict(report.peak.by_category),
        "report_by_layer_bytes": _sum(row.total_bytes for row in report.peak.by_layer),
        "report_coverage": report.coverage,
        "step_s": statistics.median(clock.function_s[step - 1] for step in _ordinary(clock, taken)),
        "ratio": _ratio(clock, taken, taken),
        "profiler_ratio": _ratio(clock, {step for step in bare if step <= len(clock.function_s)}, taken),
        "capture_s": _capture_s(clock, taken),
        "attribution_s": (clock.hooks_s + read_s) / len(steps) if steps else None,
        "fit_s": fit_s,
    }
    return zoo, watch, row


def measure_auto(name: str, mode: str) -> dict[str, Any]:
    """Train a model for an epoch with ``trace="auto"``: what each step took, and what the watch took around it."""
    watch, clock, _ = _fit(build(name, mode), "auto", epochs=1)
    taken = {step.step for step in watch.recording.steps}
    return {
        "step_s": clock.function_s,
        "traced": sorted(taken),
        "ordinary": _ordinary(clock, taken),
        "capture_s": (_capture_s(clock, taken) or 0.0) * len(taken),
        "once_s": clock.hooks_s,
    }


def measure_plain(name: str, mode: str) -> dict[str, Any]:
    """Train a model for an epoch without a watch: what each step took."""
    clock = _Clock()
    build(name, mode).fit(_EPOCH_STEPS, [_First(clock), _Last(clock)], epochs=1)
    return {"step_s": clock.function_s}


def measure_million() -> dict[str, Any]:
    """Train a GRU on so long a series that a step has about a million events; what is measured is scaled to that."""
    layers, watch, clock = keras.layers, MemoryWatch(None, trace=[3], strict=True), _Clock()
    model = keras.Sequential([keras.Input((_LONG, 8)), layers.GRU(16), layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    _time_hooks(watch, clock)
    x, y = np.ones((16, _LONG, 8), np.float32), np.ones((16, 1), np.float32)
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[_First(clock), watch, _Last(clock)])
    begun = time.perf_counter()
    [step] = watch.recording.steps
    read_s = time.perf_counter() - begun
    scale = _MILLION / step.timeline.num_events
    return {
        "events": step.timeline.num_events,
        "step_s": clock.function_s[1],
        "traced_step_s": clock.function_s[2],
        "capture_s": scale * (clock.watch_s(3) - clock.watch_s(2)),
        "attribution_s": scale * (clock.hooks_s + read_s),
    }


def _fit(
    zoo: ZooModel, trace: Any, bare: frozenset[int] = frozenset(), *, epochs: int = _MOST_EPOCHS
) -> tuple[MemoryWatch, _Clock, float]:
    TRACED.clear()  # each fit is to be traced, however many that are alike were before
    clock, watch = _Clock(bare), MemoryWatch(None, trace=trace, strict=True)
    _time_hooks(watch, clock)
    begun = time.perf_counter()
    zoo.fit(_EPOCH_STEPS, [_First(clock), watch, _Last(clock)], epochs=epochs)
    return watch, clock, time.perf_counter() - begun


def _time_hooks(watch: MemoryWatch, clock: _Clock) -> None:
    # What the watch does within a batch is between the other two's clocks.
    for name in ("on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end"):
        setattr(watch, name, _adding(getattr(watch, name), clock))


def _ordinary(clock: _Clock, taken: set[int]) -> list[int]:
    """Steps that are like the traced ones, but for that: neither the first nor early in an epoch."""
    left_out = _not_ordinary(clock, taken)
    steps = range(1, len(clock.function_s) + 1)
    return [step for step in steps if step not in left_out and _compared(step)]


def _not_ordinary(clock: _Clock, taken: set[int]) -> set[int]:
    """Steps that are traced or have a bare profiler, the one after, and the one before that prepares for it.

    What is done between two steps empties the processor's caches, which a step of a few milliseconds feels.
    """
    return {near for step in taken | clock.bare for near in (step, step + 1)} | {step - AHEAD for step in taken}


def _compared(step: int) -> bool:
    return (step - 1) % _EPOCH_STEPS >= _FIRST_COMPARED


def _ratio(clock: _Clock, chosen: set[int], taken: set[int]) -> float | None:
    """Median over chosen steps of what each took, by the median of its epoch's untraced ones."""
    ratios, left_out = [], _not_ordinary(clock, taken)
    for step in chosen:
        epoch = (step - 1) // _EPOCH_STEPS
        steps = range(epoch * _EPOCH_STEPS + 1, (epoch + 1) * _EPOCH_STEPS + 1)
        others = [clock.function_s[other - 1] for other in steps if other not in left_out and _compared(other)]
        ratios.append(clock.function_s[step - 1] / statistics.median(others))
    return statistics.median(ratios) if ratios else None


def _capture_s(clock: _Clock, taken: set[int]) -> float | None:
    """Mean over the traced steps of what the watch took more around them, and before, than around others."""
    steps, left_out = range(1, len(clock.batch_s) + 1), _not_ordinary(clock, taken)
    usual = statistics.median(clock.watch_s(step) for step in steps if step not in left_out)
    # An early step has nothing prepared.
    prepared = {step - AHEAD for step in taken if step > AHEAD}
    more = sum(clock.watch_s(step) - usual for step in taken | prepared)
    return more / len(taken) if taken else None


def _timed(function: Any, clock: _Clock) -> Any:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        capture = Capture()
        if len(clock.function_s) + 1 in clock.bare:
            capture.start()
        begun = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            clock.function_s.append(time.perf_counter() - begun)
            capture.discard()

    return timed


def _adding(hook: Any, clock: _Clock) -> Any:
    def adding(*args: Any, **kwargs: Any) -> None:
        begun = time.perf_counter()
        hook(*args, **kwargs)
        clock.hooks_s += time.perf_counter() - begun

    return adding


def _sum(values: Any) -> int | None:
    known = list(values)
    return None if any(value is None for value in known) else sum(known)
