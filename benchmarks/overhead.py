"""What MemoryWatch costs a fit, next to other callbacks.

    python benchmarks/overhead.py                      # some minutes; close everything else
    python benchmarks/overhead.py --blocks 100         # narrower intervals for whole fits

All callbacks are measured in one process, in interleaved blocks of shuffled order. A figure is the median over rounds
of the difference to an empty callback in the same round, with its bootstrap 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from _imports import ImportCosts, measure_import
from _targets import at_least, at_most
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from _contenders import Contender
    from _fits import FitCosts, Training
    from _hooks import HookCosts

_STEP_S = 0.005
_MOST_STEP_US, _MOST_MORE_US, _LEAST_TIMES, _MOST_PERCENT, _MOST_IMPORT_MS = 8, 2, 50, 1, 10


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and save if asked to."""
    options = _parser().parse_args(argv)
    if options.quick:
        options.rounds, options.steps, options.blocks, options.fit_steps, options.imports = 2, 200, 1, 40, 2
    _prepare_tensorflow()
    from _contenders import contenders
    from _fits import calibrated, measure_fits
    from _hooks import measure_hooks

    console, found = Console(width=140), contenders()
    imports = measure_import(options.imports)
    with tempfile.TemporaryDirectory(prefix="overhead-") as log_dir:
        driven = [each for each in found if each.drives]
        hooks = measure_hooks(driven, log_dir, rounds=options.rounds, steps=options.steps)
        console.print(_hooks_table(driven, hooks, options.steps))
        training = calibrated(_STEP_S, options.fit_steps, tries=1 if options.quick else 5)
        in_fits = [each for each in found if each.fits]
        fits = measure_fits(in_fits, training, log_dir, blocks=options.blocks)
        console.print(_fits_table(in_fits, fits, training))
    allocators = _num_allocators()
    console.print(_notes(imports, allocators), highlight=False)
    for line in _targets(hooks, fits, imports, allocators):
        print(line)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(_as_json(hooks, fits, training, imports), file, indent=1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="rounds in which the hooks are driven by themselves")
    parser.add_argument("--steps", type=int, default=4000, help="steps of a block of hooks")
    parser.add_argument("--blocks", type=int, default=40, help="rounds of whole fits")
    parser.add_argument("--fit-steps", type=int, default=1000, help="steps of a fit")
    parser.add_argument("--imports", type=int, default=15, help="fresh interpreters that import the package")
    parser.add_argument("--json", metavar="PATH", help="where to save every figure")
    parser.add_argument("--quick", action="store_true", help="only show that it runs; the figures mean nothing")
    return parser


def _prepare_tensorflow() -> None:
    """Before TensorFlow is loaded: count exactly, and keep its start-up remarks off the screen."""
    os.environ["TF_CPU_ALLOCATOR_USE_BFC"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _num_allocators() -> int:
    from kerasmemwatch.probes.tensorflow import allocators

    return len(allocators())


def _hooks_table(found: Sequence[Contender], hooks: HookCosts, steps: int) -> Table:
    title = f"Hooks driven by themselves: above an empty callback, {len(hooks.step_s['empty'])} rounds of {steps} steps"
    table = Table("callback", title=title)
    for heading in ("us a step", "times MemoryWatch", "ms a fit, once"):
        table.add_column(heading, justify="right")
    for each in found[1:]:
        times = "" if each.key.startswith("watch") else hooks.times_watch(each.key).text()
        table.add_row(each.label, hooks.step_us(each.key).text(2), times, hooks.fixed_ms(each.key).text())
    return table


def _fits_table(found: Sequence[Contender], fits: FitCosts, training: Training) -> Table:
    about = f"{training.steps} steps of {1e3 * training.step_s:.2f} ms (width {training.width})"
    table = Table("callback", title=f"Whole fits, begin to end: {about}, above an empty callback")
    for heading in ("percent", "us a step", "us in hooks", "times MemoryWatch", "blocks"):
        table.add_column(heading, justify="right")
    for each in found[1:]:
        figures = fits.percent(each.key).text(2), fits.step_us(each.key).text(), fits.hooks_us(each.key).text()
        times = fits.times_watch(each.key).text() if each.slow else ""
        table.add_row(each.label, *figures, times, str(len(fits.fit_s[each.key])))
    return table


def _notes(imports: ImportCosts, allocators: int) -> str:
    return (
        f"import kerasmemwatch: {imports.milliseconds.text(2)} ms; heavy packages loaded by it: "
        f"{', '.join(imports.loaded) or 'none'}\n"
        f"Allocators read: {allocators}; one more is the CPU's, read again under another name with the same calls.\n"
        "A fresh callback is made for each block but where it says one for all. What happens once a fit: begin, first "
        "batch (run directory, journal, inventory), epoch end, end (all is stored)."
    )


def _targets(hooks: HookCosts, fits: FitCosts, imports: ImportCosts, allocators: int) -> list[str]:
    limit_us = _MOST_STEP_US + _MOST_MORE_US * (allocators - 1)
    more_us = hooks.step_us("watch_more", "watch").value
    slow = {"tensorboard": "TensorBoard(update_freq='batch')", "psutil": "psutil poller with one scalar"}
    times = [
        at_least(f"{label}, hooks {where}", costs.times_watch(key).value, _LEAST_TIMES, "times MemoryWatch")
        for key, label in slow.items()
        for where, costs in (("by themselves", hooks), ("within whole fits", fits))
    ]
    return [
        at_most("a sampled batch", hooks.step_us("watch").value, limit_us, "us"),
        at_most("one more allocator", more_us, _MOST_MORE_US, "us"),
        *times,
        at_most("upper end of the interval of a whole fit", fits.percent("watch").high, _MOST_PERCENT, "%"),
        at_most("import", imports.milliseconds.value, _MOST_IMPORT_MS, "ms"),
        at_most("heavy packages loaded by the import", len(imports.loaded), 0, "packages"),
    ]


def _as_json(hooks: HookCosts, fits: FitCosts, training: Training, imports: ImportCosts) -> dict[str, Any]:
    return {
        "hooks": asdict(hooks),
        "fits": {"step_s": training.step_s, "steps": training.steps, "width": training.width, **asdict(fits)},
        "import": asdict(imports),
    }


if __name__ == "__main__":
    main()
