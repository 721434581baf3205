"""Sink that writes a TensorBoard event file: the recording in chunks, and a few standard scalars.

Each chunk of rows and each traced step has a tag of its own, because TensorBoard keeps only some records per tag
(always including the last). A scalar's point is the maximum of its window, and the windows widen with the run.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasmemwatch.analysis.decimation import bucket_width
from kerasmemwatch.compat.tensorboard import DATA_CLASS, DATA_TYPES, EVENT, SCALAR_METADATA, SUMMARY_METADATA, TENSOR
from kerasmemwatch.records.rows import Layout
from kerasmemwatch.records.run import DeviceInfo
from kerasmemwatch.storage.codecs.row_codec import PLUGIN_NAME, VERSION
from kerasmemwatch.storage.codecs.run_codec import encode_run
from kerasmemwatch.storage.files.event_file import EventFile
from kerasmemwatch.storage.files.file_system import join
from kerasmemwatch.storage.sinks.base import Update
from kerasmemwatch.units import MIB, format_bytes

__all__ = ["FILE_SUFFIX", "RUN_TAG", "SAMPLES_TAG", "SCALARS", "STEPS_TAG", "TensorBoardSink", "partial_tag"]

FILE_SUFFIX = ".kerasmemwatch"
RUN_TAG = f"{PLUGIN_NAME}/run"
SAMPLES_TAG = f"{PLUGIN_NAME}/samples/"
STEPS_TAG = f"{PLUGIN_NAME}/steps/"
SCALARS = {
    "device_peak_bytes": ("memory/device_peak_mib", "Allocator's peak within a batch, MiB"),
    "device_between_peak_bytes": ("memory/device_between_peak_mib", "Allocator's peak between two batches, MiB"),
    "device_in_use_bytes": ("memory/device_in_use_mib", "Allocator's bytes in use at the end of a batch, MiB"),
    "host_rss_bytes": ("memory/host_rss_mib", "Resident set size of the process, MiB"),
}
# Points for the first 256 rows, and for each later doubling of the run; TensorBoard keeps 1,000 per scalar.
_DENSE_POINTS = 256


class TensorBoardSink:
    """Writes one event file into a directory of its own.

    Args:
        directory: The run's directory, which exists. No other writer may use it at the same time.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._file: EventFile | None = None
        self._described: set[str] = set()
        self._rows_seen = 0
        self._devices: tuple[DeviceInfo, ...] = ()

    def write(self, update: Update) -> None:
        """Append an update's events."""
        if self._file is None:
            self._file, self._described = EventFile(_new_path(self.directory), update.time_s), set()
        if update.run is not None:
            self._devices = update.run.devices
        before = set(self._described)
        try:
            self._file.write([*self._recording_events(update), *self._scalar_events(update)])
        except OSError:
            self._described = before
            raise
        self._rows_seen += len(update.rows)

    def close(self) -> None:
        """Close the event file; the next update begins another."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def rest(self) -> None:
        """Hold no descriptor until the next update, which continues the same event file."""
        if self._file is not None:
            self._file.rest()

    def disown(self) -> None:
        """Leave the file to another process (after a fork, the parent)."""
        if self._file is not None:
            self._file.disown()
            self._file = None

    def _recording_events(self, update: Update) -> Iterator[Any]:
        if update.run is not None:
            yield _tensor_event(RUN_TAG, encode_run(update.run, update.layers), update)
        if update.index is not None:
            yield _tensor_event(f"{SAMPLES_TAG}{update.index:06d}", update.chunk, update)
        for number, payload in update.traced:
            yield _tensor_event(f"{STEPS_TAG}{number:06d}", payload, update)

    def _scalar_events(self, update: Update) -> Iterator[Any]:
        num_rows = len(update.rows)
        series = list(_scalar_series(update.layout, self._devices)) if num_rows else []
        if not series or not SCALAR_METADATA.exists:
            return
        new_event, described, kind = EVENT.get(), SCALAR_METADATA.get(), DATA_TYPES.get().Value("DT_FLOAT")
        starts = np.arange(0, num_rows, bucket_width(self._rows_seen + num_rows, _DENSE_POINTS))
        ends = update.rows[np.append(starts[1:], num_rows) - 1]
        highest = np.fmax.reduceat(update.rows[:, [index for index, _, _ in series]], starts, axis=0) / MIB
        for end, points in zip(ends.tolist(), highest.tolist(), strict=True):
            event = new_event(step=int(end[0]), wall_time=end[4])
            for (_, tag, description), point in zip(series, points, strict=True):
                if point != point:
                    continue
                value = event.summary.value.add(tag=tag)
                value.tensor.dtype = kind
                value.tensor.float_val.append(point)
                if tag not in self._described:
                    self._described.add(tag)
                    value.metadata.CopyFrom(described("", description))
            yield event


def partial_tag(tag: str) -> str:
    """Tag of a scalar whose device counts only some allocations.

    Example:
        >>> partial_tag("memory/device_peak_mib")
        'memory/partial_device_peak_mib'
    """
    return tag.replace("memory/device_", "memory/partial_device_")


def _scalar_series(layout: Layout, devices: tuple[DeviceInfo, ...]) -> Iterator[tuple[int, str, str]]:
    """Yield index within a row, tag and description of every scalar; the tag names the device if there are several."""
    start = 0
    for column in layout:
        if column.name in SCALARS:
            tag, description = SCALARS[column.name]
            for offset in range(column.size):
                device = devices[offset] if column.width is not None and offset < len(devices) else None
                own_tag, words = tag, description
                if device is not None and device.counting == "partial":
                    own_tag = partial_tag(tag)
                    words += f"; only allocations of {format_bytes(device.counted_from_bytes)} or more"
                if device is not None and column.size > 1:
                    own_tag += f"/{device.name.replace(':', '_')}"
                yield start + offset, own_tag, words
        start += column.size


def _tensor_event(tag: str, payload: bytes, update: Update) -> Any:
    metadata = SUMMARY_METADATA.get()
    event = EVENT.get()(step=update.step, wall_time=update.time_s)
    value = event.summary.value.add(tag=tag)
    value.tensor.CopyFrom(TENSOR.get()(dtype=DATA_TYPES.get().Value("DT_STRING"), string_val=[payload]))
    value.metadata.CopyFrom(
        metadata(
            plugin_data=metadata.PluginData(plugin_name=PLUGIN_NAME, content=str(VERSION).encode()),
            data_class=DATA_CLASS.get(),
        )
    )
    return event


def _new_path(directory: str) -> str:
    # TensorBoard reads any file with "tfevents" in its name, and sorts a run's files by name: time first.
    stamp = f"{time.time():.6f}".replace(".", "")
    return join(
        directory, f"events.out.tfevents.{stamp[:10]}.{stamp[10:]}.{socket.gethostname()}.{os.getpid()}{FILE_SUFFIX}"
    )
