"""What MemoryWatch itself needs over a million steps: own memory, and bytes on disk.

    python benchmarks/footprint.py

The real recorder, journal and TensorBoard sink take rows from probes that make their figures up, in a fresh process
without TensorFlow. Time is made up, too: a step takes about 5 ms, an epoch 2,000 steps.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _synthetic import PLANTED_BYTES, SyntheticRun
from _targets import at_most
from rich.console import Console
from rich.table import Table

_MIB = 2**20
_MOST_GROWTH_MIB, _MOST_RECORDING_MIB, _MOST_SCALARS_MIB = 8, 4, 4


def main(argv: Sequence[str] | None = None) -> None:
    """Measure in a fresh process, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="number of steps, at least 1")
    parser.add_argument("--seed", type=int, default=1, help="what the figures are made from")
    parser.add_argument("--json", metavar="PATH", help="where to save every figure")
    parser.add_argument("--measure", metavar="LOGDIR", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        print(json.dumps(_record(options.steps, options.seed, options.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="footprint-") as log_dir:
        child = [sys.executable, __file__, "--steps", str(options.steps), "--seed", str(options.seed)]
        found = json.loads(subprocess.check_output([*child, "--measure", log_dir]))
        found |= _on_disk(log_dir) | _read_back(log_dir, found["planted_step"])
    _show(options.steps, found)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


def _record(steps: int, seed: int, log_dir: str) -> dict[str, Any]:
    """Run all steps, and measure this process before the first and after the last."""
    import psutil

    # Beside TensorFlow, which has loaded protobuf, these take 0.04 MiB; here they would be most of the growth.
    from tensorboard.compat.proto import event_pb2  # noqa: F401
    from tensorboard.plugins.scalar import metadata  # noqa: F401

    run, process = SyntheticRun(steps, seed, log_dir), psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    spent_s, most = 0.0, before
    for _ in run.epochs():
        begun = time.perf_counter()
        run.drive_epoch()
        spent_s += time.perf_counter() - begun
        most = max(most, process.memory_info().rss)
    gc.collect()
    after = process.memory_info().rss
    run.finish()
    return {
        "growth_bytes": after - before,
        "most_growth_bytes": most - before,
        "step_us": 1e6 * spent_s / steps,
        "planted_step": run.planted_step,
    }


def _on_disk(log_dir: str) -> dict[str, Any]:
    """Bytes in the event file by what they are, and how many chunks and points there are."""
    from tensorboard.compat.proto import event_pb2

    from kerasmemwatch.storage.files.event_file import read_records

    files = [path for path in Path(log_dir).rglob("*") if path.is_file()]
    sizes, tags = Counter(), Counter()
    for path in files:
        for record in read_records(path.read_bytes()):
            values = event_pb2.Event.FromString(record).summary.value
            tags.update(value.tag for value in values)
            kind = "other" if not values else "scalars" if values[0].tag.startswith("memory/") else "recording"
            sizes[kind] += len(record) + 16
    assert sum(sizes.values()) == sum(path.stat().st_size for path in files), "There are other files or bytes."
    return {
        "recording_bytes": sizes["recording"],
        "scalars_bytes": sizes["scalars"],
        "chunks": sum(tag.startswith("kerasmemwatch/samples/") for tag in tags),
        "points_per_scalar": max((count for tag, count in tags.items() if tag.startswith("memory/")), default=0),
    }


def _read_back(log_dir: str, planted_step: int) -> dict[str, Any]:
    """Load the recording and look for the highest peak where it was planted."""
    from kerasmemwatch import load

    recording = load(log_dir)
    samples = recording.samples
    peaks = samples["device_peak_bytes"][:, 0]
    row = int(peaks.argmax())
    return {
        "rows": samples.num_samples,
        "last_step": int(samples["step"][-1]),
        "peak_found": int(samples["step"][row]) == planted_step and int(peaks[row]) == PLANTED_BYTES,
    }


def _show(steps: int, found: dict[str, Any]) -> None:
    growth, recording, scalars = (found[name] / _MIB for name in ("growth_bytes", "recording_bytes", "scalars_bytes"))
    table = Table("what", title=f"Footprint of {steps:,} steps")
    table.add_column("", justify="right")
    for what, value in (
        ("own growth, resident", f"{growth:.2f} MiB"),
        ("own growth at its highest", f"{found['most_growth_bytes'] / _MIB:.2f} MiB"),
        ("recording on disk", f"{recording:.2f} MiB"),
        ("scalars on disk", f"{scalars:.2f} MiB"),
        ("chunks", f"{found['chunks']:,}"),
        ("rows kept", f"{found['rows']:,}"),
        ("points per scalar", f"{found['points_per_scalar']:,}"),
        ("recorder with made-up probes", f"{found['step_us']:.2f} us a step"),
        (f"peak planted at step {found['planted_step']:,}", "found exactly" if found["peak_found"] else "NOT found"),
        ("last step", f"{found['last_step']:,}"),
    ):
        table.add_row(what, value)
    Console(width=80).print(table)
    print(at_most("own growth", growth, _MOST_GROWTH_MIB, "MiB"))
    print(at_most("recording", recording, _MOST_RECORDING_MIB, "MiB"))
    print(at_most("scalars", scalars, _MOST_SCALARS_MIB, "MiB"))
    print(f"target: planted peak found exactly: {'reached' if found['peak_found'] else 'NOT reached'}")


if __name__ == "__main__":
    main()
