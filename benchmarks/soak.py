"""Whether many fits in one process, each with a watch of its own, leave anything behind.

    python benchmarks/soak.py                      # 2,000 fits, three runs each way: about an hour on 2 cores
    python benchmarks/soak.py --fits 200 --runs 1

One small model trains again and again, by turns without a log dir, with one, in an evaluate, and in fits that end in
an exception: of a callback, and of the step itself. The same fits run without a watch, with one that traces nothing,
with one as it is by default (equivalent fits share traces), and with one that is made to trace every fit. One more way
has TensorFlow's profiler record the steps that a traced fit has it record, and no watch: what that leaves is
TensorFlow's. Each way has processes of its own; figures are taken after a fifth of the fits and at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _targets import at_most
from rich.console import Console
from rich.table import Table

NO_WATCH, PROFILER, TRACED = "no watch", "profiler alone", "all traced"
# Each watch is compared with the same fits without it.
WATCHES = ("untraced", "default", TRACED)
WAYS = (NO_WATCH, PROFILER, *WATCHES)
COUNTS = ("descriptors", "threads", "folders", "patches")
# A full collection is rare in a process with TensorFlow, so what a cycle holds piles up until then.
IN_CYCLES = "objects of ours in cycles"
_MOST_GROWTH_KIB = 4
_KINDS = 5
_JOIN_S = 60.0


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each way in fresh processes, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=2000, help="fits of a process, at least 50")
    parser.add_argument("--runs", type=int, default=3, help="processes each way")
    parser.add_argument("--json", metavar="PATH", help="where to save every figure")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        print(json.dumps(_soak(options.measure, options.fits)))
        return
    environment = {
        **os.environ,
        "TF_CPU_ALLOCATOR_USE_BFC": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    found: dict[str, list[dict[str, list[int]]]] = {way: [] for way in WAYS}
    for _ in range(options.runs):
        for way in WAYS:
            child = [sys.executable, __file__, "--fits", str(options.fits), "--measure", way]
            found[way].append(json.loads(subprocess.check_output(child, env=environment).splitlines()[-1]))
    _show(options.fits, found)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


def _soak(way: str, fits: int) -> dict[str, list[int]]:
    """Run the fits; each figure after a fifth of them, and at the end."""
    with tempfile.TemporaryDirectory(prefix="soak-") as log_dir:
        fit = _fits(way, log_dir)
        figures = []
        for number in range(1, fits + 1):
            fit(number)
            if number in (fits // 5, fits):
                figures.append({**_figures(), IN_CYCLES: _in_cycles(fit)})
    first, last = figures
    return {name: [first[name], last[name]] for name in first}


def _fits(way: str, log_dir: str) -> Callable[[int], None]:
    """What runs the n-th fit."""
    import keras
    import numpy as np
    import tensorflow as tf

    import kerasmemwatch as kmw
    from kerasmemwatch.attribution.events.profiler_capture import Capture
    from kerasmemwatch.tracing.traced_before import TRACED as ALIKE

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
    model.compile("adam", "mse")
    x, y = np.ones((32, 8), "float32"), np.ones((32, 4), "float32")

    class Raises(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 2:
                raise ZeroDivisionError

    class Profiles(keras.callbacks.Callback):
        """Records the steps that a traced fit records: the first, which may make functions, and the second."""

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch < 2:
                self._capture = Capture()
                self._capture.start()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch < 2:
                self._capture.stop()

        on_test_batch_begin, on_test_batch_end = on_train_batch_begin, on_train_batch_end

    def callbacks(where: str | None) -> list[Any]:
        if way == PROFILER:
            return [Profiles()]
        return [] if way == NO_WATCH else [kmw.MemoryWatch(where, trace=False if way == "untraced" else "auto")]

    def fit(number: int) -> None:
        kind = number % _KINDS
        where = log_dir if kind == 1 else None
        if way == TRACED:
            ALIKE.clear()  # of the fits that are alike
        ours = callbacks(where)
        try:
            if kind == 2:
                model.evaluate(x, y, batch_size=8, verbose=0, callbacks=ours)
            else:
                others = [Raises()] if kind == 3 else []
                # Labels of another shape: the step raises.
                model.fit(x, y[:, :3] if kind == 4 else y, batch_size=8, verbose=0, callbacks=[*ours, *others])
        except (ZeroDivisionError, tf.errors.InvalidArgumentError):
            if way == PROFILER:
                ours[0].on_train_batch_end(0)  # of a step that raised

    return fit


def _figures() -> dict[str, int]:
    import psutil

    gc.collect()
    _join()
    gc.collect()
    objects = gc.get_objects()
    ours = sum(map(_is_ours, objects))
    folders = [Path("/dev/shm"), Path(tempfile.gettempdir())]
    return {
        "descriptors": psutil.Process().num_fds(),
        "threads": threading.active_count(),
        "folders": sum(len(list(folder.glob(f"kerasmemwatch-capture-{os.getpid()}-*"))) for folder in folders),
        "patches": _patches(),
        "objects of ours": ours,
        "objects": len(objects),
        "rss_bytes": psutil.Process().memory_info().rss,
    }


def _in_cycles(fit: Callable[[int], None]) -> int:
    """How many objects of ours only the garbage collector frees, of one fit of each kind."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    for number in range(_KINDS):
        fit(number)
    _join()
    gc.collect()
    gc.set_debug(0)
    gc.enable()
    found = sum(map(_is_ours, gc.garbage))
    gc.garbage.clear()
    return found


