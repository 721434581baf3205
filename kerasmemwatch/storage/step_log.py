"""Log of one run's traced steps: as values until a thread has encoded them, then as bytes.

Most come from a slow analysis, which runs in the flush thread or in the first caller that asks for the steps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from kerasmemwatch.analysis.steps.live_set import requested_at
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.storage.codecs.step_codec import decode_step, encode_step

__all__ = ["MAX_STEPS", "StepLog"]

# This many stay in memory; older ones are only on disk.
MAX_STEPS = 64


class StepLog:
    """Accepts traced steps from any thread without blocking, and keeps them small.

    Args:
        previous: Steps that an earlier process stored, encoded, in order.
        next_number: Number of the next step within the run.
    """

    def __init__(self, faults: Faults, previous: Sequence[bytes] = (), next_number: int = 0) -> None:
        self._faults = faults
        self._fresh: deque[TracedStep] = deque()
        self._expected: deque[Callable[[], Iterable[TracedStep]]] = deque()
        self._raised: Exception | None = None
        self._collecting = threading.RLock()  # held while steps are analysed: other callers wait
        self._kept: list[bytes] = list(previous)
        self._next_number = next_number
        self._lock = threading.Lock()  # held while a step changes from value to bytes, not while it is encoded

    def add(self, step: TracedStep) -> None:
        """Add a step."""
        self._fresh.append(step)

    def expect(self, source: Callable[[], Iterable[TracedStep]]) -> None:
        """Add the steps that a function returns; it may be slow, and is called by ``collect``."""
        self._expected.append(source)

    def collect(self, *, strict: bool = True) -> None:
        """Add the expected steps.

        Args:
            strict: Whether to raise an error of such a function, from this call or an earlier one that was not strict.
                A thread has no caller to raise it to.
        """
        with self._collecting:
            while self._expected:
                try:
                    self._fresh.extend(self._expected[0]())
                except Exception as error:
                    self._raised = error
                self._expected.popleft()  # not after a KeyboardInterrupt: a later call collects them then
            raised = self._raised
            if strict and raised is not None:
                self._raised = None
                raise raised

    def encode(self) -> tuple[tuple[int, bytes], ...]:
        """Encode the steps added since the last call: their numbers and bytes. Called by one thread at a time."""
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
        """The step with the highest peak, followed by the newest steps in order."""
        with self._lock:
            kept, fresh = list(self._kept), list(self._fresh)
        return (*map(decode_step, kept), *fresh)

    def disown(self) -> None:
        """Keep the steps readable after a fork, where another thread of the parent may hold a lock."""
        self._lock, self._collecting = threading.Lock(), threading.RLock()

    def _trim(self) -> None:
        while len(self._kept) > MAX_STEPS:
            # The higher of the two oldest stays, so the highest of all is never dropped.
            lower = 0 if _peak_bytes(self._kept[0]) < _peak_bytes(self._kept[1]) else 1
            with self._lock:
                del self._kept[lower]


def _peak_bytes(payload: bytes) -> int:
    return int(requested_at(decode_step(payload).timeline).max())
