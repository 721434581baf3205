"""Capturing of steps and gaps, and the queue of captures that wait for analysis.

A process has one capture at a time. Callers run the analysis later, off the step's path.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from kerasmemwatch.attribution import silent_allocators
from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.events.profiler_capture import Capture, ProfilerBusyError, ProfilerUnsafeError
from kerasmemwatch.attribution.function_constants import FirstCalls
from kerasmemwatch.attribution.hooks.layer_hooks import LayerHooks
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.hooks.variable_sightings import variable_sightings
from kerasmemwatch.attribution.live.earlier_models import unwatched_buffers
from kerasmemwatch.attribution.live.earlier_tensors import earlier_tensors
from kerasmemwatch.attribution.live.iterator_buffers import not_repeated, waiting_bytes
from kerasmemwatch.attribution.live.live_buffers import (
    as_input,
    tensor_kind,
    variable_addresses,
    variable_buffers,
)
from kerasmemwatch.attribution.live.persistent_tapes import kept_bytes
from kerasmemwatch.attribution.live.pipeline_arrays import kept_arrays
from kerasmemwatch.attribution.owners.categories import PHASE_CODES
from kerasmemwatch.attribution.step_attribution import AnalysisCache, analysed
from kerasmemwatch.attribution.variables.live_objects import Census
from kerasmemwatch.attribution.variables.watched import Watched
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.owners import EARLIER_MODELS, INPUT_PIPELINE, KEPT_TAPES
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.tracing.traced_before import TRACED

__all__ = ["Captures"]

# Holder of the hooks, by process. Hooks are in classes and modules, so there is one holder at a time.
_hooking: dict[int, Captures] = {}


class Captures:
    """Captures steps and gaps of one watch, one at a time.

    Args:
        watched: The watched models.
        stack: State that the hooks maintain.
        faults: Where faults are reported.

    Attributes:
        busy: Whether a capture failed because another profiler was active.
        first_calls: Captures of the steps that make functions.
    """

    def __init__(self, watched: Watched, stack: OwnerStack, faults: Faults) -> None:
        self.busy = False
        self.first_calls = FirstCalls(stack, faults)
        self._watched, self._stack, self._faults = watched, stack, faults
        self._census: Census | None = None
        self._waiting: deque[CapturedStep] = deque()
        self._cache = AnalysisCache()

    @property
    def is_free(self) -> bool:
        """Whether nothing in this process is tracing."""
        return os.getpid() not in _hooking

    def look_around(self) -> None:
        """List live objects ahead of a capture, because doing so empties the processor's caches."""
        with TRACED.taken(), self._faults.guard("trace", "The step is traced nevertheless."):
            if self._census is None or not self._census.is_current:
                self._census = Census(tensor_kind)

    def look_away(self) -> None:
        """Drop the list of live objects: no step will be captured soon."""
        self._census = None

    def claim(self, exits: ExitStack) -> bool:
        """Claim tracing in this process until ``exits`` closes; return ``False`` if another tracer has it."""
        pid = os.getpid()
        if _hooking.setdefault(pid, self) is not self:
            return False
        exits.callback(_hooking.pop, pid, None)
        return True

    def begin(
        self, captured: CapturedStep, arguments: Iterable[Any], exits: ExitStack, *, is_fit: bool
    ) -> Capture | None:
        """Note live buffers and begin to record; ``None`` if another profiler is active.

        Args:
            captured: Receives the live buffers.
            arguments: Possible iterators with waiting batches.
            exits: Closed when the recorded step or gap has ended.
            is_fit: Whether ``arguments`` include every new iterator.
        """
        found = self._found(arguments, is_fit=is_fit)
        iterators = found["iterator"]
        captured.earlier = earlier_tensors(found["tensor"], iterators)
        captured.before = variable_addresses(self._watched.ledger(), captured.mode)
        captured.known = kept_arrays(iterators)
        # Last, because pipelines keep filling their buffers.
        captured.held = {KEPT_TAPES: kept_bytes(), INPUT_PIPELINE: waiting_bytes(iterators)}
        capture = Capture()
        try:
            capture.start()
        except ProfilerBusyError as error:
            self.give_way(error)
            return None
        except ProfilerUnsafeError as error:
            self._faults.remark("trace", error, "No step is traced. To trace one, run a worker by itself.")
            return None
        exits.callback(capture.discard)
        captured.begun_ns = time.time_ns()
        captured.sightings = exits.enter_context(variable_sightings(captured.before, self._watched, self._faults))
        return capture

    def end(self, captured: CapturedStep, capture: Capture) -> bool:
        """Stop and keep the recorded events; return ``False`` if another profiler has begun meanwhile."""
        captured.space = capture.stop() or b""
        if capture.preempted:
            self.give_way(ProfilerBusyError("another profiler session began within the step"))
        return bool(captured.space)

    def complete(self, captured: CapturedStep) -> None:
        """Note live buffers after the capture, and queue it for the next call of ``finished``."""
        census = self._census
        captured.layers = captured.layers or LayerHooks(self._stack, self._watched).classes
        self._watched.add_variables(self._stack.differentiated())
        captured.optimizers = tuple(str(optimizer.name) for optimizer in self._watched.optimizers())
        captured.known += variable_buffers(self._watched.ledger(), captured.before, captured.mode)
        keys = {buffer.key for buffer in captured.known} - {0}
        alive = None if census is None else census.again()
        others = unwatched_buffers(alive, keys)
        captured.held[EARLIER_MODELS] = others.constant_bytes
        sources = [buffer.bytes for buffer in others.buffers if buffer.category == "inputs"]
        captured.held[INPUT_PIPELINE] = not_repeated(captured.held[INPUT_PIPELINE], sources, captured.batch)
        captured.known += [
            as_input(buffer) if buffer.address in captured.arguments else buffer for buffer in others.buffers
        ]
        if captured.is_first:
            self.first_calls.keep(captured.space, {buffer.address for buffer in captured.known})
        if captured.fit is not None:
            captured.fit.expect()
        self._waiting.append(captured)

    def finished(self) -> list[TracedStep]:
        """Analyse the queued captures. Call it from any thread, one at a time; other steps may run with hooks."""
        found = []
        while self._waiting:
            captured = self._waiting[0]
            step = None
            with TRACED.taken(), self._faults.guard("trace", "This step's memory is not attributed."):
                step = analysed(captured, self._stack, self._cache, self.first_calls.kept())
                if step is not None:
                    found.append(step if captured.after is None else _gap(step, captured.after))
                else:
                    silent_allocators.remark(self._faults, captured.known)
            fit, captured.fit = captured.fit, None
            if fit is not None:
                with TRACED.taken(), self._faults.guard("trace", "Equivalent fits are traced, too."):
                    fit.add(step)
            self._waiting.popleft()  # not after a KeyboardInterrupt: a later call analyses it then
        return found

    def _found(self, arguments: Iterable[Any], *, is_fit: bool) -> dict[str, list[Any]]:
        """Find iterators and tensors with as little searching as possible, to spare the caches; in a fit no tensors."""
        census = self._census
        if census is None:
            self._census = census = Census(tensor_kind)
        if is_fit:  # the only new iterators are the function's arguments
            new = [each for each in arguments if tensor_kind(type(each)) == "iterator"]
            return {"iterator": _distinct([*census.left("iterator"), *new]), "tensor": []}
        young = census.young()
        return {kind: _distinct([*census.left(kind), *young[kind]]) for kind in ("iterator", "tensor")}

    def give_way(self, error: ProfilerBusyError) -> None:
        """Report once that another profiler is active."""
        self.busy = True
        self._faults.remark("profiler", error, "That step was not traced. Unless it was asked for, a later one is.")


def _distinct(objects: Iterable[Any]) -> list[Any]:
    return list({id(each): each for each in objects}.values())


def _gap(step: TracedStep, after: int) -> TracedStep:
    """Convert a capture between two steps to a gap, which has no passes or layer outputs."""
    phase = np.full_like(step.timeline.phase, PHASE_CODES["between"])
    timeline = replace(step.timeline, phase=phase)
    return replace(step, timeline=timeline, mode="", output_bytes={}, gradient_bytes={}, after=after)
