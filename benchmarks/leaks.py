"""How well causes of growth are found: the gallery of leaks and innocent programs in ``tests/leaks``.

    python benchmarks/leaks.py --part              # a few of the open half: under 3 minutes on 2 cores
    python benchmarks/leaks.py --all               # the whole gallery, both halves: about 25 minutes
    python benchmarks/leaks.py --only tapes_kept,histories_kept --fixed

Every program runs by itself in a fresh process under a default watch, a third of them under TensorFlow's default
allocator, which counts in part. A leak is missed if no series grows and no cause is named. An innocent program that is
said to grow, or to have a cause, is a false alarm; what waits for the collector in a program that never collects is
none. The half that is held out was drawn at random, and the rules were first made without it. Since the first runs of
the whole, rules were mended for what both halves showed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from _leak_scores import Score, is_wrong, scored, summed
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(1, str(ROOT / "tests"))

from forks import run_forked  # noqa: E402

SCRIPT = ROOT / "tests" / "leaks" / "run_program.py"
# Quick programs of the open half, leaks and innocent ones.
PART = (
    "replay_buffer_without_an_end",
    "predictions_as_arrays",
    "python_number_as_an_argument",
    "results_in_cycles",
    "tensors_made_and_dropped",
    "bounded_replay_buffer",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run programs, and print how many were found, with the right cause and place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--part", action="store_true", help="a few programs; exit status 1 for a miss or a false alarm")
    which.add_argument("--all", action="store_true", help="the whole gallery; otherwise the open half")
    which.add_argument("--only", metavar="NAMES", help="these programs, with commas")
    parser.add_argument("--fixed", action="store_true", help="with their fixes, which makes leaks innocent")
    parser.add_argument("--bare", action="store_true", help="print what they grow by without a watch, in KiB a unit")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--json", metavar="PATH", help="where to save every figure")
    options = parser.parse_args(argv)
    truths = {truth["name"]: truth for truth in _run("--list", partial=False)}
    if options.only or options.part:
        names = list(PART) if options.part else options.only.split(",")
    else:
        names = [name for name, truth in truths.items() if options.all or not truth["held_out"]]
    unknown = [name for name in names if name not in truths]
    if unknown:
        parser.error(f"Expected names of programs. Received: {', '.join(unknown)}.")
    more = [flag for flag in ("--fixed", "--bare") if getattr(options, flag[2:])]
    # A process for each job: the server that forks does one thing at a time.
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        found = dict(zip(names, pool.map(partial(_measured, more), [truths[name] for name in names]), strict=True))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    if options.bare:
        for name, figures in found.items():
            print(f"{name:45} {figures}")
        return 0
    scores = [scored(truths[name], figures, fixed=options.fixed) for name, figures in found.items()]
    _show(scores)
    return int(options.part and any(is_wrong(score) for score in scores))


def _measured(more: Sequence[str], truth: dict[str, Any]) -> dict[str, Any]:
    try:
        found = _run(truth["name"], *more, partial=truth["partial"])
    except RuntimeError as error:
        found = {"error": str(error)}
    print(".", end="", file=sys.stderr, flush=True)
    return found


def _run(*arguments: str, partial: bool) -> Any:
    """What the script prints in its last line."""
    own = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    # Without it no allocator of a CPU counts in part; TensorFlow has it on or off as the CPU is.
    own["TF_ENABLE_ONEDNN_OPTS"] = "1"
    counting = {"KERASMEMWATCH_EXACT_CPU": "0"} if partial else {"TF_CPU_ALLOCATOR_USE_BFC": "1"}
    status, output, errors = run_forked(SCRIPT, *arguments, environment={**_environ(), **own, **counting})
    if status:
        raise RuntimeError(f"exit status {status}: {errors.strip().splitlines()[-1:]}")
    return json.loads(output.splitlines()[-1])


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TF_CPU_")}


def _show(scores: Sequence[Score]) -> None:
    table = Table("program", "", "told", title="Judged wrongly")
    for score in scores:
        wrong = [word for word in ("missed", "false_alarm", "error") if getattr(score, word)]
        wrong += [word for word in ("right_cause", "right_place") if getattr(score, word) is False]
        if wrong:
            words = {"right_cause": "cause", "right_place": "place"}
            what = ", ".join(words.get(word, word) for word in wrong)
            table.add_row(score.name, what, (score.error or score.told)[:200])
    if table.row_count:
        Console(width=140).print(table)
    for title, held_out in (("open half", False), ("half held out", True)):
        half = [score for score in scores if score.held_out == held_out]
        if half:
            print(f"{title}: {summed(half)}")
    if len({score.held_out for score in scores}) == 2:
        print(f"both: {summed(scores)}")


if __name__ == "__main__":
    sys.exit(main())
