"""Is what is said of growth true? A hundred clean programs are said to grow how often, and known growth is found when?

    python benchmarks/growth.py --series DIR          # 100 programs x 3 seeds and a long run of each; about two hours
    python benchmarks/growth.py --series DIR --judge  # judges what the directory has, and records nothing
    python benchmarks/growth.py --part                # a few programs, one seed: half a minute of CPU
    python benchmarks/growth.py --series DIR --later  # the 100 programs x 2 seeds that came after the rule was fixed
    python benchmarks/growth.py --series DIR --fresh  # the programs that came after it

Each program trains in a process of its own, recorded by a real watch, and is looked at after every 20 rows. What grows
in TensorFlow itself and is no leak of the program is listed apart, with the bytes that its kernel cache gives back.

Known growth is added to long recordings. Half of the programs were held out until the rule was fixed; both halves are
printed. The intervals of rates are checked on series whose rate is known: simulated ones, and clean recordings whose
blocks are put in random order.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# TensorFlow reads these as it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from _growth_intervals import Coverage, coverage, look_ms
from _growth_looks import LEAKS, Alarm, Leak, Search, alarms, is_held_out, search
from _growth_programs import FIXED_PART, PROGRAMS
from _growth_record import LATER, LONG, SHORT_EPOCHS, Series, read, record
from _targets import at_least, at_most
from rich.console import Console
from rich.table import Table

from kerasmemwatch.leaks.verdicts.find import find_growth
from kerasmemwatch.records.growth import VERDICTS
from kerasmemwatch.units import format_bytes

_SEEDS = 3
_INTERVALS, _INTERVALS_OF_PART = 1_000, 200


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=Path, metavar="DIR", help="where recorded series are kept, and looked for")
    parser.add_argument("--judge", action="store_true", help="record nothing")
    parser.add_argument("--part", action="store_true", help="a few programs, one seed")
    parser.add_argument("--later", action="store_true", help="the seeds that came after the rule")
    parser.add_argument("--fresh", action="store_true", help="the programs that came after the rule")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.judge and not options.series:
        parser.error("Expected --series with --judge.")
    console = Console(width=130)
    programs = [each for each in PROGRAMS if not options.part or each.name in FIXED_PART]
    if options.fresh:
        from _growth_fresh import FRESH

        programs = list(FRESH)
    seeds: Sequence[int] = LATER if options.later else [0] if options.part else [0, LONG, *range(1, _SEEDS)]
    with contextlib.ExitStack() as stack:
        folder = options.series or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        failed = [] if options.judge else record(folder, programs, seeds)
        wanted = [(program, seed) for seed in seeds for program in programs]
        recorded = [series for program, seed in wanted if (series := read(folder, program, seed)) is not None]
    found = _judged(console, recorded, len(wanted), failed, is_part=options.part)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 0


def _judged(
    console: Console, recorded: list[Series], wanted: int, failed: list[str], *, is_part: bool
) -> dict[str, Any]:
    short = [series for series in recorded if series.seed != LONG]
    rows = sum(series.samples.num_samples for series in recorded)
    console.print(f"{len(recorded)} of {wanted} runs were recorded, {rows:,} rows.", *failed, sep="\n")
    raised = [alarm for series in recorded for alarm in alarms(series)]
    false = [alarm for alarm in raised if not alarm.recorded.program.real_growth]
    _show_alarms(console, false, "Said to grow, and does not")
    _show_own(console, [series for series in recorded if series.program.real_growth], raised)
    _show_last(console, recorded)
    searches = {leak: _searched(recorded, leak) for leak in LEAKS}
    _show_searches(console, searches)
    covered = coverage(recorded, _INTERVALS_OF_PART if is_part else _INTERVALS)
    took_ms = look_ms()

    false_short = [alarm for alarm in false if alarm.recorded.seed != LONG]
    programs = len({series.program.name for series in short})
    console.print(f"{len({alarm.recorded.name for alarm in false_short})} of {len(short)} runs of {programs} programs")
    console.print(at_most("false verdicts of growing", len(false_short), 0, "verdicts"))
    for leak, tried in searches.items():
        if tried and leak.target is None:
            console.print(f"found: {leak.name}: {_percent(tried):.2f} % of {len(tried)} programs")
        elif tried and leak.target is not None:
            console.print(at_least(f"found: {leak.name}", _percent(tried), leak.target, f"% of {len(tried)} programs"))
        else:
            console.print(f"not measured: {leak.name}; no recording is long enough")
    total = _together(covered)
    for name, one in {**covered, "all": total}.items():
        console.print(
            f"intervals that hold the true rate, {name}: {one.percent:.1f} % of {one.judged} ({one.made} made)"
        )
    console.print(at_least("coverage of the 95 % interval", total.percent, 93, "%"))
    console.print(at_most("coverage of the 95 % interval", total.percent, 97, "%"))
    console.print(at_most("a look at 10,000 rows", took_ms, 20, "ms of CPU"))
    return {
        "runs": len(recorded),
        "short_runs": len(short),
        "rows": rows,
        "failed": failed,
        "false": [[alarm.recorded.name, alarm.rows, alarm.growth.series, alarm.growth.rate] for alarm in false],
        "found": {leak.name: [_count(tried), len(tried)] for leak, tried in searches.items()},
        "coverage": {name: [one.held, one.judged, one.made] for name, one in covered.items()},
        "look_ms": took_ms,
    }


def _searched(recorded: list[Series], leak: Leak) -> list[Search]:
    """The leak in each program's first run that is long enough and has short epochs."""
    found: dict[str, Search] = {}
    for series in recorded:
        if series.seed in SHORT_EPOCHS and series.program.name not in found:
            tried = search(series, leak)
            if tried is not None:
                found[series.program.name] = tried
    return list(found.values())


