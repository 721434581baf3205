"""The steps that were captured on a GPU and are kept in ``tests/data/gpu``, each read and analysed once a process."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import pytest

__all__ = ["FOLDER", "NAMES", "capture", "silence", "step"]

FOLDER = Path(__file__).parent / "data" / "gpu"
NAMES = sorted(path.name.removesuffix(".json.xz") for path in FOLDER.glob("*.json.xz"))
_BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@functools.cache
def capture(name: str) -> Any:
    """A captured step, as ``benchmarks/gpu.py`` reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(_BENCHMARKS))
        return importlib.import_module("_captures").load_capture(FOLDER, name)


@functools.cache
def step(name: str) -> Any:
    """The same, analysed."""
    return capture(name).analysed()


def silence(space: Any) -> None:
    """Take a GPU's allocator's events out of a capture, as if it emitted none; the host's are still there."""
    for plane in space.planes:
        kinds = {key for key, event in plane.event_metadata.items() if event.name.startswith("Memory")}
        keys = {key for key, stat in plane.stat_metadata.items() if stat.name.startswith("GPU_")}
        for line in plane.lines:
            left = [
                event
                for event in line.events
                if event.metadata_id not in kinds or not any(stat.ref_value in keys for stat in event.stats)
            ]
            del line.events[:]
            line.events.extend(left)