def _join() -> None:
    """Wait for the threads of recorders that are gone: each stores what is left, and ends."""
    for thread in threading.enumerate():
        if thread.name.startswith("kerasmemwatch"):
            thread.join(_JOIN_S)


def _is_ours(value: Any) -> bool:
    return str(type(value).__module__).startswith("kerasmemwatch")


def _patches() -> int:
    """How many functions of the frameworks are ours."""
    found = 0
    for name, module in sys.modules.copy().items():
        if not name.startswith(("keras.", "tensorflow.python.")):
            continue
        for value in list(vars(module).values()):
            inside = list(vars(value).values()) if isinstance(value, type) and value.__module__ == name else []
            found += sum(str(getattr(each, "__module__", "")).startswith("kerasmemwatch") for each in (value, *inside))
    return found


def _growth_kib(fits: int, run: dict[str, list[int]], name: str = "rss_bytes") -> float:
    first, last = run[name]
    return (last - first) / (fits - fits // 5) / 1024


def _show(fits: int, found: dict[str, list[dict[str, list[int]]]]) -> None:
    table = Table("after a fifth, at the end", title=f"{fits:,} fits in a process")
    for way in WAYS:
        table.add_column(way, justify="right")
    for name in (*COUNTS, "objects of ours", IN_CYCLES, "objects"):
        table.add_row(name, *(f"{found[way][-1][name][0]:,} {found[way][-1][name][1]:,}" for way in WAYS))
    growth = {way: statistics.median(_growth_kib(fits, run) for run in found[way]) for way in WAYS}
    table.add_row("RSS, KiB a fit", *(f"{growth[way]:.2f}" for way in WAYS))
    Console(width=80).print(table)
    for way in WATCHES:
        grown = max(last - first for run in found[way] for first, last in (run[name] for name in COUNTS))
        print(at_most(f"{way}: growth of any count", grown, 0, "things"))
        # The newest logs are kept for a while, and may hold some more or fewer; the newest 400 calls are a series.
        objects = max(run["objects of ours"][1] - run["objects of ours"][0] for run in found[way]) / fits
        print(at_most(f"{way}: objects of ours", objects, 0.1 + 400 / fits, "a fit"))
        print(at_most(f"{way}: {IN_CYCLES}", max(max(run[IN_CYCLES]) for run in found[way]), 0, "things"))
        print(at_most(f"{way}: RSS above no watch", growth[way] - growth[NO_WATCH], _MOST_GROWTH_KIB, "KiB a fit"))


if __name__ == "__main__":
    main()
