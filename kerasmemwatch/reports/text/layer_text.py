"""The traced peak as text: its moment in two sentences, and a table of the layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from kerasmemwatch.analysis.caveats import in_part, is_planned
from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.layer_columns import (
    CATEGORY_KEYS,
    DETAILS,
    LayerColumn,
    LayerRow,
    cell_words,
    layer_columns,
    layer_rows,
    narrow_heading,
)
from kerasmemwatch.analysis.peak_place import elsewhere, step_shown, traced_words
from kerasmemwatch.analysis.steps.layer_tree import TreeLine, tree_lines
from kerasmemwatch.analysis.steps.live_set import UNATTRIBUTED, requested_at
from kerasmemwatch.names import printable, shortened
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import AUTOTUNING, Owner
from kerasmemwatch.records.peaks import TracedPeak
from kerasmemwatch.units import GIB, KIB, MIB, floored_percent, format_bytes

__all__ = ["layer_table", "moment"]

_TOP_LAYERS = 12
_MOST_INDENTS = 6
_LARGEST_FIGURE = 10_000
_SMALLEST_SHARE = 0.001
_PEAKS = frozenset({"forward_peak_bytes", "backward_peak_bytes"})
# Minimum screen widths for whole words as headings, for the peaks, and for the categories.
_WIDE, _WIDEST, _MEDIUM = 108, 116, 72


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
        f": {parts}" if parts else "",
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
    parts = [f"{shortened(printable(device), 80)} {format_bytes(size)}" for device, size in held]
    if parts:
        yield Text(f"At most on other devices: {', '.join(parts)} (`kerasmemwatch show --device NAME`).")


def _when(traced: TracedPeak, everything: bool) -> str:
    if traced.allocated_bytes is None:
        return "Nothing later in the step was as high as its begin."
    during = "between two batches" if traced.phase == "between" else f"during {traced.phase}"
    op = "an operation without a name"
    if traced.op:
        # The owner shows the rest of the name.
        op = shortened(traced.op if everything else traced.op.rpartition("/")[2], 80)
    owner = f" of {shortened(traced.owner, 80)}" if traced.owner and traced.owner != UNATTRIBUTED else ""
    if traced.owner == AUTOTUNING and traced.phase == "between":
        during, owner = "during autotuning", ""
        op = f"a trial of algorithms for {op}" if traced.op else "a trial of algorithms"
    told = f"It was highest {during}, when {op}{owner} allocated {format_bytes(traced.allocated_bytes)}"
    beside = f" and the input pipeline {format_bytes(traced.prefetched_bytes)}" if traced.prefetched_bytes else ""
    return f"{told}{beside}."


def layer_table(report: Findings, everything: bool, blocks: bool, width: int) -> Iterator[RenderableType]:
    """The layers as a table: over the whole step, at the traced peak, and what each adds to the peak."""
    figures = layer_columns(report, {*DETAILS, "path", "class_name", "total_bytes"} - _PEAKS)
    rows = _rows(report, figures)
    chosen = {row.layer.owner for row in (rows if everything else _top(rows, report))}
    shown, hidden = ([row for row in rows if (row.layer.owner in chosen) is wanted] for wanted in (True, False))
    lines = tree_lines([row.layer.path for row in shown if row.layer.owner.is_layer])
    sums = _sums_of_parents(lines, rows)
    has_kinds, has_peaks = width >= _MEDIUM, everything and width >= _WIDEST
    narrow = {*(() if has_kinds else CATEGORY_KEYS), *(() if has_peaks else _PEAKS)}
    columns = [column for column in figures if column.key not in narrow]
    in_bytes = [column for column in columns if column.kind == "bytes"]
    sizes = [int(row.cell(column) or 0) for row in shown for column in in_bytes]
    unit, divisor = _unit([*sums.values(), *sizes])

    def words_of(row: LayerRow) -> list[str]:
        return [cell_words(row.cell(column), column.kind, divisor) for column in columns]

    cells = {row.layer.owner: words_of(row) for row in shown}
    for path, size in sums.items():
        sum_row = LayerRow(LayerMemory(path), size, size / (report.peak.requested_bytes or 1))
        values = zip(sum_row.cells(columns), words_of(sum_row), strict=True)
        cells[Owner.layer(path)] = ["" if value is None else f"({words})" for value, words in values]
    labels = [
        ("  " * min(line.depth, _MOST_INDENTS) + shortened(line.label, 80), Owner.layer(line.path)) for line in lines
    ]
    labels += [(row.layer.path, row.layer.owner) for row in shown if not row.layer.owner.is_layer]
    is_narrow = has_peaks or width < _WIDE
    table = _empty_table([narrow_heading(column) if is_narrow else column.label for column in columns], blocks)
    for label, owner in labels:
        table.add_row(Text(label), *cells[owner])

    inner = "; in brackets, with the layers in it" if sums else ""
    other = f"{told} " if (told := elsewhere(report)) else ""
    yield Text(f"\n{other}What each layer holds itself in {traced_words(report)}, in {unit}{inner}:")
    yield table
    if hidden:
        rest = format_bytes(sum(row.at_peak_bytes or 0 for row in hidden))
        yield Text(f"and {len(hidden)} more with {rest} at the peak (all: `kerasmemwatch show LOGDIR --all`)")
    kinds = [column.label for column in columns if column.key in CATEGORY_KEYS]
    each = f"{kinds[0]} to {kinds[-1]}: the most over the step, each by itself. ".capitalize() if kinds else ""
    [added] = (f"{column.label}: {column.help}.".capitalize() for column in columns if column.key == "added_bytes")
    named = " and ".join(column.label.partition(" ")[0] for column in columns if column.key in _PEAKS).capitalize()
    peaks = f" {named} peak: the most that was alive of everything while the layer ran." if named else ""
    yield Text(f"{each}{added}{peaks}", style="dim")


def _rows(report: Findings, figures: Sequence[LayerColumn]) -> list[LayerRow]:
    """A row for each layer and owner, without layers that hold only other layers."""
    rows = layer_rows(report)
    holding = {path for row in rows for path in _above(row.layer.owner)}
    has_figures = [any(cell is None or cell for cell in row.cells(figures)) for row in rows]
    return [row for row, any_ in zip(rows, has_figures, strict=True) if any_ or row.layer.path not in holding]


def _above(owner: Owner) -> list[str]:
    """Paths of a layer's ancestors, outermost first."""
    return list(accumulate(owner.path.split("/"), "{}/{}".format))[:-1] if owner.is_layer else []


