"""The traced steps of one run: as they came, until a thread has encoded them; from then on as bytes.

Most of them come of an analysis that takes a while: the thread that stores runs it, or whoever wants the steps first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from kerasmemwatch.analysis.live_set import requested_at
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.storage.codecs.step_codec import decode_step, encode_step

__all__ = ["MOST_STEPS", "StepLog"]

# So many are kept in memory; older ones are on disk only.
MOST_STEPS = 64


class StepLog:
    """Takes traced steps from any thread without making it wait, and keeps them small.

    Args:
        faults: Where faults are reported.
        previous: Steps that an earlier process stored, encoded, in order.
        next_number: Number within the run of the next one.
    """

    def __init__(self, faults: Faults, previous: Sequence[bytes] = (), next_number: int = 0) -> None:
        self._faults = faults
        self._fresh: deque[TracedStep] = deque()
        self._expected: deque[Callable[[], Iterable[TracedStep]]] = deque()
        self._raised: Exception | None = None
        self._collecting = threading.RLock()  # held while steps are analysed: whoever wants them waits
        self._kept: list[bytes] = list(previous)
        self._next_number = next_number
        self._lock = threading.Lock()  # held while a step changes from one form to the other, not while it is encoded

    def add(self, step: TracedStep) -> None:
        """Take a step."""
        self._fresh.append(step)

    def expect(self, source: Callable[[], Iterable[TracedStep]]) -> None:
        """Take the steps that a function returns; it may take a while, and is called by ``collect``."""
        self._expected.append(source)

    def collect(self, *, strict: bool = True) -> None:
        """Have the steps that are expected.

        Args:
            strict: Whether to raise what a function raises, now or in an earlier call that was not strict. A thread
                has nobody to raise it to.
        """
        with self._collecting:
            while self._expected:
                try:
                    self._fresh.extend(self._expected[0]())
                except Exception as error:
                    self._raised = error
                self._expected.popleft()  # not after an interrupt of the user's: then another call has them
            raised = self._raised
            if strict and raised is not None:
                self._raised = None
                raise raised

    def encode(self) -> tuple[tuple[int, bytes], ...]:
        """Encode the steps that came since the last call: their numbers and bytes. Called by one thread at a time."""
        found = []
        for _ in range(len(self._fresh)):
            payload = b""
            try:
                payload = encode_step(self._fresh[0])
            except Exception as error:
                self._faults.report("traced step", error, "It is missing from the recording.")
            finally:
                with self._lock:
                    self._fresh.popleft()
                    self._kept += [payload] if payload else []
            if payload:
                found.append((self._next_number, payload))
                self._next_number += 1
        self._trim()
        return tuple(found)

    def steps(self) -> tuple[TracedStep, ...]:
        """The newest steps, in order, and before them the one with the highest peak of all."""
        with self._lock:
            kept, fresh = list(self._kept), list(self._fresh)
        return (*map(decode_step, kept), *fresh)

    def disown(self) -> None:
        """Keep what there is readable after a fork, where another thread of the parent may hold a lock."""
        self._lock, self._collecting = threading.Lock(), threading.RLock()

    def _trim(self) -> None:
        while len(self._kept) > MOST_STEPS:
            # The higher of the two oldest stays, so the highest of all is never let go.
            lower = 0 if _peak_bytes(self._kept[0]) < _peak_bytes(self._kept[1]) else 1
            with self._lock:
                del self._kept[lower]


def _peak_bytes(payload: bytes) -> int:
    return int(requested_at(decode_step(payload).timeline).max())