def _show_alarms(console: Console, found: list[Alarm], title: str) -> None:
    if not found:
        return
    table = Table("run", "counting", "after rows", "of", "series", "rate", "interval", title=title)
    for alarm in found:
        growth, samples = alarm.growth, alarm.recorded.samples
        low, high = growth.interval or (float("nan"),) * 2
        table.add_row(
            alarm.recorded.name,
            "exact" if alarm.recorded.program.is_exact else "partial",
            str(alarm.rows),
            str(samples.num_samples),
            growth.series,
            f"{format_bytes(growth.rate or 0, signed=True)} a {growth.unit}",
            f"{format_bytes(low, signed=True)} to {format_bytes(high, signed=True)}",
        )
    console.print(table)


def _show_last(console: Console, recorded: list[Series]) -> None:
    """How often each verdict is what is said in the end."""
    said = collections.Counter(
        (growth.series.partition(" ")[0], growth.verdict)
        for series in recorded
        for growth in find_growth(series.run, series.samples)
    )
    columns = sorted({column for column, _ in said})
    table = Table("verdict", *columns, title="Said in the end")
    for verdict in VERDICTS:
        table.add_row(verdict, *(str(said[column, verdict]) for column in columns))
    console.print(table)


def _show_own(console: Console, recorded: list[Series], raised: list[Alarm]) -> None:
    """TensorFlow's own growth, with what its kernel cache gave back."""
    if not recorded:
        return
    table = Table("run", "RSS grew", "kernel cache gave back", "said to grow", title="TensorFlow's own growth")
    for series in recorded:
        rss = series.samples["host_rss_bytes"]
        said = [alarm.growth.series for alarm in raised if alarm.recorded is series]
        grew, gave = float(rss[-1] - rss[len(rss) // 4]), series.ended["kernels_bytes"]
        table.add_row(series.name, format_bytes(grew), format_bytes(gave), ", ".join(said) or "no")
    console.print(table)


def _show_searches(console: Console, searches: dict[Leak, list[Search]]) -> None:
    table = Table("known growth", "chosen on", "held out", "all", "median steps", "rate told", title="Found")
    for leak, tried in searches.items():
        halves = [[each for each in tried if is_held_out(each.recorded) == held_out] for held_out in (False, True)]
        steps = sorted(each.after for each in tried if each.after is not None)
        rates = sorted(
            each.growth.bytes_per_step / leak.bytes_per_step
            for each in tried
            if each.growth is not None and each.growth.bytes_per_step is not None
        )
        table.add_row(
            leak.name,
            *(f"{_count(part)} of {len(part)}" for part in (*halves, tried)),
            str(steps[len(steps) // 2]) if steps else "-",
            f"{rates[len(rates) // 2]:.2f} of it" if rates else "-",
        )
    console.print(table)


def _count(tried: Sequence[Search]) -> int:
    return sum(each.after is not None for each in tried)


def _percent(tried: Sequence[Search]) -> float:
    return 100 * _count(tried) / len(tried)


def _together(covered: dict[str, Coverage]) -> Coverage:
    return Coverage(*(sum(getattr(one, name) for one in covered.values()) for name in ("made", "judged", "held")))


if __name__ == "__main__":
    sys.exit(main())
