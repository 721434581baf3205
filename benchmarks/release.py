"""What each model of a loop leaves behind, with ``kerasmemwatch.release()`` and without.

    python benchmarks/release.py                   # about ten minutes on 2 cores
    python benchmarks/release.py --models 10 --modes graph

Each model (three layers of 256 units, Adam) is built, compiled, fitted and dropped, and ``clear_session()`` is called.
A process of its own measures each way; figures are slopes over the last 60 % of its models.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _processes import in_process
from _targets import at_most
from rich.console import Console
from rich.table import Table

MODES, WAYS = ("graph", "eager", "xla"), ("clear_session", "release", "watch")
_KIB = 1024
_MOST_KIB = 50
_SETTLING = 0.4


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each way in a fresh process, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=60, help="models of a process, at least 5")
    parser.add_argument("--modes", default=",".join(MODES), help="which modes, with commas")
    parser.add_argument("--ways", default=",".join(WAYS), help="which ways, with commas")
    parser.add_argument("--json", metavar="PATH", help="where to save every figure")
    parser.add_argument("--measure", metavar="WHAT", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        mode, way, models = options.measure.split(",")
        print(json.dumps(_loop(mode, way, int(models))))
        return
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    found = {
        (mode, way): in_process(__file__, f"{mode},{way},{options.models}", **environment)
        for mode in options.modes.split(",")
        for way in options.ways.split(",")
    }
    _show(found, options.models)
    if options.json:
        Path(options.json).write_text(json.dumps({" ".join(key): value for key, value in found.items()}, indent=1))


def _loop(mode: str, way: str, models: int) -> dict[str, float]:
    """Build, fit and drop models; return bytes a model, of RSS and of the device."""
    import kerasmemwatch as kmw  # isort: skip
    import keras
    import numpy as np
    import psutil
    import tensorflow as tf

    x, y = np.ones((64, 64), "float32"), np.ones((64, 1), "float32")
    process, rows = psutil.Process(), []
    for _ in range(models):
        watch = kmw.MemoryWatch(log_dir=None, trace=False, release_dead_models=True) if way == "watch" else None
        layers = [keras.layers.Dense(256, "relu") for _ in range(3)]
        model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(1)])
        model.compile("adam", "mse", run_eagerly=mode == "eager", jit_compile=mode == "xla")
        model.fit(x, y, batch_size=32, verbose=0, callbacks=[watch] if watch else [])
        del model, layers, watch
        keras.backend.clear_session()
        if way == "release":
            kmw.release()
        device = tf.config.experimental.get_memory_info("CPU:0")["current"]
        rows.append((process.memory_info().rss, device))
    begun = int(models * _SETTLING)
    rss, device = (float(np.polyfit(range(begun, models), column[begun:], 1)[0]) for column in zip(*rows, strict=True))
    return {"rss_bytes": rss, "device_bytes": device}


def _show(found: dict[tuple[str, str], dict[str, Any]], models: int) -> None:
    table = Table("mode", "after each model", title=f"What each of {models} models leaves behind, KiB")
    table.add_column("RSS", justify="right")
    table.add_column("device", justify="right")
    for (mode, way), figures in found.items():
        if "error" in figures:
            table.add_row(mode, way, figures["error"], "")
        else:
            table.add_row(mode, way, *(f"{figures[name] / _KIB:,.1f}" for name in ("rss_bytes", "device_bytes")))
    Console(width=80).print(table)
    for mode in ("graph", "eager"):
        rss = found.get((mode, "release"), {}).get("rss_bytes")
        if rss is not None:
            print(at_most(f"RSS left by a model with release, {mode}", rss / _KIB, _MOST_KIB, "KiB"))


if __name__ == "__main__":
    main()
