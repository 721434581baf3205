"""Runs one program of the gallery under a watch, and prints what that found, as JSON.

python tests/leaks/run_program.py NAME [--fixed] [--bare] [--units N]
python tests/leaks/run_program.py --list
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="the program")
    parser.add_argument("--list", action="store_true", help="print the truth about all programs")
    parser.add_argument("--fixed", action="store_true", help="with the fix")
    parser.add_argument("--bare", action="store_true", help="without a watch: what it grows by itself")
    parser.add_argument("--units", type=int, help="how often its unit is called")
    options = parser.parse_args()
    import kerasmemwatch as kmw  # isort: skip  # before TensorFlow allocates anything

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    from leaks.gallery import PROGRAMS
    from leaks.kit import in_partial_count, is_held_out

    if options.list:
        told = [
            {
                **{key: value for key, value in vars(program).items() if key != "make"},
                "place": program.place,
                "held_out": is_held_out(program.name),
                "partial": in_partial_count(program.name),
            }
            for program in PROGRAMS.values()
        ]
        print(json.dumps(told))
        return
    program = PROGRAMS[options.name]
    # A fork server freezes what it imported, and Python's collector would run more often than in a user's process.
    gc.unfreeze()
    gc.collect()
    units, begun = options.units or program.units, time.process_time()
    unit = program.make(options.fixed)
    found = _bare(unit, units, program.collects) if options.bare else _watched(kmw, program, unit, units)
    print(json.dumps({**found, "cpu_s": round(time.process_time() - begun, 1)}, default=str), flush=True)
    os._exit(0)  # what a program keeps may take for ever to free: hundreds of iterators with threads


def _watched(kmw: Any, program: Any, unit: Any, units: int) -> dict[str, Any]:
    log_dir = tempfile.mkdtemp(prefix="leaks-")
    if program.loop == "step":
        watch = kmw.MemorySession(log_dir=log_dir)
        with watch:
            for epoch in watch.epochs(5):
                for number in range(units // 5):
                    with watch.step():
                        unit([])
                    _collect(program.collects, epoch * (units // 5) + number)
    elif program.loop == "watch":
        for number in range(units):
            watch = kmw.MemoryWatch(log_dir=log_dir, verbose=0)
            unit([watch])
            _collect(program.collects, number)
    else:
        watch = kmw.MemoryWatch(log_dir=log_dir, verbose=0)
        callbacks = [watch, *([_collecting()] if program.collects and program.loop == "run" else [])]
        for number in range(units):
            unit(callbacks)
            _collect(program.collects, number)
    report = watch.report
    return {
        "growth": [dataclasses.asdict(one) for one in report.growth],
        "leaks": [dataclasses.asdict(one) for one in report.leaks],
        "rows": report.num_steps if hasattr(report, "num_steps") else None,
    }


def _bare(unit: Any, units: int, collects: int) -> dict[str, Any]:
    """Slopes of the last 60 % of the units, in KiB a unit."""
    import numpy as np
    import psutil
    import tensorflow as tf

    process, rows = psutil.Process(), []
    for number in range(units):
        unit([])
        _collect(collects, number)
        rows.append((process.memory_info().rss, tf.config.experimental.get_memory_info("CPU:0")["current"]))
    begun = int(units * 0.4)
    if units < 5:
        return {}
    rss, device = (np.polyfit(range(begun, units), column[begun:], 1)[0] / 1024 for column in zip(*rows, strict=True))
    return {"rss_kib": round(float(rss), 2), "device_kib": round(float(device), 2)}


def _collect(every: int, number: int) -> None:
    if every and (number + 1) % every == 0:
        gc.collect()


def _collecting() -> Any:
    import keras

    class Collecting(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            gc.collect()

    return Collecting()


if __name__ == "__main__":
    main()
