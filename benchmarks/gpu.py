"""Is every byte of a GPU's step accounted for?

    python benchmarks/gpu.py                      # fits on a GPU; without one it says so and ends
    python benchmarks/gpu.py --captures FOLDER    # steps that were captured on a GPU before: no GPU is needed

Fits are of models of the zoo, each in a process of its own: whose each byte is at the peak of several traced steps,
whether sums are exact, what a step, a traced step and a fit cost, and how much of the first step's peak is autotuning.

With ``--captures``, for each pair of NAME.json.xz and NAME.xplane.pb.xz in the folder: whose each byte at the peak is,
and whether sums are exact. Weights and optimizer are compared with what the capture says they are by their shapes and
dtypes, but for those that it says lie in host memory: before the first event and at the peak (not in step 1, which
makes them), at most, and after the last event. The running sum is compared with the allocator's own total after every
event, and the peak with what was sampled in the step.

Sums over a timeline are done by arithmetic of the benchmark's own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _gpu_runs import MODELS, measure_fits
from _targets import at_least
from attribution import COUNTED, counted
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from _captures import GpuCapture
    from _timeline_checks import StepCheck

    from kerasmemwatch.reports.report import Report

_LEAST_COVERED, _LEAST_IN_LAYERS = 0.99, 0.97
_SHOWN = 5
_HEADINGS = (*COUNTED, "sampled peak")


@dataclass(frozen=True)
class CheckedCapture:
    """What a captured step came to.

    Attributes:
        capture: The step as captured.
        check: Its figures; ``None`` if its allocator tells nothing.
        by_category_bytes: What the package's own categories at the peak sum to.
        by_layer_bytes: What its rows at the peak sum to.
        highest_in_use_bytes: The allocator's total at its highest, from the events.
        device: Whose memory it is.
        headline: Of a report of the fit with this step traced, what the first line says of the peak.
    """

    capture: GpuCapture
    check: StepCheck | None
    by_category_bytes: int = 0
    by_layer_bytes: int = 0
    highest_in_use_bytes: int = 0
    device: str = ""
    headline: str = ""

    def wanted_bytes(self, category: str) -> int:
        """The independent count of variables, less those that are known to lie on another device."""
        whole: int = getattr(self.capture, f"{category}_bytes")
        known = self.capture.captured.known
        return whole - sum(each.bytes for each in known if each.category == category and each.device != self.device)

    def exact(self, category: str) -> bool:
        """Whether variables sum to that count: never more, and no less once they are all there."""
        assert self.check is not None
        wanted = self.wanted_bytes(category)
        before, after, at_peak, most = getattr(self.check, f"{category}_bytes")
        if self.capture.captured.step == 1:
            # Their first values are made in it.
            return {after, most} == {wanted}
        return {before, after, at_peak, most} == {wanted}

    @property
    def sums(self) -> bool:
        """Whether the allocator's total is met at every event, and never less than what was requested."""
        return self.check is not None and self.check.wrong_totals == 0 and self.check.slack_bytes >= 0

    @property
    def categories(self) -> bool:
        """Whether the categories at the peak sum to its total, in the package's table as in this count."""
        assert self.check is not None
        sums = {sum(self.check.by_category.values()), self.by_category_bytes, self.by_layer_bytes}
        return sums == {self.check.peak_bytes}

    @property
    def same_peak(self) -> str:
        """Whether the highest total of the events is what was sampled."""
        sampled = self.capture.sampled_peak_bytes
        if sampled is None:
            return "unknown"
        apart = self.highest_in_use_bytes - sampled
        return "the same" if not apart else f"{apart:+,} bytes"

    def cells(self) -> list[str]:
        """The figures as text."""
        check = self.check
        if check is None:
            return ["" for _ in _HEADINGS]
        exact = (self.exact("weights"), self.exact("optimizer"), self.sums, self.categories)
        figures = counted(check.events, check.peak_bytes, check.covered, check.activations_in_layers, exact)
        return [*figures, self.same_peak]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if there was something to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", metavar="FOLDER", type=Path, help="steps that were captured before")
    parser.add_argument("--markdown", action="store_true", help="print the table once more, as docs/figures.md has it")
    parser.add_argument("--device", default="GPU:0", help="where to fit; CPU:0 tries the benchmark out without a GPU")
    parser.add_argument("--models", default=",".join(MODELS), help="of the zoo, by commas")
    parser.add_argument("--modes", default="graph,eager,xla")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of a fit, at most")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs of blocks of steps with the watch on and off")
    parser.add_argument("--runs", type=int, default=3, help="whole fits, of which the median's cost is told")
    parser.add_argument("--json", metavar="PATH", type=Path, help="where to save the figures of fits")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.measure:
        print(json.dumps(_measure(*options.measure.split(","))))
        return 0
    if options.captures is None:
        return measure_fits(
            __file__,
            device=options.device,
            models=options.models.split(","),
            modes=options.modes.split(","),
            epochs=options.epochs,
            pairs=options.pairs,
            runs=options.runs,
            save=options.json,
        )
    return _captures(options.captures, markdown=options.markdown)


