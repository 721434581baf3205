"""What TensorFlow's allocators hold: bytes in use, the peak of each batch, and the peak between batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.probes.allocators import allocators
from kerasmemwatch.probes.base import UNKNOWN
from kerasmemwatch.probes.peak_window import PeakWindow, Reading
from kerasmemwatch.records import Column

__all__ = ["TensorFlowProbe"]


class TensorFlowProbe:
    """Reads every allocator of this process, each once: GPUs first, then the CPU's if it keeps statistics.

    Args:
        reset_peak: Whether to reset the allocators' peaks at batch boundaries. If not, the peak columns are
            run maxima and a user's own peaks stay.
        whole_window: Whether a row's peak covers everything since the last row, not the batch alone
            (for ``sample_every > 1``).
        backend: What trains. With another backend, TensorFlow's allocators say nothing about the model.
    """

    name = "tensorflow"

    def __init__(self, *, reset_peak: bool = True, whole_window: bool = False, backend: str = "tensorflow") -> None:
        self._backend = backend
        self.columns: tuple[Column, ...] = ()
        self.slow_columns: tuple[Column, ...] = ()
        self.facts: dict[str, object] = {}
        self._reset_peak, self._whole_window = reset_peak, whole_window
        self._windows: tuple[PeakWindow, ...] = ()
        self._takes: tuple[Reading, ...] = ()
        self._only: Reading | None = None  # most machines have one: without a loop, which costs time
        self._between: list[float] = []
        self._unknown: list[float] = []

    def open(self) -> None:
        """Find the allocators; the first call also begins the first window.

        Raises:
            ProbeUnavailableError: If TensorFlow is not loaded or no allocator keeps statistics.
        """
        if self._windows:
            return
        if self._backend != "tensorflow":
            raise ProbeUnavailableError(
                f"Device memory is unknown: the {self._backend} backend's is not measured by this version.",
                "Host memory is. Train on the TensorFlow backend for device memory.",
            )
        found = allocators()
        self._windows = tuple(
            PeakWindow(one.info.name, one.read, one.read_and_reset if self._reset_peak else None) for one in found
        )
        self._takes = tuple(window.take for window in self._windows)
        self._only = self._takes[0] if len(found) == 1 else None
        width = len(found)
        self.columns = (
            Column("device_in_use_bytes", width),
            Column("device_peak_bytes", width),
            Column("device_between_peak_bytes", width),
        )
        self.facts = {"devices": [asdict(one.info) for one in found]}
        self._unknown = [UNKNOWN] * width
        self._between = self._unknown.copy()
        for window in self._windows:
            window.take()

    def batch_begin(self) -> None:
        """End the window between two batches, begin the batch's."""
        if self._whole_window:
            self._between = [window.peek()[1] for window in self._windows]
            return
        between = self._between
        for index, take in enumerate(self._takes):
            peak = take()[1]
            # A batch that began and never ended (data that ran out, an exception) belongs to the time between.
            if not peak < between[index]:
                between[index] = peak

    def batch_end(self) -> Sequence[float]:
        """In-use bytes, the batch's peak and the peak before it, each for every allocator."""
        between, self._between = self._between, self._unknown.copy()
        if self._only is not None:
            return (*self._only(), between[0])
        in_use, peaks = [], []
        for take in self._takes:
            current, peak = take()
            in_use.append(current)
            peaks.append(peak)
        return in_use + peaks + between

    def epoch_end(self) -> Sequence[float]:
        """Nothing slow to read."""
        return ()

    def close(self) -> None:
        """Stop sharing the peak counters."""
        for window in self._windows:
            window.close()
        self._windows, self._takes, self._only = (), (), None
