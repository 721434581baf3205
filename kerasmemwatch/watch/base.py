"""The common part of ``MemoryWatch`` and ``MemorySession``: a recorder, a tracer and the recording."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from typing import Any

from kerasmemwatch.attribution.variables.inventory import VariableMemory
from kerasmemwatch.attribution.variables.watched_models import with_covered_share
from kerasmemwatch.errors import MemWatchError
from kerasmemwatch.faults import Faults
from kerasmemwatch.leaks.release import DeadModels
from kerasmemwatch.recording import Recording
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.reports.report import Report
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.storage.sinks.tensorboard import SCALARS, partial_tag
from kerasmemwatch.switches import disabled
from kerasmemwatch.tracing.controller import Tracing
from kerasmemwatch.units import MIB
from kerasmemwatch.watch.factory import new_leak_search, new_recorder, new_tracing
from kerasmemwatch.watch.known_fills import KnownFills
from kerasmemwatch.watch.options import Options
from kerasmemwatch.watch.search.leak_search import LeakSearch, raise_leaks

__all__ = ["Watcher", "current"]


class Watcher:
    """Records; derived classes tell it when a batch begins and ends."""

    _options: Options

    def _set_up(self, options: Options) -> None:
        self._options = options
        # For faults outside a recorder, which has its own.
        self._faults = Faults(strict=options.strict)
        self._recorder: Recorder | None = None
        self._tracing: Tracing | None = None
        self._leak_search: LeakSearch | None = None
        self._kept: Recording | None = None
        self._dead_models = DeadModels() if options.release_dead_models else None
        self._fills = KnownFills()

    @property
    def recording(self) -> Recording:
        """The recording so far, at any time; empty before the first batch."""
        return self._so_far()

    def _so_far(self) -> Recording:
        if self._recorder is not None and self._recorder.started:
            return Recording(**vars(self._recorder.snapshot()))
        return self._kept or Recording(RunInfo(self._options.run_name or "", float("nan")), to_samples(()))

    @property
    def report(self) -> Report:
        """What the recording says; ``print`` it."""
        return self.recording.report

    @property
    def active(self) -> bool:
        """Whether something is being recorded."""
        return self._recorder is not None and self._recorder.active and not self._recorder.dropped

    @property
    def resets_each_step(self) -> bool:
        """Whether the allocators' peaks are reset as each step begins."""
        return self._options.reset_peak and self._options.sample_every == 1

    def _start(self) -> bool:
        """Make a recorder if needed; ``False`` if every watch is turned off."""
        if disabled():
            self._kept, self._recorder, self._tracing, self._leak_search = self.recording, None, None, None
            return False
        before = self._recorder
        is_lost = before is not None and not before.dropped and not before.regain()
        if before is None or before.dropped or is_lost:
            self._recorder = new_recorder(self._options)
            self._fills = KnownFills()
            self._tracing = new_tracing(self._options, self._recorder)
            self._leak_search = new_leak_search(self._options, self._recorder)
            if before is not None and is_lost:
                before.drop()
                reason = MemWatchError(f"another process has continued the run {before.run.name!r}")
                self._recorder.faults.remark("resume", reason, "What comes now is recorded as a run of its own.")
        elif self._leak_search is not None:
            self._leak_search.begin()
        for other in [reference() for reference in _begun]:
            if other is not None and other is not self and other.active:
                other._give_way()
        _begun[:] = [reference for reference in _begun if reference() not in (self, None)]
        _begun.append(weakref.ref(self))
        return True

    def _give_way(self) -> None:
        """Called when another watcher begins to record."""

    def _tape_left(self, error: BaseException) -> None:
        """Called when an exception leaves one of this watcher's tapes, or its gradient call."""

    def _search_leaks(self, model: Any = None, *, is_end: bool = False) -> None:
        """Called at the ends of epochs, calls and sessions, in the caller's stack."""
        if self._leak_search is not None:
            self._leak_search.search(sys._getframe(1), model, is_end=is_end)

    def _all_ended(self) -> None:
        """Called when a stage has ended, of which others may be left."""
        if self._leak_search is not None and not (self._recorder is not None and self._recorder.active):
            self._leak_search.ended()

    def _raise_leaks(self) -> None:
        """Called when a stage has ended; raises what was found, if that is wanted and no stage is left."""
        recorder = self._recorder
        if self._options.detect_leaks == "raise" and recorder is not None and not recorder.active:
            raise_leaks(recorder.run.leaks)

    @staticmethod
    def _batch_ended(tracing: Tracing, recorder: Recorder) -> None:
        """Called after the row of an execution, which may have been traced, is written."""
        if tracing.batch_ended(recorder.step, recorder.epoch):
            recorder.expect_steps(tracing.analyse)

    @staticmethod
    def _describe(recorder: Recorder, variables: Sequence[VariableMemory], layers: Sequence[LayerMemory]) -> None:
        """Record the variables, and what share of them a partial count covers."""
        devices = tuple(with_covered_share(device, variables) for device in recorder.run.devices)
        recorder.describe(layers, devices=devices)

    def _epoch_logs(self) -> dict[str, float]:
        recorder = self._recorder
        if recorder is None:
            return {}
        with recorder.faults.guard("epoch logs", "They lack memory."):
            devices = recorder.run.devices
            whole = not devices or any(device.counting == "exact" for device in devices)
            found = {SCALARS[name][0]: value / MIB for name, value in recorder.epoch_bytes().items()}
            return found if whole else {partial_tag(name): value for name, value in found.items()}
        return {}


_begun: list[weakref.ref[Watcher]] = []


def current() -> Watcher | None:
    """The recording watcher that began last; ``None`` if none is recording."""
    for reference in reversed(_begun):
        watcher = reference()
        if watcher is not None and watcher.active:
            return watcher
    return None
