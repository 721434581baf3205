"""Recordings damaged at random, and what a reader may make of them."""

from __future__ import annotations

import json
import random
import resource
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import FakeClock, FakeProbe, NoFlusher, device_probe, recorder_on_disk
from runs import two_device_steps
from tensorboard.compat.proto import event_pb2

from kerasmemwatch.recording import Recording, load
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.storage import run_writer
from kerasmemwatch.storage.codecs.step_codec import encode_step
from kerasmemwatch.storage.files.event_file import frame, read_records

__all__ = [
    "Files",
    "StubProvider",
    "assert_nothing_wrong",
    "at_most",
    "damaged",
    "payloads",
    "record",
    "rewritten",
    "write",
]

# Names of a run's files and their bytes.
Files = dict[str, bytes]
_PAGE = 4096


def record(folder: Path) -> tuple[Files, Recording]:
    """A killed run with a bit of everything: chunks, traced steps, layers, and rows that are in the journal only."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_writer, "FlushThread", NoFlusher)
        probes = (device_probe(), FakeProbe(slow_columns=("host_uss_bytes",), facts={"limit_bytes": 2**34}))
        target = recorder_on_disk(folder, probes=probes, clock=FakeClock(), about={"tags": ("a", "<b>")})
        target.begin_stage("train")
        target.begin_epoch(0)
        layers = [LayerMemory("head", "Dense", weights_bytes=144), LayerMemory("optimizer", optimizer_bytes=288)]
        for batch in range(200):
            target.batch_begin()
            target.batch_end(batch)
            if batch == 0:
                target.describe(layers, notes=("a note",))
            if batch in (20, 30):
                target.add_step(two_device_steps()[batch == 30])
            if batch in (40, 80, 120):
                target.flush()
        target.end_epoch()
        files = {path.name: path.read_bytes() for path in (folder / "run").iterdir()}
        whole = load(folder, "run")
        target.close()
    return files, whole


def write(folder: Path, files: Files) -> None:
    """Make them the run's only files."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def damaged(files: Files, seed: int) -> Files:
    """One to three damages, of either file or both."""
    random_ = random.Random(seed)
    result = dict(files)
    for _ in range(random_.choice((1, 1, 2, 3))):
        name = random_.choice(sorted(result))
        result[name] = random_.choice(_DAMAGES)(result[name], random_)
    return result


def _place(data: bytes, random_: random.Random) -> int:
    """Anywhere, but often where a journal has something."""
    return random_.randrange(min(len(data), random_.choice((200, 2 * _PAGE, 12 * _PAGE, len(data)))) or 1)


def _flip(data: bytes, random_: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 8))):
        if changed:
            changed[_place(data, random_)] ^= 1 << random_.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, random_: random.Random) -> bytes:
    """A page, or less, of zeros, ones, noise, or what is elsewhere in the file."""
    size = random_.choice((1, 8, 64, 512, _PAGE))
    start = _place(data, random_)
    start -= start % _PAGE if random_.random() < 0.5 else 0
    end = min(len(data), start + size)
    other = random_.randrange(max(1, len(data) - size))
    other -= other % _PAGE if size == _PAGE else 0
    kinds = (bytes(size), b"\xff" * size, random_.randbytes(size), data[other : other + size].ljust(size, b"\0"))
    return data[:start] + random_.choice(kinds)[: end - start] + data[end:]


def _cut(data: bytes, random_: random.Random) -> bytes:
    return data[: _place(data, random_)]


def _remove(data: bytes, random_: random.Random) -> bytes:
    start = _place(data, random_)
    return data[:start] + data[start + random_.choice((1, 8, 100, _PAGE)) :]


def _insert(data: bytes, random_: random.Random) -> bytes:
    start = _place(data, random_)
    return data[:start] + random_.randbytes(random_.choice((1, 8, 100))) + data[start:]


