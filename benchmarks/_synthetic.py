"""A run of the real recorder with made-up time and made-up figures that look like a real run's."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from _synthetic_step import synthetic_step

from kerasmemwatch.probes.base import Probe
from kerasmemwatch.records.samples import Column
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.storage.run_store import open_store

__all__ = ["PLANTED_BYTES", "SyntheticRun"]

_EPOCH_STEPS = 2_000
_STEP_S, _JITTER_S = 0.005, 0.0004
# What reading unique bytes was measured to take in a process with TensorFlow.
_SLOW_READ_S = 0.012
_CHUNK, _PAGE = 256, 4096
_MIB = 2**20
PLANTED_BYTES = 7 * 1024 * _MIB + 256


class _Clock:
    def __init__(self) -> None:
        self.now_s = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now_s


class _Device:
    """One allocator: in use at about 400 MiB, peaks at about twice that, all moving by a few percent."""

    name = "tensorflow"
    columns = (
        Column("device_in_use_bytes", 1),
        Column("device_peak_bytes", 1),
        Column("device_between_peak_bytes", 1),
    )
    slow_columns: tuple[Column, ...] = ()
    facts: dict[str, object] = {"devices": [{"name": "CPU:0"}]}  # noqa: RUF012 -- as the protocol has it

    def __init__(self, rng: random.Random, planted_step: int) -> None:
        self._random, self._planted, self._step = rng.random, planted_step, 0

    def open(self) -> None:
        """Nothing to open."""

    def batch_begin(self) -> None:
        """Nothing to reset."""

    def batch_end(self) -> Sequence[float]:
        """Make a row up."""
        self._step += 1
        peak = PLANTED_BYTES if self._step == self._planted else self._around(800 * _MIB)
        return (self._around(400 * _MIB), peak, self._around(430 * _MIB))

    def epoch_end(self) -> Sequence[float]:
        """Nothing slow."""
        return ()

    def close(self) -> None:
        """Nothing to close."""

    def _around(self, middle: int) -> float:
        return float(int(middle * (0.97 + 0.06 * self._random())) // _CHUNK * _CHUNK)


class _Host:
    """Resident bytes as a random walk of pages."""

    name = "host"
    columns = (Column("host_rss_bytes"),)
    slow_columns = (Column("host_rss_peak_bytes"), Column("host_uss_bytes"), Column("host_children_uss_bytes"))
    facts: dict[str, object] = {}  # noqa: RUF012 -- as the protocol has it

    def __init__(self, rng: random.Random, clock: _Clock) -> None:
        self._randrange, self._clock = rng.randrange, clock
        self._rss = self._peak = 900 * _MIB // _PAGE * _PAGE

    def open(self) -> None:
        """Nothing to open."""

    def batch_begin(self) -> None:
        """Nothing to reset."""

    def batch_end(self) -> Sequence[float]:
        """Take one step of the walk."""
        self._rss += _PAGE * self._randrange(-20, 21)
        self._peak = max(self._peak, self._rss)
        return (float(self._rss),)

    def epoch_end(self) -> Sequence[float]:
        """Take as long as the real reading does."""
        self._clock.now_s += _SLOW_READ_S
        return (float(self._peak), float(self._rss - 200 * _MIB), 0.0)

    def close(self) -> None:
        """Nothing to close."""


class SyntheticRun:
    """A fit of so many steps.

    Args:
        steps: Number of steps.
        seed: What the figures are made from.
        log_dir: Where the recorder writes.

    Attributes:
        planted_step: The step whose peak is ``PLANTED_BYTES``, far above all others.
    """

    def __init__(self, steps: int, seed: int, log_dir: str) -> None:
        self._random = random.Random(seed)
        self.planted_step = self._random.randint(1, steps)
        self._left, self._epoch, self._clock = steps, 0, _Clock()
        probes: list[Probe] = [_Device(self._random, self.planted_step), _Host(self._random, self._clock)]
        self._recorder = Recorder(
            probes,
            lambda created, resume: open_store(log_dir, None, created=created, resume=resume),
            clock=self._clock,
            strict=True,
        )
        self._recorder.begin_stage("train")

    def epochs(self) -> Iterator[int]:
        """Numbers of the epochs that are still to be driven."""
        while self._left:
            yield self._epoch

    def drive_epoch(self) -> None:
        """Drive one epoch, the last perhaps shorter."""
        recorder, clock, gauss = self._recorder, self._clock, self._random.gauss
        steps = min(self._left, _EPOCH_STEPS)
        recorder.begin_epoch(self._epoch)
        for batch in range(steps):
            recorder.batch_begin()
            clock.now_s += max(_STEP_S / 2, gauss(_STEP_S, _JITTER_S))
            recorder.batch_end(batch)
        recorder.end_epoch()
        self._left -= steps
        self._epoch += 1

    def trace(self, num_events: int) -> None:
        """Have the newest step traced, with so many births and deaths of buffers."""
        recorder = self._recorder
        recorder.add_step(synthetic_step(num_events, recorder.step, recorder.epoch, self._clock.now_s))

    def finish(self) -> None:
        """End the fit and close its files."""
        self._recorder.end_stage()
        self._recorder.close()