def _captures(folder: Path, *, markdown: bool) -> int:
    from _captures import CaptureError, load_capture, names_in

    try:
        names, others = names_in(folder)
    except CaptureError as error:
        print(error, file=sys.stderr)
        return 1
    checked, damaged = [], []
    for name in names:
        try:
            checked.append(check_capture(load_capture(folder, name)))
        except CaptureError as error:
            damaged.append(error)
    console = Console(width=170)
    console.print(_table(checked))
    for each in checked:
        _print_rest(each, console)
    if others:
        console.print(f"Skipped, as they are no pair of a step's files: {', '.join(others)}.", highlight=False)
    if markdown:
        print(_markdown(checked))
    for line in _targets(checked):
        print(line)
    for error in damaged:
        print(error, file=sys.stderr)
    return 1 if damaged else 0


def _measure(kind: str, *what: str) -> Any:
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")  # before TensorFlow is loaded
    import _gpu_fits

    return getattr(_gpu_fits, f"measure_{kind}")(*what)


def check_capture(capture: GpuCapture) -> CheckedCapture:
    """Analyse a captured step, and count its bytes."""
    from _timeline_checks import check_step

    from kerasmemwatch.analysis.steps.live_set import by_category, by_layer, peak_event

    step = capture.analysed()
    if step is None:
        return CheckedCapture(capture, None)
    timeline = step.timeline
    peak = peak_event(timeline)
    return CheckedCapture(
        capture,
        check_step(step),
        by_category_bytes=sum(by_category(timeline, peak).values()),
        by_layer_bytes=sum(row.total_bytes or 0 for row in by_layer(timeline, peak)),
        highest_in_use_bytes=max(timeline.in_use_before_bytes, int(timeline.in_use_bytes.max())),
        device=timeline.device,
        headline=_headline(capture.report(step)),
    )


def _headline(report: Report) -> str:
    from kerasmemwatch.analysis.peak_story import peak_place, peak_story
    from kerasmemwatch.units import format_bytes

    if report.peak.bytes is None:
        return "unknown"
    return f"{format_bytes(report.peak.bytes)} {peak_place(report)}{peak_story(report)}"


def _table(checked: Sequence[CheckedCapture]) -> Table:
    table = Table("capture", "device", title="Every byte at the peak of steps that were captured on a GPU")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for each in checked:
        table.add_row(each.capture.name, each.device, *each.cells())
    return table


def _markdown(checked: Sequence[CheckedCapture]) -> str:
    lines = [("capture", *_HEADINGS), ("---", *("---:" for _ in _HEADINGS))]
    lines += [(each.capture.name, *each.cells()) for each in checked]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _print_rest(checked: CheckedCapture, console: Console) -> None:
    """What the report's first line says of the fit's peak, what has no owner, and which sums are off."""
    name, check = checked.capture.name, checked.check
    if check is None:
        console.print(f"{name}: its allocator reported no allocation.", highlight=False)
        return
    console.print(f"{name}: device peak {checked.headline}", highlight=False, markup=False)
    for category in ("weights", "optimizer"):
        if not checked.exact(category):
            wanted = checked.wanted_bytes(category)
            before, after, at_peak, most = getattr(check, f"{category}_bytes")
            line = f"{before:,} before, {at_peak:,} at the peak, {most:,} at most, {after:,} after, of {wanted:,} bytes"
            console.print(f"{name}: {category}: {line}", highlight=False)
    if check.unattributed:
        console.print(f"{name}: the largest without an owner at the peak:", highlight=False)
    for op, owner, kind, size in check.unattributed[:_SHOWN]:
        console.print(f"  {size:>13,} bytes  {op or 'no operation'} ({owner}; {kind})", highlight=False, markup=False)


def _targets(checked: Sequence[CheckedCapture]) -> list[str]:
    lines = []
    for each in checked:
        if each.check is None:
            continue
        lines.append(at_least(f"covered ({each.capture.name})", 100 * each.check.covered, 100 * _LEAST_COVERED, "%"))
        if each.check.activations_in_layers is not None:
            share = 100 * each.check.activations_in_layers
            lines.append(at_least(f"activations in layers ({each.capture.name})", share, 100 * _LEAST_IN_LAYERS, "%"))
    known = [each for each in checked if each.check is not None]
    exact = {
        "whose weights are exact": sum(each.exact("weights") for each in known),
        "whose optimizer variables are exact": sum(each.exact("optimizer") for each in known),
        "whose running sum is the allocator's": sum(each.sums for each in known),
        "whose categories sum to the total": sum(each.categories for each in known),
    }
    return lines + [at_least(f"steps {what}", count, len(known), f"of {len(known)}") for what, count in exact.items()]


if __name__ == "__main__":
    sys.exit(main())
