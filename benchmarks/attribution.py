"""Whose is each byte at the peak? A zoo of models in three modes, each against independent counts.

    python benchmarks/attribution.py                                   # about half an hour on two cores
    python benchmarks/attribution.py --models cnn,gru --modes graph    # some rows
    python benchmarks/attribution.py --models applications,optimizers --modes graph,xla --no-million

Each row is measured in a process of its own. In a fit with several traced steps its shares are those of the worst
traced step, and a sum is exact only if it is so in each. Weights and optimizer variables are counted by their own
shapes and dtypes; the sums over a timeline are done by arithmetic of the benchmark's own.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _processes import in_process
from _run_costs import run_cost
from _targets import at_least, at_most
from _zoo import APPLICATIONS, MODELS, MODES, OPTIMIZERS
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

_AUTO_MODELS = ("cnn", "mobilenet_v2", "resnet50")
_LEAST_COVERED, _LEAST_IN_LAYERS, _MOST_RATIO = 0.99, 0.97, 1.15
_FEW_EVENTS, _MOST_FEW_S, _MOST_MILLION_S, _MOST_AUTO_S = 5_000, 1, 6, 1
_AUTO_RUNS = 3
COUNTED = (
    "events",
    "peak, MiB",
    "covered",
    "activations in layers",
    "weights",
    "optimizer",
    "running sum",
    "categories",
)
HEADINGS = (*COUNTED, "step, ms", "traced / untraced", "profiler alone", "capture and attribution, s")


@dataclass(frozen=True)
class Row:
    """What was found about a model in a mode; or the error that ended its process."""

    model: str
    mode: str
    found: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.model}, {self.mode}"

    @property
    def steps(self) -> list[dict[str, Any]]:
        return self.found.get("steps", [])

    @property
    def error(self) -> str:
        """Why there are no figures, ``""`` if there are."""
        return self.found.get("error", "") or ("" if self.steps else "no step was traced")

    @property
    def events(self) -> int:
        return max((step["events"] for step in self.steps), default=0)

    @property
    def covered(self) -> float:
        return min(step["covered"] for step in self.steps)

    @property
    def in_layers(self) -> float | None:
        """``None`` if there is none at any time."""
        shares = [step["activations_in_layers"] for step in self.steps]
        return min((share for share in shares if share is not None), default=None)

    def exact(self, category: str) -> bool:
        """Whether variables sum to the independent count: at rest, at the peak and at most; and over the layers."""
        wanted = self.found[f"{category}_bytes"]
        at_rest = {size for step in self.steps for size in step[f"{category}_bytes"]}
        return at_rest == {wanted} and self.found[f"layers_{category}_bytes"] == wanted

    @property
    def sums(self) -> bool:
        """Whether the allocator's total is met at every event, and never less than what was requested."""
        return all(step["wrong_totals"] == 0 and step["slack_bytes"] >= 0 for step in self.steps)

    @property
    def categories(self) -> bool:
        """Whether the report's categories and rows at the peak sum to the total counted in the step that it shows."""
        # That of the run's peak, which need not be the one that asked for most.
        shown = next(step for step in self.steps if step["step"] == self.found["report_step"])
        reported = self.found["report_by_category"]
        totals = {sum(reported.values()), self.found["report_requested_bytes"], self.found["report_by_layer_bytes"]}
        return totals == {shown["peak_bytes"]} and reported == shown["by_category"]

    @property
    def seconds(self) -> float:
        """What a traced step costs beside its own time: capture, and attribution."""
        return self.found["capture_s"] + self.found["attribution_s"]

    def cells(self) -> list[str]:
        """The row's figures as text."""
        if self.error:
            return ["" for _ in HEADINGS]
        exact = (self.exact("weights"), self.exact("optimizer"), self.sums, self.categories)
        peak_bytes = max(step["peak_bytes"] for step in self.steps)
        return [
            *counted(self.events, peak_bytes, self.covered, self.in_layers, exact),
            f"{1e3 * self.found['step_s']:,.1f}",
            f"{self.found['ratio']:.2f}",
            f"{self.found['profiler_ratio']:.2f}",
            f"{self.seconds:.2f}",
        ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and save if asked to."""
    options = _parser().parse_args(argv)
    if options.measure:
        print(json.dumps(_measure(*options.measure.split(":"))))
        return
    groups = {"applications": APPLICATIONS, "optimizers": OPTIMIZERS}
    models = [name for part in options.models.split(",") for name in groups.get(part, [part])]
    modes = options.modes.split(",")
    rows, autos, long = [], {}, None
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        autos_wanted = [model for model in _AUTO_MODELS if model in models]
        task = progress.add_task("", total=(len(models) + len(autos_wanted)) * len(modes) + 1)
        for model in models:
            for mode in modes:
                progress.update(task, description=f"{model}, {mode}")
                rows.append(Row(model, mode, _in_process(f"row:{model}:{mode}")))
                progress.advance(task)
        for model in autos_wanted:
            for mode in modes:
                progress.update(task, description=f"{model}, {mode}, trace='auto'")
                autos[f"{model}, {mode}"] = _auto(model, mode)
                progress.advance(task)
        if not options.no_million:
            progress.update(task, description="a million events")
            long = _in_process("million")
    console = Console(width=190)
    console.print(_table(rows))
    for row in rows:
        if row.error:
            console.print(f"{row.name}: {row.error}", highlight=False)
    if options.markdown:
        print(_markdown(rows))
    for line in _targets(rows, autos, long):
        print(line)
    if options.json:
        found = {"rows": {row.name: row.found for row in rows}, "auto": autos, "million": long}
        Path(options.json).write_text(json.dumps(found, indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models",
        default=",".join(MODELS),
        help="names, by commas; those of the table in docs/figures.md by default. 'applications' is a model of each "
        "other family of keras.applications, 'optimizers' a small one with each of Keras'",
    )
    parser.add_argument("--modes", default=",".join(MODES), help="of graph, eager and xla")
    parser.add_argument("--no-million", action="store_true", help="leave out the step of a million events")
    parser.add_argument("--json", metavar="PATH", help="where to save every figure")
    parser.add_argument("--markdown", action="store_true", help="print the table once more, as docs/figures.md has it")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser


def _auto(model: str, mode: str) -> dict[str, Any]:
    """What a run with ``trace="auto"`` costs: the median of some."""
    found = [_in_process(f"{kind}:{model}:{mode}") for kind in ("plain", *["auto"] * _AUTO_RUNS)]
    failed = next((each for each in found if "error" in each), None)
    return run_cost(found[0]["step_s"], found[1:]) if failed is None else failed


def _in_process(what: str) -> dict[str, Any]:
    return in_process(__file__, what)


def _measure(kind: str, *what: str) -> dict[str, Any]:
    # Before TensorFlow is loaded: count exactly, and keep its start-up remarks off the screen.
    os.environ["TF_CPU_ALLOCATOR_USE_BFC"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import _traced_fits

    return getattr(_traced_fits, f"measure_{kind}")(*what)


def _table(rows: Sequence[Row]) -> Table:
    table = Table("model", "mode", title="Every byte at the peak, on a CPU that counts all of them")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.model, row.mode, *row.cells(), end_section=row.mode == rows[-1].mode)
    return table


def _markdown(rows: Sequence[Row]) -> str:
    lines = [("model", "mode", *HEADINGS), ("---", "---", *("---:" for _ in HEADINGS))]
    lines += [(row.model, row.mode, *row.cells()) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _targets(rows: Sequence[Row], autos: dict[str, Any], long: dict[str, Any] | None) -> list[str]:
    good = [row for row in rows if not row.error]
    lines = [_all("rows with figures", {row.name: not row.error for row in rows})]
    if good:
        least = min(good, key=lambda row: row.covered)
        inside = min(good, key=lambda row: 1 if row.in_layers is None else row.in_layers)
        ratio = max(good, key=lambda row: row.found["ratio"])
        lines += [
            at_least(f"covered at the peak ({least.name})", 100 * least.covered, 100 * _LEAST_COVERED, "%"),
            _activations(inside),
            _all("rows whose weights are exact", {row.name: row.exact("weights") for row in good}),
            _all("rows whose optimizer variables are exact", {row.name: row.exact("optimizer") for row in good}),
            _all("rows whose running sum is the allocator's", {row.name: row.sums for row in good}),
            _all("rows whose categories sum to the total", {row.name: row.categories for row in good}),
            _all(
                f"rows whose traced step takes at most {_MOST_RATIO} times an untraced one",
                {
                    f"{row.name} ({row.found['ratio']:.2f}; the profiler alone {row.found['profiler_ratio']:.2f})": (
                        row.found["ratio"] <= _MOST_RATIO
                    )
                    for row in good
                },
            ),
            _traced_steps(ratio),
        ]
    few = [row for row in good if row.events <= _FEW_EVENTS]
    if few:
        slow = max(few, key=lambda row: row.seconds)
        what = f"capture and attribution of a step with at most {_FEW_EVENTS:,} events ({slow.name})"
        lines.append(at_most(what, slow.seconds, _MOST_FEW_S, "s"))
    if autos:
        wrong = {name: found["error"] for name, found in autos.items() if "error" in found}
        lines += [f"target: a run with trace='auto' ({name}): NOT reached ({error})" for name, error in wrong.items()]
        known = {name: found["auto_s"] for name, found in autos.items() if name not in wrong}
        if known:
            slow = max(known, key=known.__getitem__)
            lines.append(at_most(f"a run's cost with trace='auto' ({slow})", known[slow], _MOST_AUTO_S, "s"))
    if long is not None:
        what, wrong = "capture and attribution of a million events", long.get("error")
        if wrong:
            lines.append(f"target: {what}: NOT reached ({wrong})")
        else:
            parts = {name: long[f"{name}_s"] for name in ("capture", "attribution")}
            line = at_most(what, sum(parts.values()), _MOST_MILLION_S, "s")
            shown = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items())
            lines.append(f"{line}: {shown}; scaled from {long['events']:,}")
    return lines


def _activations(row: Row) -> str:
    """How many of the activations have a layer, and whose the others are."""
    share = 1 if row.in_layers is None else row.in_layers
    line = at_least(f"activations in layers ({row.name})", 100 * share, 100 * _LEAST_IN_LAYERS, "%")
    shares = [step["activations_or_loss"] for step in row.steps]
    with_loss = min((share for share in shares if share is not None), default=1)
    return f"{line}; with those that the loss itself keeps {100 * with_loss:.2f} %"


def _traced_steps(row: Row) -> str:
    """What a traced step costs, and what it costs at least."""
    line = at_most(f"a traced step ({row.name})", row.found["ratio"], _MOST_RATIO, "times an untraced one")
    least = row.found["profiler_ratio"]
    return f"{line}; {'possible' if least <= _MOST_RATIO else 'impossible'}: the profiler alone takes {least:.2f} times"


def _all(what: str, reached: dict[str, bool]) -> str:
    line = at_least(what, sum(reached.values()), len(reached), f"of {len(reached)}")
    missed = [name for name, is_reached in reached.items() if not is_reached]
    return f"{line}: not {'; '.join(missed)}" if missed else line


def counted(events: int, peak_bytes: int, covered: float, in_layers: float | None, exact: Sequence[bool]) -> list[str]:
    """The cells of a step's counts, as many as ``COUNTED`` has headings."""
    return [
        f"{events:,}",
        f"{peak_bytes / 2**20:,.1f}",
        f"{100 * covered:.2f} %",
        "none" if in_layers is None else f"{100 * in_layers:.2f} %",
        *("exact" if each else "WRONG" for each in exact),
    ]


if __name__ == "__main__":
    main()
