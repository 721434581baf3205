"""The traced peak for people: its moment in two sentences, and a table of the layers."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from kerasmemwatch.analysis.caveats import in_part, is_planned
from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.layer_tree import TreeLine, tree_lines
from kerasmemwatch.analysis.live_set import UNATTRIBUTED, requested_at
from kerasmemwatch.analysis.peak_place import columns_left_out, elsewhere, step_shown, traced_words
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import Owner
from kerasmemwatch.records.peaks import TracedPeak
from kerasmemwatch.records.timeline import AUTOTUNING
from kerasmemwatch.units import GIB, KIB, MIB, floored_percent, format_bytes

__all__ = ["layer_rows", "moment", "shortened"]

_TOP_LAYERS = 12
_MOST_INDENTS = 6
_LARGEST_FIGURE = 10_000
_SMALLEST_SHARE = 0.001
_CATEGORIES = ("weights", "gradients", "optimizer", "activations", "temporaries")
_PEAKS = ("forward peak", "backward peak")
# Columns of the screen from which on the headings are whole words, there are the peaks, there are the categories.
_WIDE, _WIDEST, _MEDIUM = 108, 116, 72
_HYPHENATED = {
    "gradients": "gradi-\nents",
    "optimizer": "opti-\nmizer",
    "activations": "activa-\ntions",
    "temporaries": "tempo-\nraries",
    "at the peak": "at the\npeak",
    "forward peak": "forward\npeak",
    "backward peak": "backward\npeak",
}


def moment(report: Findings, everything: bool) -> Iterator[RenderableType]:
    """What was alive at the traced peak, and how it came about."""
    traced = report.traced
    if traced is None:
        return
    sizes = sorted(report.peak.by_category.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes if size)
    place = ", ".join(filter(None, [traced_words(report), traced.mode]))
    planned = is_planned(report)
    yield Text.assemble(
        (f"\nAt the {'planned' if planned else 'traced'} peak{in_part(report.run, traced.device)}", "bold"),
        f" ({place}): {format_bytes(traced.requested_bytes)} requested",
        f", of it {parts}" if parts else "",
        "" if report.coverage is None else f"; coverage {floored_percent(report.coverage)}",
    )
    slack = traced.in_use_bytes - traced.requested_bytes
    more = f" The allocator had {format_bytes(slack)} more in use, for rounding and unused space."
    yield Text(_when(traced, everything) + (more if slack > 0 and not planned else ""))
    yield from _other_devices(report, traced)


def _other_devices(report: Findings, traced: TracedPeak) -> Iterator[RenderableType]:
    """What other devices held in the same step, each at its own peak, and how to see it."""
    step = step_shown(report)
    held = [(each.device, int(requested_at(each).max())) for each in step.others] if step else []
    held = [(device, size) for device, size in held if size >= _SMALLEST_SHARE * traced.requested_bytes]
    # The names are a file's, which may hold anything.
    names = ("".join(char if char.isprintable() else "?" for char in device) for device, _ in held)
    parts = [f"{shortened(name)} {format_bytes(size)}" for name, (_, size) in zip(names, held, strict=True)]
    if parts:
        yield Text(f"At most on other devices: {', '.join(parts)} (`kerasmemwatch show --device NAME`).")


def _when(traced: TracedPeak, everything: bool) -> str:
    if traced.allocated_bytes is None:
        return "Nothing later in the step was as high as its begin."
    during = "between two batches" if traced.phase == "between" else f"during {traced.phase}"
    op = "an operation without a name"
    if traced.op:
        # The owner tells the rest of the name.
        op = shortened(traced.op if everything else traced.op.rpartition("/")[2])
    owner = f" of {shortened(traced.owner)}" if traced.owner and traced.owner != UNATTRIBUTED else ""
    if traced.owner == AUTOTUNING and traced.phase == "between":
        during, owner = "during autotuning", ""
        op = f"a trial of algorithms for {op}" if traced.op else "a trial of algorithms"
    told = f"It was highest {during}, when {op}{owner} allocated {format_bytes(traced.allocated_bytes)}"
    beside = f" and the input pipeline {format_bytes(traced.prefetched_bytes)}" if traced.prefetched_bytes else ""
    return f"{told}{beside}."


@dataclass(frozen=True)
class _Row:
    layer: LayerMemory
    at_peak: int

    @property
    def above(self) -> list[str]:
        """Paths of what holds the layer, the outermost first."""
        if not self.layer.class_name:
            return []
        return list(accumulate(self.layer.path.split("/"), "{}/{}".format))[:-1]

    def is_empty(self, left_out: Container[str]) -> bool:
        """Whether it held nothing at any moment, as a layer does that only calls others."""
        sizes = (size for heading, size in _figures(self).items() if _attribute(heading) not in left_out)
        return not any(size is None or size for size in sizes)


def layer_rows(report: Findings, everything: bool, blocks: bool, width: int) -> Iterator[RenderableType]:
    """The layers as a table: over the whole step, at the traced peak, and what each adds to it."""
    rows = _rows(report)
    chosen = {row.layer.owner for row in (rows if everything else _top(rows, report))}
    shown, hidden = ([row for row in rows if (row.layer.owner in chosen) is wanted] for wanted in (True, False))
    lines = tree_lines([row.layer.path for row in shown if row.layer.class_name])
    sums = _sums_of_parents(lines, rows)
    has_kinds, has_peaks = width >= _MEDIUM, everything and width >= _WIDEST
    headings = (*(_CATEGORIES if has_kinds else ()), "at the peak", "share", "added", *(_PEAKS if has_peaks else ()))
    left_out = columns_left_out(report)
    headings = tuple(heading for heading in headings if _attribute(heading) not in left_out)
    figures = {row.layer.owner: _figures(row) for row in shown}
    seen = [sizes.get(heading) or 0 for sizes in figures.values() for heading in headings]
    unit, divisor = _unit([*sums.values(), *seen])

    requested = report.peak.requested_bytes or 0
    cells = {row.layer.owner: _cells(figures[row.layer.owner], divisor, row.at_peak, requested) for row in shown}
    for path, size in sums.items():
        sum_cells = _cells({"at the peak": size}, divisor, size, requested)
        cells[Owner.layer(path)] = {heading: f"({cell})" for heading, cell in sum_cells.items()}
    labels = [("  " * min(line.depth, _MOST_INDENTS) + shortened(line.label), Owner.layer(line.path)) for line in lines]
    labels += [(row.layer.path, row.layer.owner) for row in shown if not row.layer.class_name]
    table = _empty_table(headings, blocks, hyphenated=has_peaks or width < _WIDE)
    for label, key in labels:
        table.add_row(Text(label), *(cells[key].get(heading, "") for heading in headings))

    inner = "; in brackets, with the layers in it" if sums else ""
    other = f"{words} " if (words := elsewhere(report)) else ""
    yield Text(f"\n{other}What each layer holds itself in {traced_words(report)}, in {unit}{inner}:")
    yield table
    if hidden:
        rest = format_bytes(sum(row.at_peak for row in hidden))
        yield Text(f"and {len(hidden)} more with {rest} at the peak (all: `kerasmemwatch show --all`)")
    kinds = "Weights to temporaries: the most over the step, each by itself. " if has_kinds else ""
    named = " and ".join(heading.partition(" ")[0] for heading in headings if heading in _PEAKS).capitalize()
    peaks = f" {named} peak: the most that was alive of everything while the layer ran." if named else ""
    yield Text(f"{kinds}Added: by how much the step's peak would fall without the layer.{peaks}", style="dim")


def _rows(report: Findings) -> list[_Row]:
    """A row for each layer and owner, without the layers that hold nothing but other layers."""
    at_peak = {row.owner: row.total_bytes or 0 for row in report.peak.by_layer}
    rows = [_Row(layer, at_peak.get(layer.owner, 0)) for layer in report.layers]
    holding = {path for row in rows for path in row.above}
    left_out = columns_left_out(report)
    return [row for row in rows if not row.is_empty(left_out) or row.layer.path not in holding]


def _top(rows: Sequence[_Row], report: Findings) -> list[_Row]:
    """The rows with most at the peak, and those that hold them."""
    ranked = sorted(rows, key=lambda row: -row.at_peak)
    enough = _SMALLEST_SHARE * (report.peak.requested_bytes or 0)
    top = [row for row in ranked[:_TOP_LAYERS] if row.at_peak >= enough] or ranked[:1]
    above = {Owner.layer(path) for row in top for path in row.above}
    return [*top, *(row for row in rows if row.layer.owner in above)]


def _figures(row: _Row) -> dict[str, int | None]:
    kinds = {name: getattr(row.layer, f"{name}_bytes") for name in _CATEGORIES}
    # A layer without a peak did not run.
    peaks = dict(zip(_PEAKS, (row.layer.forward_peak_bytes or 0, row.layer.backward_peak_bytes or 0), strict=True))
    return {**kinds, "at the peak": row.at_peak, "added": row.layer.added_bytes, **peaks}


def _attribute(heading: str) -> str:
    """The attribute of ``LayerMemory`` that a column shows, if it shows one."""
    return f"{heading.replace(' ', '_')}_bytes"


def _unit(sizes: Sequence[int]) -> tuple[str, int]:
    """One unit for all: the smallest in which the largest size has four digits before the point."""
    largest = max(sizes, default=0)
    units = (("bytes", 1), ("KiB", KIB), ("MiB", MIB), ("GiB", GIB))
    return next((unit for unit in units if largest < _LARGEST_FIGURE * unit[1]), units[-1])


def _sums_of_parents(lines: Sequence[TreeLine], rows: Sequence[_Row]) -> dict[str, int]:
    """At the peak, what is below each line that is no layer itself, shown or not."""
    sums = {line.path: 0 for line in lines}
    for row in rows:
        if row.layer.class_name:
            sums.pop(row.layer.path, None)
    for row in rows:
        for path in row.above:
            if path in sums:
                sums[path] += row.at_peak
    return sums


def _empty_table(headings: Sequence[str], blocks: bool, hyphenated: bool) -> Table:
    table = Table(box=SIMPLE_HEAD if blocks else None, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    for heading in headings:
        words = _HYPHENATED.get(heading, heading) if hyphenated else heading
        table.add_column(words, justify="right", no_wrap=True)
    return table


def _cells(sizes: Mapping[str, int | None], divisor: int, at_peak: int, requested: int) -> dict[str, str]:
    return {**{name: _figure(size, divisor) for name, size in sizes.items()}, "share": _share(at_peak, requested)}


def _figure(size: int | None, divisor: int) -> str:
    if size is None:
        return "?"
    if size == 0:
        return "-"
    if divisor == 1:
        return str(size)
    return f"{size / divisor:.1f}" if size >= 0.05 * divisor else "<0.1"


def _share(part: int, whole: int) -> str:
    if not part:
        return "-"
    return f"{part / whole:.1%}" if part >= 0.0005 * whole else "<0.1%"


def shortened(name: str) -> str:
    """A name of the user's, shortened."""
    return name if len(name) <= 80 else f"{name[:50]}...{name[-27:]}"