def _shuffle(data: bytes, random_: random.Random) -> bytes:
    """An event file's records in another order, some twice and some never."""
    records = list(read_records(data))
    return b"".join(map(frame, random_.choices(records, k=len(records)))) if records else _flip(data, random_)


def _numbers(data: bytes, random_: random.Random) -> bytes:
    """A number of a journal's header, or of a frame's."""
    start = random_.choice((8, 12, 16, 20, 24, 32, 0))
    value = random_.choice((0, 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1))
    return data[:start] + struct.pack("<Q", value)[: random_.choice((4, 8))] + data[start + 8 :]


_DAMAGES: Sequence[Callable[[bytes, random.Random], bytes]] = (
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _cut,
    _remove,
    _insert,
    _shuffle,
    _numbers,
)


def assert_nothing_wrong(found: Recording, whole: Recording) -> None:
    """What is there is as it was recorded; what isn't is left out, or unknown."""
    steps = found.samples["step"]
    assert (np.diff(steps) > 0).all() and np.isin(steps, whole.samples["step"]).all()
    rows = np.searchsorted(whole.samples["step"], steps)
    for name, values in found.samples.items():
        if not values.size:
            continue
        expected = whole.samples[name][rows]
        same = values == expected
        if values.dtype.kind == "f":
            same |= np.isnan(values)
        assert same.all(), f"{name}: {values[~same]} for {expected[~same]}"
    assert found.layers in ((), whole.layers)
    known = [encode_step(step) for step in whole.steps]
    assert all(encode_step(step) in known for step in found.steps)
    assert found.run.tags in ((), whole.run.tags) and found.run.devices in ((), whole.run.devices)


@contextmanager
def at_most(more_bytes: int) -> Iterator[None]:
    """What is inside may take so much memory more; an allocation beyond it is a ``MemoryError``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# -- damages that have the right checksums -------------------------------------------------------------------------


def payloads(data: bytes) -> dict[str, bytes]:
    """The parts of a recording in an event file, by tag."""
    events = map(event_pb2.Event.FromString, read_records(data))
    return {
        value.tag: value.tensor.string_val[0] for event in events for value in event.summary.value if _is_ours(value)
    }


def _is_ours(value: Any) -> bool:
    return bool(value.tag.startswith("kerasmemwatch/"))


def rewritten(data: bytes, changes: Mapping[str, tuple[str, bytes]]) -> bytes:
    """An event file with other parts: by tag, the new tag and payload."""
    events = [event_pb2.Event.FromString(each) for each in read_records(data)]
    for event in events:
        for value in event.summary.value:
            if value.tag in changes:
                value.tag, value.tensor.string_val[0] = changes[value.tag]
    return b"".join(frame(event.SerializeToString()) for event in events)


def header_of(payload: bytes) -> tuple[Any, bytes | None]:
    """The JSON of a part, and what follows it; nothing follows a description."""
    data = zlib.decompress(payload)
    if data.startswith(b"{"):
        return json.loads(data), None
    (length,) = struct.unpack_from("<I", data)
    return json.loads(data[4 : 4 + length]), data[4 + length :]


def with_header(header: Any, body: bytes | None) -> bytes:
    """The inverse of ``header_of``."""
    text = json.dumps(header).encode()
    return zlib.compress(text if body is None else struct.pack("<I", len(text)) + text + body)


class StubProvider:
    """TensorBoard's data provider for one run, without a server."""

    def __init__(self, data: bytes) -> None:
        self._payloads = payloads(data)

    def list_tensors(self, context: Any, *, experiment_id: str, plugin_name: str) -> Any:
        return {"run": {tag: SimpleNamespace(max_step=1, max_wall_time=1.0) for tag in self._payloads}}

    def read_tensors(self, context: Any, *, run_tag_filter: Any, **_: Any) -> Any:
        asked = {tag: self._payloads[tag] for tag in run_tag_filter.tags}
        return {"run": {tag: [SimpleNamespace(numpy=np.array(data, object))] for tag, data in asked.items()}}
