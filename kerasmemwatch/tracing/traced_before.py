"""What fits of this process had traced, for later ones that are alike, so that all tracing takes little of the time.

The first two fits of a kind are traced. A later one is if that is affordable; else it shows what was traced before.
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

from kerasmemwatch.analysis.live_set import requested_at
from kerasmemwatch.errors import RecordingFormatError
from kerasmemwatch.records.timeline import Timeline, TracedStep
from kerasmemwatch.storage.codecs.step_codec import decode_step, encode_step
from kerasmemwatch.tracing.schedule import CHANGED

__all__ = ["TRACED", "TRACED_SHARE", "Fit", "TracedBefore"]

# Tracing may take this share of the time since the first watched fit, once two of a kind were traced.
TRACED_SHARE = 0.01
_ALWAYS_TRACED = 2
_MOST_KINDS = 16
# What the allocator rounds up and leaves unused is another in each fit: as much as this in a small model.
_ROUNDED_BYTES = 2**16
# A fit in another thread may have steps that are being analysed: so long they are waited for, by who stores.
_MOST_WAIT_S = 5.0


@dataclass
class _Kind:
    """Fits that are alike, and what the newest that was traced left: its steps, encoded."""

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
    """The kinds of fits of a process, the newest few.

    Args:
        share: Of the time, at most, that tracing may take.
        clock: Returns seconds.
    """

    def __init__(self, share: float = TRACED_SHARE, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self.changed = threading.Condition()
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._begun_s: float | None = None
        self._num_traced = 0
        self.cost_s = 0.0

    def clear(self) -> None:
        """Forget all, as in a forked child, where no thread will analyse what is waited for."""
        self.__init__(self._share, self._clock)  # type: ignore[misc]

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Do something that tracing takes, and note how long that is."""
        begun = self._clock()
        if self._begun_s is None:
            self._begun_s = begun
        try:
            yield
        finally:
            with self.changed:
                self.cost_s += self._clock() - begun

    def around(self, context: AbstractContextManager[None]) -> AbstractContextManager[None]:
        """The same context, with its begin and its end noted as what tracing takes, and not what is within."""
        return _Around(self, context)

    @property
    def is_affordable(self) -> bool:
        """Whether one more fit may be traced; the first few always may."""
        if self._num_traced < _ALWAYS_TRACED:
            return True
        now = self._clock()
        expected = self.cost_s / max(1, self._num_traced)
        return self.cost_s + expected <= self._share * (now - (now if self._begun_s is None else self._begun_s))

    def begin(self, kind: Hashable, paths: Sequence[str], source: object) -> Fit:
        """A fit begins.

        Args:
            kind: What makes fits alike.
            paths: Its layers' paths, in an order that is the same for all of a kind.
            source: Whose recording it is in; the same object for fits of one recording.
        """
        with self.changed:
            now = self._clock()
            self._begun_s = now if self._begun_s is None else self._begun_s
            found = self._kinds.setdefault(kind, _Kind())
            self._kinds.move_to_end(kind)
            while len(self._kinds) > _MOST_KINDS:
                self._kinds.popitem(last=False)
            found.num_fits += 1
            is_known = bool(found.payloads or found.pending) and not found.is_doubtful
            reuses = found.num_fits > _ALWAYS_TRACED and not self.is_affordable and is_known
            found.is_doubtful = False
            self._num_traced += not reuses
            return Fit(self, found, found.num_fits, tuple(paths), source, reuses)


@dataclass(eq=False)
class Fit:
    """One stage of a fit, among others of its kind.

    Attributes:
        reuses: Whether it is to show what another had traced, rather than be traced.
        run: Name of its recording, ``""`` if it has none.
    """

    _all: TracedBefore
    _kind: _Kind
    _number: int
    _paths: tuple[str, ...]
    _source: object
    reuses: bool
    run: str = ""

    def expect(self) -> None:
        """A step was captured; ``add`` is called once it has been analysed."""
        with self._all.changed:
            self._kind.pending += 1

    def add(self, step: TracedStep | None) -> None:
        """Keep a traced step of this fit for later ones, unless it was to be shown another's.

        Args:
            step: The step; ``None`` if the analysis found nothing.
        """
        payload, peak = b"", 0.0
        try:
            # A fit that was not meant to be traced had no hooks in time, so its step tells less.
            if step is not None and not self.reuses:
                payload, peak = encode_step(step), float(requested_at(step.timeline).max())
        except RecordingFormatError:
            pass  # it is too large for a recording, too, which says so
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
        """Note how far the steps' peaks are above what stays in use, in bytes."""
        with self._all.changed:
            self._kind.height = height

    def differs(self, height: float) -> str:
        """How this fit's peaks differ from those of the steps it shows: ``"higher"``, ``"lower"``, or not at all.

        If they do, the next fit of this kind is traced.
        """
        kind = self._kind
        # By as much as makes a step worth tracing within a fit. What else the process holds is another each time.
        most = max(_ROUNDED_BYTES, np.fmin(CHANGED[1] * kind.height, CHANGED[0] * kind.peak_bytes))
        if not abs(height - kind.height) > most:
            return ""
        kind.is_doubtful = True
        return "higher" if height > kind.height else "lower"

    def steps(self) -> list[TracedStep]:
        """The steps that the newest traced fit of this kind left, with this fit's paths, and what says whose they are.

        None if they are in this fit's recording. Waits for those that are being analysed.
        """
        kind = self._kind
        with self._all.changed:
            self._all.changed.wait_for(lambda: not kind.pending, _MOST_WAIT_S)
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
        f"What layers hold was not measured in this fit but in step {step.step} {where}, whose model, shapes, "
        "optimizer and batch are the same: fits that are alike share what tracing may take of the process's time. "
        "To have this fit's own steps traced, name them: trace=[2, 10]."
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