def _top(rows: Sequence[LayerRow], report: Findings) -> list[LayerRow]:
    """The rows with most bytes at the peak, and their ancestors."""
    ranked = sorted(rows, key=lambda row: -(row.at_peak_bytes or 0))
    enough = _SMALLEST_SHARE * (report.peak.requested_bytes or 0)
    top = [row for row in ranked[:_TOP_LAYERS] if (row.at_peak_bytes or 0) >= enough] or ranked[:1]
    above = {Owner.layer(path) for row in top for path in _above(row.layer.owner)}
    return [*top, *(row for row in rows if row.layer.owner in above)]


def _unit(sizes: Sequence[int]) -> tuple[str, int]:
    """One unit for all sizes: the smallest in which the largest has at most four digits before the point."""
    largest = max(sizes, default=0)
    units = (("bytes", 1), ("KiB", KIB), ("MiB", MIB), ("GiB", GIB))
    return next((unit for unit in units if largest < _LARGEST_FIGURE * unit[1]), units[-1])


def _sums_of_parents(lines: Sequence[TreeLine], rows: Sequence[LayerRow]) -> dict[str, int]:
    """Peak bytes below each line that is not itself a layer, including rows that are not shown."""
    sums = {line.path: 0 for line in lines}
    for row in rows:
        if row.layer.owner.is_layer:
            sums.pop(row.layer.path, None)
    for row in rows:
        for path in _above(row.layer.owner):
            if path in sums:
                sums[path] += row.at_peak_bytes or 0
    return sums


def _empty_table(headings: Sequence[str], blocks: bool) -> Table:
    table = Table(box=SIMPLE_HEAD if blocks else None, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
