"""Traced steps of this process's fits, shown again for later equivalent fits to limit the cost of tracing.

The first two fits of a kind are traced. A later one is traced if that is affordable; otherwise it shows earlier steps.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType

import numpy as np

from kerasmemwatch.analysis.steps.live_set import requested_at
from kerasmemwatch.errors import RecordingFormatError
from kerasmemwatch.records.timeline import Timeline, TracedStep
from kerasmemwatch.storage.codecs.step_codec import decode_step, encode_step
from kerasmemwatch.tracing.schedule import CHANGED

__all__ = ["TRACED", "TRACED_SHARE", "Fit", "TracedBefore"]

# Tracing may take this share of the time since the first watched fit, once two fits of a kind were traced.
TRACED_SHARE = 0.01
_ALWAYS_TRACED = 2
_MAX_KINDS = 16
# The allocator's rounding and unused space vary between fits: by this much in a small model.
_ROUNDED_BYTES = 2**16
# How long the flush thread waits for steps of another thread's fit that are being analysed.
_MAX_WAIT_S = 5.0


@dataclass
class _Kind:
    """Equivalent fits, with the encoded steps of the newest one that was traced."""

    num_fits: int = 0
    is_doubtful: bool = False
    pending: int = 0
    number: int = 0
    source: object = None
    run: str = ""
    paths: Sequence[str] = ()
    payloads: list[bytes] = field(default_factory=list)
    peak_bytes: float = float("nan")
    height: float = float("nan")


class TracedBefore:
    """The process's most recent kinds of fits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.changed = threading.Condition()
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._begun_s: float | None = None
        self._num_traced = 0
        self.cost_s = 0.0

    def clear(self) -> None:
        """Forget everything, as in a forked child, where no thread will finish pending analyses."""
        self.__init__(self._clock)  # type: ignore[misc]

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Run a part of tracing and record how long it takes."""
        begun = self._clock()
        if self._begun_s is None:
            self._begun_s = begun
        try:
            yield
        finally:
            with self.changed:
                self.cost_s += self._clock() - begun

    def around(self, context: AbstractContextManager[None]) -> AbstractContextManager[None]:
        """Wrap a context so that the time of entering and leaving it counts as tracing, its body's does not."""
        return _Around(self, context)

    @property
    def is_affordable(self) -> bool:
        """Whether another fit may be traced; the first few always may."""
        if self._num_traced < _ALWAYS_TRACED:
            return True
        now = self._clock()
        expected = self.cost_s / max(1, self._num_traced)
        return self.cost_s + expected <= TRACED_SHARE * (now - (now if self._begun_s is None else self._begun_s))

    def begin(self, kind: Hashable, paths: Sequence[str], source: object) -> Fit:
        """Begin a fit.

        Args:
            paths: Its layers' paths, in the same order for all fits of a kind.
            source: Identifies its recording: the same object for all fits of one recording.
        """
        with self.changed:
            now = self._clock()
            self._begun_s = now if self._begun_s is None else self._begun_s
            found = self._kinds.setdefault(kind, _Kind())
            self._kinds.move_to_end(kind)
            while len(self._kinds) > _MAX_KINDS:
                self._kinds.popitem(last=False)
            found.num_fits += 1
            is_known = bool(found.payloads or found.pending) and not found.is_doubtful
            reuses = found.num_fits > _ALWAYS_TRACED and not self.is_affordable and is_known
            found.is_doubtful = False
            self._num_traced += not reuses
            return Fit(self, found, found.num_fits, tuple(paths), source, reuses)


