"""Makes the steps in ``gpu`` here from a folder of steps that were captured on a GPU, stripped to what is read.

Run it as ``python tests/data/make_gpu_fixtures.py FOLDER``; ``benchmarks/_captures.py`` says what is in such a folder.
The steps here were captured on an H100 with TensorFlow 2.21.0 and Keras 3.15.1. Threads, times and addresses are as
they were; of what the host did, spans that the analysis does not read are left out, and so is the GPU's own plane.
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "gpu"
NAMES = (
    "half_precision-graph",
    "half_precision-graph-step1",
    "stacked_gru-graph",
    "transformer-xla",
    "two_towers-eager",
    "two_towers-graph",
    "two_towers-graph-prefetched",
    "two_towers-xla",
    "two_towers-xla-4-steps",
    "two_towers-xla-step1",
)
_PLANES = ("/host:CPU", "/host:metadata", "Task Environment")
_READ = ("MemoryAllocation", "MemoryDeallocation", "GpuExecutable::ExecuteThunks")


def stripped(space: Any) -> None:
    """Leave out of an ``XSpace`` what is not read."""
    from kerasmemwatch.attribution.events.host_spans import kind_of

    kept = [plane for plane in space.planes if plane.name in _PLANES]
    for plane in kept:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        read = {key for key, name in names.items() if name in _READ or kind_of(name)}
        for line in plane.lines:
            events = [event for event in line.events if event.metadata_id in read]
            del line.events[:]
            line.events.extend(events)
        lines = [line for line in plane.lines if line.events]
        del plane.lines[:]
        plane.lines.extend(lines)
        if plane.name == "/host:CPU":
            for key in set(names) - read:
                del plane.event_metadata[key]
        if plane.name == "/host:metadata":
            _strip_programs(plane)
    del space.planes[:]
    space.planes.extend(kept)


def _strip_programs(plane: Any) -> None:
    """Of programs keep what is read, without the constants' values."""
    from kerasmemwatch.attribution.xla.hlo_proto import parse_hlo

    for event in plane.event_metadata.values():
        for stat in event.stats:
            if stat.bytes_value:
                proto = parse_hlo(stat.bytes_value)
                proto.DiscardUnknownFields()
                stat.bytes_value = proto.SerializeToString()


def main(folder: str) -> None:
    """Write the files."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    HERE.mkdir(exist_ok=True)
    for name in NAMES:
        space = xplane_pb2.XSpace.FromString(lzma.decompress((Path(folder) / f"{name}.xplane.pb.xz").read_bytes()))
        stripped(space)
        data = space.SerializeToString(deterministic=True)
        (HERE / f"{name}.xplane.pb.xz").write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
        notes = lzma.decompress((Path(folder) / f"{name}.json.xz").read_bytes())
        (HERE / f"{name}.json.xz").write_bytes(lzma.compress(notes, preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main(sys.argv[1])
