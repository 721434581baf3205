"""What exact counting on a CPU costs a training: time of a step and peak RSS, on and off.

    python benchmarks/exact_cpu.py

Each fit is a process of its own, without a watch. The processes alternate, and so does which comes first, so that both
kinds see the same machine. Each process checks that its allocator counts as it should.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _stats import Estimate, bootstrap, median
from _zoo import build
from rich.console import Console
from rich.table import Table

_MODELS = ("cnn", "transformer")
_WARM_UP_STEPS = 20
_MIB = 2**20


@dataclass(frozen=True)
class Fit:
    """What one process measured: the median step in seconds, and the highest RSS in bytes."""

    step_s: float
    peak_rss_bytes: int


def main(argv: Sequence[str] | None = None) -> None:
    """Measure in fresh processes, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="pairs of processes for each model")
    parser.add_argument("--steps", type=int, default=150, help="timed steps of a fit")
    parser.add_argument("--json", metavar="PATH", help="where to save every figure")
    parser.add_argument("--quick", action="store_true", help="only show that it runs; the figures mean nothing")
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "ON"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        name, is_on = options.measure
        print(json.dumps(asdict(_fit(name, options.steps, exact=is_on == "1"))))
        return
    models, rounds, steps = (_MODELS[:1], 1, 3) if options.quick else (_MODELS, options.rounds, options.steps)
    found = {name: _pairs(name, rounds, steps) for name in models}
    _show(found, steps)
    if options.json:
        Path(options.json).write_text(
            json.dumps({name: [list(map(asdict, pair)) for pair in pairs] for name, pairs in found.items()}, indent=1)
        )


def _pairs(name: str, rounds: int, steps: int) -> list[tuple[Fit, Fit]]:
    """(on, off) of each round."""
    pairs = []
    for number in range(rounds):
        order = (True, False) if number % 2 else (False, True)
        fits = {is_on: _in_a_process(name, steps, is_on) for is_on in order}
        pairs.append((fits[True], fits[False]))
    return pairs


def _in_a_process(name: str, steps: int, is_on: bool) -> Fit:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TF_CPU_", "KERASMEMWATCH_"))}
    environment |= {"KERASMEMWATCH_EXACT_CPU": str(int(is_on)), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, "--steps", str(steps), "--measure", name, str(int(is_on))]
    return Fit(**json.loads(subprocess.check_output(command, env=environment).splitlines()[-1]))


def _fit(name: str, steps: int, *, exact: bool) -> Fit:
    import keras
    import psutil

    import kerasmemwatch  # noqa: F401  -- it is what turns exact counting on
    from kerasmemwatch.probes.allocators import counts_exactly

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.ends: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ends.append(time.perf_counter())

    clock, model = Clock(), build(name, "graph")
    model.fit(_WARM_UP_STEPS + steps, callbacks=[clock])
    if counts_exactly() != exact:
        raise SystemExit(f"Expected exact counting to be {'on' if exact else 'off'}. Received: the other.")
    return Fit(float(np.median(np.diff(clock.ends)[-steps:])), _peak_rss_bytes(psutil.Process()))


def _peak_rss_bytes(process: Any) -> int:
    try:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return int(process.memory_info().rss)  # not Linux: what is resident at the end


def _show(found: dict[str, list[tuple[Fit, Fit]]], steps: int) -> None:
    rounds = len(next(iter(found.values())))
    table = Table(
        "", title=f"Exact counting on and off: {rounds} pairs of processes a model, fits of {steps} timed steps"
    )
    for heading in ("on", "off", "on less off", "on less off, %"):
        table.add_column(heading, justify="right")
    for name, pairs in found.items():
        times = [[1e3 * fit.step_s for fit in column] for column in zip(*pairs, strict=True)]
        sizes = [[fit.peak_rss_bytes / _MIB for fit in column] for column in zip(*pairs, strict=True)]
        for what, (on, off), digits in ((f"{name}: ms a step", times, 2), (f"{name}: peak RSS, MiB", sizes, 1)):
            less, percent = _differences(on, off)
            table.add_row(what, *(each.text(digits) for each in (median(on), median(off), less, percent)))
    console = Console(width=150)
    console.print(table)
    console.print("Medians, with the bootstrap's 95 % interval; differences are those within a pair.", highlight=False)


def _differences(on: Sequence[float], off: Sequence[float]) -> tuple[Estimate, Estimate]:
    """The median difference within a pair, and the same in percent."""
    return (
        bootstrap(lambda a, b: np.median(a - b, axis=-1), on, off),
        bootstrap(lambda a, b: np.median(100 * (a / b - 1), axis=-1), on, off),
    )


if __name__ == "__main__":
    main()
