"""Data sets that are entirely on a GPU, although a step needs one batch. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

from kerasmemwatch.attribution.events.allocator_names import HOST
from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer
from kerasmemwatch.units import format_bytes

__all__ = ["HOST_DATA", "data_on_gpu", "host_copies"]

# Code that keeps a data set in host memory.
HOST_DATA = "with tf.device('CPU:0'): data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)"


def data_on_gpu(known: Iterable[KnownBuffer], batch: Sequence[BatchPart], rows: int | None) -> str:
    """Note on the bytes of data sets on GPUs; empty if there are none, or no more than a batch.

    Without a known batch size it is unknown whether the data set is larger.

    Args:
        known: Buffers with a name: those that datasets hold have the category ``"inputs"``.
    """
    held: dict[str, int] = defaultdict(int)
    for buffer in known:
        if buffer.category == "inputs" and buffer.device.startswith("GPU"):
            held[buffer.device] += buffer.bytes
    if rows is None and any(part.per_row for part in batch):
        return ""
    batch_bytes = sum(part.bytes * (rows if rows and part.per_row else 1) for part in batch)
    places = [f"{device} ({format_bytes(size)})" for device, size in sorted(held.items()) if size > batch_bytes]
    if not places:
        return ""
    return (
        f"A whole data set is on {' and '.join(places)}, of which a step needs {format_bytes(batch_bytes)}. "
        f"TensorFlow copies arrays given to fit(x=array) there. Keep the data set in host memory: {HOST_DATA}"
    )


def host_copies(known: Iterable[KnownBuffer], arguments: Container[int] = ()) -> list[KnownBuffer]:
    """Return the copies in host memory of data that datasets hold on GPUs: a dataset's kernels run on the host.

    Args:
        arguments: Addresses of tensors that a step was called with, which no dataset holds.
    """
    held = (buffer for buffer in known if buffer.category == "inputs" and buffer.device.startswith("GPU"))
    return [replace(buffer, address=0, device=HOST) for buffer in held if buffer.address not in arguments]
