"""What a recorder tells of its run beside the rows: its description, its layers and its traced steps."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kerasmemwatch.errors import MemWatchError
from kerasmemwatch.faults import Faults
from kerasmemwatch.probes.base import UNKNOWN, Probe
from kerasmemwatch.records.death import Death
from kerasmemwatch.records.growth import Growth, LeakFinding, OwnRise
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.recorded import Recorded
from kerasmemwatch.records.rows import CALL, ENDED, MODEL, Layout, to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.sampling.host_headroom import HostHeadroom
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS, ProbeSet
from kerasmemwatch.sampling.process_exit import store_when_garbage
from kerasmemwatch.storage.run_store import RunStore
from kerasmemwatch.storage.run_writer import RunWriter

__all__ = ["RunRecorder"]

_NEWEST = ("device_in_use_bytes", "host_rss_bytes")


class RunRecorder:
    """Records what belongs to a run as a whole, perhaps before its first row; opens, stores and closes the run."""

    def __init__(
        self,
        probes: Sequence[Probe],
        open_store: Callable[[float, bool], RunStore],
        *,
        clock: Callable[[], float] | None = None,
        strict: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.faults = Faults(strict=strict)  # our own faults; they are the run's notes
        self._probes = ProbeSet(probes, self.faults.report)
        self._open_store = open_store
        self._clock, self._timer = clock or time.time, clock or time.monotonic
        self._run = RunInfo(**{"name": "", "created": UNKNOWN, **(about or {})})
        self._layers: tuple[LayerMemory, ...] = ()
        self._resume = False
        self._step = self._train_step = 0
        self._log: RunWriter | None = None
        self._headroom = HostHeadroom(None, None, self.faults)
        self._early_steps: deque[TracedStep] = deque()
        self._unread: list[float] = []
        self._notes_described = 0
        self._lock = threading.Lock()
        self.dropped = self._replaced = False  # whether nothing more is recorded
        self.has_died = False  # whether a step ran out of memory, and none has ended since

    @property
    def started(self) -> bool:
        """Whether there is a sample."""
        return self._log is not None

    @property
    def step(self) -> int:
        """The highest ``step`` so far."""
        return self._step

    @property
    def has_trained(self) -> bool:
        """Whether a training step has been recorded, perhaps earlier in a run that was continued."""
        return self._train_step > 0

    @property
    def layers(self) -> tuple[LayerMemory, ...]:
        """The model's variables by layer, once they are listed."""
        return self._layers

    @property
    def directory(self) -> str | None:
        """Directory that the run is written to; ``None`` if none."""
        return self._log.directory if self._log is not None else None

    def _open_run(self) -> RunWriter:
        created = self._clock()
        try:
            store = self._open_store(created, self._resume)
        except Exception as error:  # remote file systems raise errors of their own
            self.faults.report("log dir", error, "The run is kept in memory only. Choose another log_dir.")
            store = RunStore(self._run.name or "memory")
        self._unread = [UNKNOWN] * self._probes.slow_size
        layout = (*BASE_COLUMNS, ENDED, CALL, MODEL, *self._probes.layout[len(BASE_COLUMNS) :])
        host = self._probes.facts.get("host", {})
        self._headroom = HostHeadroom(host.get("limit_bytes"), host.get("limit_source"), self.faults)
        store = replace(store, sinks=(*store.sinks, self._headroom))
        log = RunWriter(store, layout, self._probes.slow_size, self.faults, self._clock, self._timer)
        step, train_step = log.last_steps
        self._step += step
        self._train_step += train_step
        previous = store.previous.run
        self._run = replace(
            self._run,
            name=store.name,
            created=previous.created if previous else created,
            devices=tuple(DeviceInfo(**device) for device in self._probes.listed("tensorflow", "devices")),
            host=host,
            drivers=self._probes.listed("nvml", "drivers"),
            notes=(*self._probes.unmeasured, *store.previous.problems),
            deaths=(*(previous.deaths if previous else ()), *self._run.deaths),
            leaks=self._run.leaks or (previous.leaks if previous else ()),
            own_rises=(*(previous.own_rises if previous else ()), *self._run.own_rises),
        )
        self._layers = self._layers or store.previous.layers
        if store.occupied:
            reason = MemWatchError(f"another process or watch is recording the run {store.occupied!r}")
            self.faults.remark("resume", reason, f"It is not continued; recording to a new run, {store.name!r}.")
        self._log = log
        self._describe()
        while self._early_steps:
            log.add_step(self._early_steps.popleft())
        store_when_garbage(self, log)
        return log

    @property
    def run(self) -> RunInfo:
        """The run's description, with the faults so far in its notes."""
        return replace(self._run, notes=(*self._run.notes, *self.faults.notes))

    def describe(self, layers: Sequence[LayerMemory], **about: Any) -> None:
        """Set facts about the model (fields of ``RunInfo``); stored with the next rows."""
        self._layers, self._run = tuple(layers), replace(self._run, **about)
        self._describe()

    def configure(self, **facts: Any) -> None:
        """Add facts to the run's ``configuration``; stored with the next rows."""
        if any(self._run.configuration.get(name) != value for name, value in facts.items()):
            self._run = replace(self._run, configuration={**self._run.configuration, **facts})
            self._describe()

    def add_death(self, death: Death) -> None:
        """Record that a step ran out of memory, and store everything at once: the process may be about to end."""
        self.replace_deaths((*self._run.deaths, death))
        if self._log is not None and not self.dropped:
            self._log.flush(at_once=True)

    def replace_deaths(self, deaths: tuple[Death, ...]) -> None:
        """Set what is known of the steps that ran out of memory; stored soon."""
        self._run = replace(self._run, deaths=deaths)
        self.has_died = bool(deaths) and not deaths[-1].followed
        self._describe()

    def replace_leaks(self, leaks: tuple[LeakFinding, ...]) -> None:
        """Set the causes of growth that are known; stored soon."""
        self._run = replace(self._run, leaks=leaks)
        self._describe()

    def tell_call_growth(self, growth: tuple[Growth, ...], leaks: tuple[LeakFinding, ...]) -> None:
        """Set what grows from call to call of the process, with its causes; stored soon."""
        self._run = replace(self._run, call_growth=growth, leaks=leaks)
        self._describe()

    def add_own_rise(self, rss_bytes: int) -> None:
        """Record that our own look for causes raised RSS after the newest row; stored soon."""
        own_rises = (*self._run.own_rises, OwnRise(self._step, rss_bytes))
        self._run = replace(self._run, own_rises=own_rises)
        self._describe()

    def remark(self, note: str, *, instead_of: str = "") -> None:
        """Add a note on what was done to the run, perhaps instead of an earlier one; stored soon."""
        self._run = replace(self._run, notes=(*(each for each in self._run.notes if each != instead_of), note))
        self._describe()

    def add_step(self, step: TracedStep) -> None:
        """Add a traced step; it is stored soon. Call it between executions, from any thread."""
        if self.dropped:
            return
        if self._log is None:
            self._early_steps.append(step)
        else:
            self._log.add_step(step)

    def expect_steps(self, source: Callable[[], Iterable[TracedStep]]) -> None:
        """Add the traced steps that a function returns; the flush thread calls it soon."""
        if self.dropped:
            return
        if self._log is None:
            self._early_steps.extend(source())
        else:
            self._log.expect_steps(source)

    def _describe(self) -> None:
        self._notes_described = len(self.faults.notes)
        if self._log is not None:
            self._log.describe(self.run, self._layers)

    def _describe_faults(self) -> None:
        """Store new faults, so that readers see them too."""
        if len(self.faults.notes) != self._notes_described:
            self._describe()

    def snapshot(self) -> Recorded:
        """Return everything recorded so far."""
        steps = self._log.steps() if self._log else tuple(self._early_steps)
        return Recorded(self.run, to_samples(self._log.parts() if self._log else ()), self._layers, steps)

    def samples(self) -> Samples:
        """Return the rows recorded so far, without waiting for traced steps."""
        return to_samples(self._log.parts() if self._log else ())

    def epoch_bytes(self) -> dict[str, float]:
        """Highest device peak since the last call, newest in-use bytes and RSS; unknown figures are left out.

        Maxima over devices: over those that count every allocation, if there are any.
        """
        if self._log is None:
            return {}
        exact = [index for index, device in enumerate(self._run.devices) if device.counting == "exact"]
        highest, newest = self._log.recent(exact)
        peak = np.fmax(highest.get("device_peak_bytes", UNKNOWN), highest.get("device_between_peak_bytes", UNKNOWN))
        found = {"device_peak_bytes": peak, **{name: newest.get(name, UNKNOWN) for name in _NEWEST}}
        return {name: float(value) for name, value in found.items() if value == value}

    def newest(self, count: int = 16) -> tuple[Layout, Any]:
        """Columns and newest rows of the current fit, newest last."""
        return ((), []) if self._log is None else (self._log.layout, self._log.newest(count))

    def flush(self) -> None:
        """Store everything recorded so far."""
        if self._log is not None and not self.dropped:
            self._log.flush()

    def drop(self) -> None:
        """Record nothing more, as in a forked child; earlier records stay readable."""
        self.dropped = True
        self._lock = threading.Lock()  # another thread of the parent may hold the old one
        if self._log is not None:
            self._log.disown()

    def regain(self) -> bool:
        """Continue recording; return ``False`` if another recorder has continued the run since it was stored."""
        return self._log is None or self._log.regain()

    def release(self) -> None:
        """Store everything and record nothing more, because another recorder continues the run."""
        self.close()
        self._replaced = True
        self.drop()

    def close(self) -> None:
        """Store everything and release all resources."""
        if self.dropped:
            return
        if self._log is not None:
            self._describe_faults()
            self._log.close()
        self._probes.close()