@dataclass(eq=False)
class Fit:
    """One stage of a fit, among equivalent ones."""

    _all: TracedBefore
    _kind: _Kind
    _number: int
    _paths: tuple[str, ...]
    _source: object
    reuses: bool  # whether to show an equivalent fit's steps rather than trace this one
    run: str = ""  # name of its recording, `""` if it has none

    def expect(self) -> None:
        """Announce a captured step; ``add`` is called once it has been analysed."""
        with self._all.changed:
            self._kind.pending += 1

    def add(self, step: TracedStep | None) -> None:
        """Keep a traced step of this fit for later fits, unless this fit was to show another's."""
        payload, peak = b"", 0.0
        try:
            # A fit that was not meant to be traced had no hooks in time, so its step is less detailed.
            if step is not None and not self.reuses:
                payload, peak = encode_step(step), float(requested_at(step.timeline).max())
        except RecordingFormatError:
            pass  # it is too large for a recording, too, which reports that
        finally:
            with self._all.changed:
                kind = self._kind
                kind.pending -= 1
                if payload and self._number > kind.number:
                    kind.number, kind.source, kind.run, kind.paths = self._number, self._source, self.run, self._paths
                    kind.payloads, kind.peak_bytes = [], peak
                if payload and self._number == kind.number:
                    kind.payloads.append(payload)
                    kind.peak_bytes = max(kind.peak_bytes, peak)
                self._all.changed.notify_all()

    def usual(self, height: float) -> None:
        """Set the height of the steps' peaks above the bytes in use, in bytes."""
        with self._all.changed:
            self._kind.height = height

    def differs(self, height: float) -> str:
        """Compare this fit's peaks with those of the steps it shows: ``"higher"``, ``"lower"``, or ``""`` if alike.

        If they do, the next fit of this kind is traced.
        """
        kind = self._kind
        # The same change that makes a step worth tracing within a fit. Other memory of the process varies each time.
        most = max(_ROUNDED_BYTES, np.fmin(CHANGED[1] * kind.height, CHANGED[0] * kind.peak_bytes))
        if not abs(height - kind.height) > most:
            return ""
        kind.is_doubtful = True
        return "higher" if height > kind.height else "lower"

    def steps(self) -> list[TracedStep]:
        """Steps of the newest traced fit of this kind, with this fit's paths and a note on their origin.

        Empty if they are in this fit's own recording. Waits for steps that are being analysed.
        """
        kind = self._kind
        with self._all.changed:
            self._all.changed.wait_for(lambda: not kind.pending, _MAX_WAIT_S)
            source, run, paths, payloads = kind.source, kind.run, kind.paths, list(kind.payloads)
        if source is self._source:
            return []
        names = dict(zip(paths, self._paths, strict=False))
        with self._all.taken():
            return [_as_of(decode_step(payload), run, names) for payload in payloads]


class _Around:
    def __init__(self, all_: TracedBefore, context: AbstractContextManager[None]) -> None:
        self._all, self._context = all_, context

    def __enter__(self) -> None:
        with self._all.taken():
            self._context.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with self._all.taken():
            return self._context.__exit__(kind, error, trace)


def _as_of(step: TracedStep, run: str, names: Mapping[str, str]) -> TracedStep:
    head, *others = (_renamed(timeline, names) for timeline in (step.timeline, *step.others))
    where = f"of run {run!r}" if run else "of an earlier fit"
    note = (
        f"The memory of layers was measured not in this fit but in step {step.step} {where}, with the same model, "
        "shapes, optimizer and batch: equivalent fits share traces, to limit the cost of tracing. "
        "To trace this fit's own steps, name them: trace=[2, 10]."
    )
    return replace(
        step,
        timeline=head,
        others=tuple(others),
        output_bytes=_with_paths(step.output_bytes, names),
        gradient_bytes=_with_paths(step.gradient_bytes, names),
        notes=(note, *step.notes),
        measured_in=run,
    )


def _renamed(timeline: Timeline, names: Mapping[str, str]) -> Timeline:
    owners = tuple(
        names.get(path, path) if class_name else path
        for path, class_name in zip(timeline.owners, timeline.classes, strict=True)
    )
    return replace(timeline, owners=owners, gradient_bytes=_with_paths(timeline.gradient_bytes, names))


def _with_paths(sizes: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    return {names.get(path, path): size for path, size in sizes.items()}


TRACED = TracedBefore()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TRACED.clear)
