"""What fits on a GPU come to, as tables and targets: coverage, exact peaks, costs, and the story of the first step."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _processes import in_process
from _run_costs import run_cost
from _targets import at_least
from attribution import HEADINGS, Row
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

__all__ = ["MODELS", "measure_fits"]

# Of the table in docs/figures.md, those that differ most on a GPU.
MODELS = ("cnn", "resnet50", "transformer", "gru", "siamese", "vae", "mixed_precision_cnn", "raw_variable")
_LEAST_COVERED, _LEAST_IN_LAYERS = 0.99, 0.97
_AUTO_MODEL = "cnn"
_MIB = 2**20


class GpuRow(Row):
    """A row of fits on a GPU, whose variables in host memory are not the GPU's."""

    def exact(self, category: str) -> bool:
        """Whether variables sum to the independent count: at rest, at the peak and at most."""
        return {size for step in self.steps for size in step[f"{category}_bytes"]} == {self.found[f"{category}_bytes"]}

    @property
    def categories(self) -> bool:
        """Whether the package's categories and rows at the peak sum to the total that was counted, in each step."""
        return [{step["peak_bytes"]} for step in self.steps] == [set(sums) for sums in self.found["sums"]]

    @property
    def peaks_apart(self) -> int:
        """By how many bytes the highest total of the events differs from the sampled peak, at most."""
        return max((abs(found - (sampled or 0)) for _, sampled, found in self.found["peaks"]), default=0)

    def cells(self) -> list[str]:
        """The row's figures as text."""
        if self.error:
            return [*super().cells(), ""]
        apart = self.peaks_apart
        return [*super().cells(), f"{apart:,} bytes apart" if apart else "the same"]


def measure_fits(
    script: str,
    *,
    device: str,
    models: Sequence[str],
    modes: Sequence[str],
    epochs: int,
    pairs: int,
    runs: int,
    save: Path | None = None,
) -> int:
    """Measure on a device, and print; does nothing without one.

    Args:
        script: Takes ``--measure``.
        device: ``"GPU:0"``; with ``"CPU:0"`` every GPU is hidden.
        models: Of the zoo.
        modes: Of graph, eager and xla.
        epochs: How many a fit has at most.
        pairs: Pairs of blocks of steps with the watch on and off.
        runs: Fits with ``trace="auto"``, of which the median is told.
        save: Where to save every figure.

    Returns:
        The exit status.
    """
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device.startswith("CPU") else {}
    about = in_process(script, f"about,{device}", **hidden)
    if not about.get("name"):
        print(f"There is no {device} here, so nothing is measured{_because(about)}.")
        return 0
    rows, console = [], Console(width=190)
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(models) * len(modes) + 2)
        for model in models:
            for mode in modes:
                progress.update(task, description=f"{model}, {mode}")
                rows.append(GpuRow(model, mode, in_process(script, f"row,{model},{mode},{device},{epochs}", **hidden)))
                progress.advance(task)
        progress.update(task, description="steps with the watch on and off")
        steps = in_process(script, f"steps,{pairs}", **hidden)
        progress.advance(task)
        progress.update(task, description="whole fits")
        auto = _auto(script, modes[-1], runs, hidden)
    console.print(_headline(device, about), highlight=False)
    console.print(_coverage(rows, device))
    console.print(_first_steps(rows))
    for row in rows:
        if row.error:
            console.print(f"{row.name}: {row.error}", highlight=False)
    for line in (*_costs(rows, steps, auto), *_targets(rows)):
        print(line)
    if save is not None:
        found = {"about": about, "rows": {row.name: row.found for row in rows}, "steps": steps, "auto": auto}
        save.write_text(json.dumps(found, indent=1))
    return 1 if any(row.error for row in rows) else 0


def _because(about: dict[str, Any]) -> str:
    return f" ({about['error']})" if "error" in about else ""


def _auto(script: str, mode: str, runs: int, hidden: dict[str, str]) -> dict[str, Any]:
    kinds = ("plain", *["auto"] * runs)
    found = [in_process(script, f"{kind},{_AUTO_MODEL},{mode}", **hidden) for kind in kinds]
    failed = next((each for each in found if "error" in each), None)
    return {"mode": mode, **run_cost(found[0]["step_s"], found[1:])} if failed is None else failed


def _headline(device: str, about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"Measured on {device}, {about['name']} ({versions})."


def _coverage(rows: Sequence[GpuRow], device: str) -> Table:
    table = Table("model", "mode", title=f"Every byte at the peak on {device}")
    for heading in (*HEADINGS, "sampled peak"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.model, row.mode, *row.cells())
    return table


def _first_steps(rows: Sequence[GpuRow]) -> Table:
    table = Table("model", "mode", title="The first step's peak, and that of a later step, MiB")
    for heading in ("step 1", "of it autotuning", "a later step"):
        table.add_column(heading, justify="right")
    for row in (row for row in rows if not row.error):
        found = row.found["first_step"]
        sizes = [found[f"{name}_bytes"] for name in ("peak", "autotuning", "steady_peak")]
        table.add_row(row.model, row.mode, *("unknown" if size is None else f"{size / _MIB:,.1f}" for size in sizes))
    return table


def _costs(rows: Sequence[GpuRow], steps: dict[str, Any], auto: dict[str, Any]) -> list[str]:
    good = [row for row in rows if not row.error]
    lines = []
    if "error" in steps:
        lines.append(f"The cost of a step is unknown: {steps['error']}")
    else:
        with_it, without = (statistics.median(side) for side in zip(*steps["pairs"], strict=True))
        more = statistics.median(1e6 * (a - b) for a, b in steps["pairs"])
        lines.append(
            f"A step with the watch on takes {more:,.0f} us more ({1e3 * with_it:.2f} against {1e3 * without:.2f} ms; "
            f"median of {len(steps['pairs']):,} pairs of blocks of {steps['block']} steps)."
        )
    if good:
        ratios = [row.found["ratio"] for row in good]
        seconds = [row.seconds for row in good]
        lines.append(
            f"A traced step takes {statistics.median(ratios):.2f} times an untraced one ({max(ratios):.2f} at most), "
            f"and {statistics.median(seconds):.2f} s around it ({max(seconds):.2f} at most)."
        )
    if "error" in auto:
        lines.append(f"The cost of a fit is unknown: {auto['error']}")
    else:
        lines.append(f"A fit of {_AUTO_MODEL} ({auto['mode']}) with trace='auto' takes {auto['auto_s']:.2f} s more.")
    return lines


def _targets(rows: Sequence[GpuRow]) -> list[str]:
    lines = []
    for row in (row for row in rows if not row.error):
        lines.append(at_least(f"covered ({row.name})", 100 * row.covered, 100 * _LEAST_COVERED, "%"))
        if row.in_layers is not None:
            lines.append(
                at_least(f"activations in layers ({row.name})", 100 * row.in_layers, 100 * _LEAST_IN_LAYERS, "%")
            )
    return lines
