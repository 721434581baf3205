"""Probe of TensorFlow's allocators: bytes in use, the peak within each batch, and the peak between batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.probes.allocators import allocators
from kerasmemwatch.probes.base import UNKNOWN, begin_nothing
from kerasmemwatch.probes.peak_window import PeakWindow
from kerasmemwatch.records.samples import Column

__all__ = ["TensorFlowProbe"]


class TensorFlowProbe:
    """Reads every allocator of this process once: the GPUs', then the CPU's if it keeps statistics.

    Args:
        reset_peak: Whether to reset the allocators' peaks at batch boundaries. If not, the peak columns are run maxima,
            and the user's own peak readings are not affected.
        whole_window: Whether a row's peak covers everything since the last row rather than the batch alone (for
            ``sample_every > 1``).
        backend: Keras' backend. Unless it is TensorFlow, TensorFlow's allocators say nothing about the model.

    Attributes:
        batch_begin: Ends the window between two batches and begins the batch's.
        batch_end: Reads ``columns``: in-use bytes, the batch's peak and the peak before it, each for every allocator.
            ``open`` and ``close`` replace both functions: look them up again afterwards.
    """

    name = "tensorflow"

    def __init__(self, *, reset_peak: bool = True, whole_window: bool = False, backend: str = "tensorflow") -> None:
        self._backend = backend
        self.columns: tuple[Column, ...] = ()
        self.slow_columns: tuple[Column, ...] = ()
        self.facts: dict[str, object] = {}
        self._reset_peak, self._whole_window = reset_peak, whole_window
        self._windows: tuple[PeakWindow, ...] = ()
        self.batch_begin: Callable[[], None] = begin_nothing
        self.batch_end: Callable[[], Sequence[float]] = _read_nothing

    def open(self) -> None:
        """Find the allocators; the first call also begins the first window.

        Raises:
            ProbeUnavailableError: If TensorFlow is not loaded or no allocator keeps statistics.
        """
        if self._windows:
            return
        if self._backend != "tensorflow":
            raise ProbeUnavailableError(
                f"Device memory is unknown: this version does not measure it on the {self._backend} backend.",
                "Host memory is measured. Train on the TensorFlow backend for device memory.",
            )
        found = allocators()
        self._windows = tuple(
            PeakWindow(one.info.name, one.read, one.read_and_reset if self._reset_peak else None) for one in found
        )
        width = len(found)
        self.columns = (
            Column("device_in_use_bytes", width),
            Column("device_peak_bytes", width),
            Column("device_between_peak_bytes", width),
        )
        self.facts = {"devices": [asdict(one.info) for one in found]}
        notes = [
            f"{' and '.join(one.shared_by)} share one allocator; the column of {one.info.name} counts all replicas."
            for one in found
            if one.shared_by
        ]
        notes += [one.note for one in found if one.note]
        if notes:
            self.facts["note"] = " ".join(notes)
        for window in self._windows:
            window.take()
        self.batch_begin, self.batch_end = _bound(self._windows, whole_window=self._whole_window)

    def epoch_end(self) -> Sequence[float]:
        """Read nothing: this probe has no slow columns."""
        return ()

    def close(self) -> None:
        """Stop sharing the peak counters."""
        for window in self._windows:
            window.close()
        self._windows = ()
        self.batch_begin, self.batch_end = begin_nothing, _read_nothing


def _read_nothing() -> Sequence[float]:
    return ()


def _bound(
    windows: Sequence[PeakWindow], *, whole_window: bool
) -> tuple[Callable[[], None], Callable[[], Sequence[float]]]:
    """Make ``batch_begin`` and ``batch_end`` with all that they need bound: they run for every batch."""
    unknown = [UNKNOWN] * len(windows)
    between: list[float] = unknown

    def batch_begin() -> None:
        nonlocal between
        peaks: list[float] = []
        for window in windows:
            peaks.append((window.peek() if whole_window else window.take())[1])
        # A batch that began and never ended (out of data, an exception) counts as time between batches.
        between = peaks if between is unknown else list(map(max, between, peaks))

    def batch_end() -> Sequence[float]:
        nonlocal between
        in_use: list[float] = []
        peaks: list[float] = []
        for window in windows:
            current, peak = window.take()
            in_use.append(current)
            peaks.append(peak)
        before, between = between, unknown
        return in_use + peaks + before

    return batch_begin, batch_end
