"""What a watch costs a model of thousands of layers: a first fit and later ones, traced and untraced.

    python benchmarks/many_layers.py --layers 3000

A ``Sequential`` of small ``Dense`` layers is fitted for 12 steps. Its first fit, in which TensorFlow makes the graph,
is measured in a process of its own for each case, the cases in turn; later fits take turns in one process. Seconds are
processor time of the process, which other programs on the machine change least.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from _stats import bootstrap, median
from _targets import at_most
from rich.console import Console
from rich.table import Table

_CASES = ("none", "untraced", "traced")
_STEPS, _BATCH, _WIDTH = 12, 4, 8
_MOST_UNTRACED_S, _MOST_TRACED_PERCENT = 1, 20


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=3_000, help="number of layers")
    parser.add_argument("--fresh", type=int, default=3, help="processes for each case")
    parser.add_argument("--warm", type=int, default=5, help="later fits of each case")
    parser.add_argument("--json", metavar="PATH", help="where to save every figure")
    parser.add_argument("--measure", choices=_CASES, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        print(json.dumps(_measure(options.layers, options.measure, options.warm)))
        return
    fresh: dict[str, list[float]] = {case: [] for case in _CASES}
    warm: dict[str, list[float]] = {}
    for index in range(options.fresh):
        for case in _CASES:
            found = _run(options.layers, case, options.warm if index == 0 and case == "none" else 0)
            fresh[case].append(found["first"])
            warm = found["later"] or warm
    _show(options.layers, fresh, warm)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"fresh": fresh, "warm": warm}, file)


def _run(layers: int, case: str, warm: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--layers", str(layers), "--measure", case, "--warm", str(warm)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_CPU_ALLOCATOR_USE_BFC": "1", **os.environ}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measure(layers: int, case: str, warm: int) -> dict[str, Any]:
    sys.setrecursionlimit(100 * layers)  # Keras itself needs it to build such a model
    import keras

    import kerasmemwatch

    model = keras.Sequential([keras.Input((_WIDTH,)), *(keras.layers.Dense(_WIDTH) for _ in range(layers))])
    model.compile("sgd", "mse", jit_compile=False)
    data = np.ones((_STEPS * _BATCH, _WIDTH), "float32")

    def fit(case: str) -> float:
        trace = "auto" if case == "traced" else False
        callbacks = [] if case == "none" else [kerasmemwatch.MemoryWatch(None, trace=trace)]
        begun = time.process_time()
        model.fit(data, data, batch_size=_BATCH, verbose=0, callbacks=callbacks)
        return time.process_time() - begun

    first = fit(case)
    later: dict[str, list[float]] = {case: [] for case in _CASES} if warm else {}
    for _ in range(warm):
        for each, seconds in later.items():
            seconds.append(fit(each))
    return {"first": first, "later": later}


def _show(layers: int, fresh: dict[str, list[float]], warm: dict[str, list[float]]) -> None:
    console = Console()
    table = Table(title=f"Fits of {_STEPS} steps of {layers:,} layers, processor seconds", title_justify="left")
    for heading in ("watch", "first fit", "later fits"):
        table.add_column(heading, justify="left" if heading == "watch" else "right")
    for case in _CASES:
        table.add_row(case, median(fresh[case]).text(2), median(warm[case]).text(2) if warm else "")
    console.print(table)
    if warm:
        more = bootstrap(lambda ours, plain: np.median(ours - plain, axis=-1), warm["untraced"], warm["none"])
        console.print(at_most("an untraced later fit, more than without,", more.value, _MOST_UNTRACED_S, "s"))
    ratio = bootstrap(lambda ours, plain: np.median(ours / plain - 1, axis=-1), fresh["traced"], fresh["none"])
    console.print(at_most("a traced first fit, more than without,", 100 * ratio.value, _MOST_TRACED_PERCENT, "%"))


if __name__ == "__main__":
    main()
