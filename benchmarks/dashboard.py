"""What the Memory tab costs: answers, first paint, drawing again, and TensorBoard's start.

    python benchmarks/dashboard.py                     # about five minutes; close everything else

Two runs of a million steps are made up, each with two traced steps of 100,000 births and deaths of buffers. Real
TensorBoard processes show them, by either of its loaders, and a headless Chromium looks at them. The browser and the
starts use the loader in Rust, which is TensorBoard's own choice for a log dir on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from _browser import chromium, first_paint_s, redraws
from _routes import RouteTimes, measure_routes, wait_until_read, windows
from _stats import Estimate, bootstrap, median
from _synthetic import SyntheticRun
from _targets import at_most
from _tensorboard import LOADERS, started
from rich.console import Console
from rich.table import Table

_MOST_ANSWER_MS, _MOST_PAYLOAD_MIB, _MOST_PAINT_S, _MOST_REDRAW_MS, _MOST_START_S = 100, 1, 2, 100, 0.3
_MIB = 2**20
_PERCENT = 95
_RUNS = ("first", "second")
_OURS = ("kerasmemwatch",)
_FIGURES = ("alive within the step", "single buffers")
_PAINTED = ("overview", "timeline")


@dataclass(frozen=True)
class Found:
    """All that was measured.

    Attributes:
        routes: By loader and route.
        cold_s: By loader, the first answer of the overview once TensorBoard has read the runs.
        paint_s: By view, each navigation's first paint, since that of TensorBoard's page, and of the tab's own frame.
        redraw_s: By figure, for each window until it is drawn, and until the server's details of it are.
        start_s: With TensorFlow and without, of each pair TensorBoard's start with the plugin, and without it.
        start_cpu_s: The same in seconds of computing.
    """

    routes: dict[str, dict[str, RouteTimes]]
    cold_s: dict[str, float]
    paint_s: dict[str, list[tuple[float, float]]]
    redraw_s: dict[str, list[tuple[float, float]]]
    start_s: dict[str, list[tuple[float, float]]]
    start_cpu_s: dict[str, list[tuple[float, float]]]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and save if asked to."""
    options = _parser().parse_args(argv)
    if options.quick:
        options.steps, options.events, options.requests = 20_000, 2_000, 2
        options.paints, options.redraws, options.pairs = 1, 2, 1
    with tempfile.TemporaryDirectory(prefix="dashboard-") as log_dir:
        for number, name in enumerate(_RUNS):
            _record(options.steps, options.events, options.seed + number, str(Path(log_dir, name)))
        before = os.getloadavg()[0]
        found = _measure(log_dir, options)
    _show(found, options)
    print(f"Processes that wanted to run on this machine in the minute before: {before:.1f}")
    if options.json:
        Path(options.json).write_text(json.dumps(asdict(found), indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="steps of a run")
    parser.add_argument("--events", type=int, default=100_000, help="births and deaths of buffers in a traced step")
    parser.add_argument("--requests", type=int, default=60, help="requests of each route, by either loader")
    parser.add_argument("--paints", type=int, default=5, help="navigations to each view that is timed")
    parser.add_argument("--redraws", type=int, default=30, help="windows of each figure of the timeline")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of starts with and without the plugin")
    parser.add_argument("--seed", type=int, default=1, help="what figures and windows are made from")
    parser.add_argument("--json", metavar="PATH", help="where to save every figure")
    parser.add_argument("--quick", action="store_true", help="only show that it runs; the figures mean nothing")
    return parser


def _record(steps: int, events: int, seed: int, log_dir: str) -> None:
    run = SyntheticRun(steps, seed, log_dir)
    for epoch in run.epochs():
        run.drive_epoch()
        if epoch in (0, steps // 4_000):
            run.trace(events)
    run.finish()


def _measure(log_dir: str, options: argparse.Namespace) -> Found:
    from kerasmemwatch import load, runs
    from kerasmemwatch.tensorboard_plugin.assets import ASSETS

    names = runs(log_dir)
    assert all(len(load(log_dir, name).steps) == 2 for name in names), "The traced steps are not all there."
    tags, assets = _num_tags(log_dir, names), [route.removeprefix("/") for route in ASSETS]
    routes, cold_s = {}, {}
    paint_s: dict[str, list[tuple[float, float]]] = {}
    redraw_s: dict[str, list[tuple[float, float]]] = {}
    rng = random.Random(options.seed)
    for loader in LOADERS:
        # What answers is the same without TensorFlow; its start is measured below.
        with started(log_dir, loader=loader, tensorflow=not options.quick) as tensorboard:
            wait_until_read(tensorboard, tags)
            cold_s[loader] = tensorboard.ask("overview", {"run": names[0]}).seconds
            routes[loader] = measure_routes(
                tensorboard, assets, names, options.events, options.requests, seed=options.seed
            )
            if loader != "rust":
                continue
            with chromium() as browser:
                # A new context reads TensorBoard's scripts anew, which takes seconds.
                for view in _PAINTED[:1] if options.quick else _PAINTED:
                    paint_s[view] = [
                        first_paint_s(browser, tensorboard.address, view=view, run=names[0])
                        for _ in range(options.paints + (not options.quick))
                    ][not options.quick :]  # the first one finds the browser cold, too
                for figure, name in enumerate(_FIGURES[:1] if options.quick else _FIGURES):
                    shown = list(islice(windows(rng, options.events), options.redraws + 1))
                    timed = redraws(browser, tensorboard.address, shown, figure=figure, view="timeline", run=names[0])
                    redraw_s[name] = timed[1:]
    return Found(routes, cold_s, paint_s, redraw_s, *_starts(log_dir, options.pairs, options.quick))


def _num_tags(log_dir: str, names: Sequence[str]) -> dict[str, int]:
    """How many tags of ours each run has."""
    from tensorboard.compat.proto import event_pb2

    from kerasmemwatch.storage.codecs.row_codec import PLUGIN_NAME
    from kerasmemwatch.storage.files.event_file import read_records

    found = {}
    for name in names:
        events = (
            event_pb2.Event.FromString(record)
            for path in Path(log_dir, name).iterdir()
            for record in read_records(path.read_bytes())
        )
        tags = {value.tag for event in events for value in event.summary.value}
        found[name] = sum(tag.startswith(f"{PLUGIN_NAME}/") for tag in tags)
    return found


def _starts(log_dir: str, pairs: int, quick: bool) -> tuple[dict[str, list[tuple[float, float]]], ...]:
    """TensorBoard's start with and without the plugin, in pairs, which of them is first in turns.

    TensorFlow's import takes seconds, and by how much it varies hides the plugin. Without it, the plugin shares no
    import with it, so that it costs what it costs at most.
    """
    wall_s: dict[str, list[tuple[float, float]]] = {"with TensorFlow": [], "without TensorFlow": []}
    cpu_s: dict[str, list[tuple[float, float]]] = {name: [] for name in wall_s}
    for pair in range(int(quick), pairs + 1):
        for name, tensorflow in zip(wall_s, (not quick, False), strict=True):
            seconds = {}
            for left_out in [(), _OURS] if pair % 2 else [_OURS, ()]:
                with started(log_dir, left_out=left_out, tensorflow=tensorflow) as tensorboard:
                    seconds[left_out] = tensorboard.start_s, tensorboard.start_cpu_s
            if pair:  # the first ones read all files from disk
                for kind, (with_it, without) in zip(
                    (wall_s, cpu_s), zip(seconds[()], seconds[_OURS], strict=True), strict=True
                ):
                    kind[name].append((with_it, without))
    return wall_s, cpu_s


def _difference(start_s: list[tuple[float, float]]) -> Estimate:
    with_it, without = zip(*start_s, strict=True)
    return bootstrap(lambda a, b: np.median(a - b, axis=-1), with_it, without)


def _show(found: Found, options: argparse.Namespace) -> None:
    console = Console(width=120)
    what = f"{options.steps:,} steps, {options.events:,} births and deaths in a traced step, {os.cpu_count()} cores"
    table = Table("route", title=f"Answers over HTTP once warm, ms, {options.requests} of each: {what}")
    for loader in LOADERS:
        table.add_column(f"{loader}: median", justify="right")
        table.add_column(f"{_PERCENT} %", justify="right")
    for title in ("largest, KiB", "sent, KiB"):
        table.add_column(title, justify="right")
    for route in found.routes["rust"]:
        times = [found.routes[loader][route] for loader in LOADERS]
        cells = [f"{each.percentile_ms(percent):.1f}" for each in times for percent in (50, _PERCENT)]
        sizes = (max(each.body_bytes for each in times), max(each.sent_bytes for each in times))
        table.add_row(route, *cells, *(f"{size / 1024:,.1f}" for size in sizes))
    console.print(table)
    table = Table("what", title=f"In Chromium, and TensorBoard's start: {what}")
    table.add_column("", justify="right")
    for loader, seconds in found.cold_s.items():
        table.add_row(f"overview asked for the first time, loader in {loader.title()}", f"{seconds:.2f} s")
    for view, paints in found.paint_s.items():
        for seconds, since in zip(zip(*paints, strict=True), ("TensorBoard's page", "the tab"), strict=True):
            row = f"median {np.median(seconds):.2f} s, most {max(seconds):.2f} s of {len(seconds)}"
            table.add_row(f"first figure of {view} painted, nothing cached, since {since} was opened", row)
    for name, timed in found.redraw_s.items():
        for place, words in enumerate(("drawn", "the server's details drawn")):
            each = [1e3 * pair[place] for pair in timed]
            row = f"median {np.median(each):.0f} ms, {_PERCENT} % {np.percentile(each, _PERCENT):.0f} ms"
            table.add_row(f"another window of {name}: {words}", row)
    for where, pairs in found.start_s.items():
        for words, seconds in zip(("with", "without"), zip(*pairs, strict=True), strict=True):
            table.add_row(f"TensorBoard's start {where}, {words} the plugin", f"{median(seconds).text(2)} s")
        table.add_row(f"difference {where}, {len(pairs)} pairs", f"{_difference(pairs).text(3)} s")
        table.add_row("the same in seconds of computing", f"{_difference(found.start_cpu_s[where]).text(3)} s")
    console.print(table)
    for line in _targets(found):
        print(line)


def _targets(found: Found) -> list[str]:
    answers: list[tuple[str, RouteTimes]] = [
        (f"{route} ({loader})", times) for loader, routes in found.routes.items() for route, times in routes.items()
    ]
    slowest, times = max(answers, key=lambda each: each[1].percentile_ms(_PERCENT))
    largest, sizes = max(((name, each) for name, each in answers if "." not in name), key=lambda e: e[1].body_bytes)
    paints_s = [own for _, own in found.paint_s["overview"]]
    redraws_ms: list[Any] = [1e3 * drawn for timed in found.redraw_s.values() for drawn, _ in timed]
    return [
        at_most(f"{_PERCENT} % of the answers of {slowest}", times.percentile_ms(_PERCENT), _MOST_ANSWER_MS, "ms"),
        at_most(f"payload of {largest}", sizes.body_bytes / _MIB, _MOST_PAYLOAD_MIB, "MiB"),
        at_most("first paint of the tab, median", float(np.median(paints_s)), _MOST_PAINT_S, "s"),
        at_most(
            f"{_PERCENT} % of pans and zooms drawn", float(np.percentile(redraws_ms, _PERCENT)), _MOST_REDRAW_MS, "ms"
        ),
        *(
            at_most(f"more of TensorBoard's start {where}", _difference(pairs).value, _MOST_START_S, "s")
            for where, pairs in found.start_s.items()
        ),
    ]


if __name__ == "__main__":
    main()
