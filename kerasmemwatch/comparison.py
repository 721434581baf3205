"""Two recordings side by side: by how much their peaks differ, by category and by layer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from kerasmemwatch.analysis.caveats import in_part
from kerasmemwatch.analysis.peak_place import traced_words
from kerasmemwatch.errors import InvalidTypeError
from kerasmemwatch.names import printable, shortened
from kerasmemwatch.recording import Recording, load
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.peaks import TracedPeak
from kerasmemwatch.reports.notebook_value import NotebookValue
from kerasmemwatch.reports.report import Report
from kerasmemwatch.units import format_bytes

__all__ = ["Comparison", "LayerDifference", "compare"]

_SHOWN_LAYERS = 12


@dataclass(frozen=True)
class LayerDifference:
    """What one layer or other owner held at the traced peaks.

    Attributes:
        path: Its path.
        class_name: Its class, ``""`` for an owner that is no layer.
        a_bytes: What it held in the first recording; 0 if it was not there.
        b_bytes: The same in the second.
        by_category: Second less first, by category; what is equal is left out.
    """

    path: str
    class_name: str
    a_bytes: int
    b_bytes: int
    by_category: Mapping[str, int]

    @property
    def difference_bytes(self) -> int:
        """Second less first."""
        return self.b_bytes - self.a_bytes


@dataclass(frozen=True)
class Comparison(NotebookValue):
    """Two recordings; every difference is the second's figure less the first's, ``None`` where either is unknown.

    Attributes:
        names: What the two are called.
        peak_bytes: Difference of the runs' in-use peaks, as the allocators count.
        requested_bytes: Difference of the traced peaks, in requested bytes.
        host_rss_bytes: Difference of the highest resident set sizes.
        by_category: Difference by category at the traced peaks; sums to ``requested_bytes``. Empty without traces.
        by_layer: Each layer and owner at the traced peaks, the largest difference first. Empty without traces.
        notes: What makes the two hard to compare.
        reports: The two reports.
    """

    names: tuple[str, str]
    peak_bytes: int | None
    requested_bytes: int | None
    host_rss_bytes: int | None
    by_category: Mapping[str, int]
    by_layer: tuple[LayerDifference, ...]
    notes: tuple[str, ...] = ()
    reports: tuple[Report, ...] = field(default=(), repr=False, compare=False)

    def plot(self, *, theme: str = "light") -> Any:
        """Draw both: a ``plotly.graph_objects.Figure``.

        Args:
            theme: ``"light"`` or ``"dark"``.
        """
        from plotly.graph_objects import Figure

        from kerasmemwatch.reports.figures.comparison import comparison

        return Figure(comparison(self.reports, self.names, theme=theme))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the reports as JSON-able values."""
        return {
            "names": list(self.names),
            "peak_bytes": self.peak_bytes,
            "requested_bytes": self.requested_bytes,
            "host_rss_bytes": self.host_rss_bytes,
            "by_category": dict(self.by_category),
            "by_layer": [
                {
                    "path": row.path,
                    "class_name": row.class_name,
                    "a_bytes": row.a_bytes,
                    "b_bytes": row.b_bytes,
                    "difference_bytes": row.difference_bytes,
                    "by_category": dict(row.by_category),
                }
                for row in self.by_layer
            ],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def __repr__(self) -> str:
        change = "unknown" if self.peak_bytes is None else format_bytes(self.peak_bytes, signed=True)
        return f"<Comparison of {self.names[0]!r} with {self.names[1]!r}: device peak {change}; print it>"


def compare(a: Recording | Report | str | PathLike[str], b: Recording | Report | str | PathLike[str]) -> Comparison:
    """Compare two runs.

    Args:
        a: The first: a recording, a report, or the path of a log dir (its newest run) or of a run.
        b: The second, likewise.

    Returns:
        The differences, second less first; ``print`` it.

    Raises:
        InvalidTypeError: If one is none of these.
        RecordingNotFoundError: If there is no recording at a path.

    Example:
        >>> from kerasmemwatch.records.run import RunInfo
        >>> from kerasmemwatch.reports.report import make_report
        >>> from kerasmemwatch.records.rows import to_samples
        >>> empty = make_report(RunInfo("run", 0.0), to_samples([]))
        >>> print(compare(empty, empty).peak_bytes)
        None
    """
    reports = (_report(a, "a"), _report(b, "b"))
    names = _names((a, b), reports)
    peaks = tuple(report.peak for report in reports)
    traced = all(report.traced for report in reports)
    return Comparison(
        names,
        _difference(peaks[0].bytes, peaks[1].bytes),
        _difference(peaks[0].requested_bytes, peaks[1].requested_bytes),
        _difference(*(_highest_rss(report) for report in reports)),
        {name: peaks[1].by_category.get(name, 0) - peaks[0].by_category.get(name, 0) for name in CATEGORIES}
        if traced
        else {},
        _by_layer(reports) if traced else (),
        tuple(_notes(names, reports)),
        reports,
    )


def _report(value: object, name: str) -> Report:
    if isinstance(value, Report):
        return value
    if isinstance(value, Recording):
        return value.report
    if isinstance(value, (str, PathLike)):
        return load(value).report
    raise InvalidTypeError(
        f"Expected {name} to be a Recording, a Report or the path of a log dir. "
        f"Received: {name}={value!r} (of type {type(value).__name__})."
    )


def _names(values: tuple[object, ...], reports: tuple[Report, ...]) -> tuple[str, str]:
    """The runs' names; where those are the same, with the paths, or else numbered."""
    first, second = (report.run.name or "run" for report in reports)
    if first != second:
        return first, second
    paths = [os.fspath(value) if isinstance(value, (str, PathLike)) else "" for value in values]
    if all(paths) and paths[0] != paths[1]:
        return f"{paths[0]}: {first}", f"{paths[1]}: {second}"
    return f"1: {first}", f"2: {second}"


def _difference(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else b - a


def _highest_rss(report: Report) -> int | None:
    highest = report.samples.highest("host_rss_bytes")
    return None if highest is None else int(highest)


def _by_layer(reports: tuple[Report, Report]) -> tuple[LayerDifference, ...]:
    rows = [{row.owner: row for row in report.peak.by_layer} for report in reports]
    found = [_layer(rows[0].get(key), rows[1].get(key)) for key in dict.fromkeys([*rows[0], *rows[1]])]
    return tuple(sorted(found, key=lambda row: -abs(row.difference_bytes)))


def _layer(a: LayerMemory | None, b: LayerMemory | None) -> LayerDifference:
    known = b or a
    assert known is not None
    sizes = [{name: (getattr(row, f"{name}_bytes") or 0) if row else 0 for name in CATEGORIES} for row in (a, b)]
    change = {name: sizes[1][name] - sizes[0][name] for name in CATEGORIES if sizes[1][name] != sizes[0][name]}
    return LayerDifference(known.path, known.class_name, sum(sizes[0].values()), sum(sizes[1].values()), change)


def _notes(names: tuple[str, str], reports: tuple[Report, Report]) -> list[str]:
    notes = [
        f"Of {name} no step was traced, so layers and categories cannot be compared."
        for name, report in zip(names, reports, strict=True)
        if report.traced is None
    ]
    first, second = (report.traced for report in reports)
    if first and second and _kind(first) != _kind(second):
        notes.append(f"The traced peaks are of different kinds: {_kind(first)}, and {_kind(second)}.")
    if first and second and first.device != second.device:
        notes.append(f"The traced peaks are of different devices: {first.device}, and {second.device}.")
    notes += [
        f"What layers and categories of {name} are compared is {traced_words(report)}: this fit itself was not traced."
        for name, report in zip(names, reports, strict=True)
        if report.traced and report.traced.measured_in is not None
    ]
    for what in ("counting", "name"):
        kinds = [sorted({str(getattr(device, what)) for device in report.run.devices}) for report in reports]
        if all(kinds) and kinds[0] != kinds[1]:
            words = {"counting": "are counted differently", "name": "differ"}[what]
            notes.append(f"The devices {words}: {', '.join(kinds[0])}; and {', '.join(kinds[1])}.")
    return notes


def _kind(traced: TracedPeak) -> str:
    return f"{traced.stage} in {traced.mode} mode" if traced.after is None else "a gap between two steps"


def _lines(found: Comparison) -> list[str]:
    a, b = found.names
    first, second = found.reports
    # Of two peaks one of which leaves allocations out, the difference does, too.
    part = in_part(first.run, first.peak.device) or in_part(second.run, second.peak.device)
    lines = [f"{printable(b)} compared with {printable(a)}", ""]
    figures = (
        (f"device peak{part}", first.peak.bytes, second.peak.bytes),
        ("requested at the traced peak", first.peak.requested_bytes, second.peak.requested_bytes),
        ("host RSS at most", _highest_rss(first), _highest_rss(second)),
    )
    lines += [_line(name, before, after) for name, before, after in figures]
    if found.by_category:
        lines += ["", "At the traced peak, by category:"]
        categories = (
            (name, first.peak.by_category.get(name), second.peak.by_category.get(name)) for name in CATEGORIES
        )
        lines += [_line(name, before, after) for name, before, after in categories if before or after]
    changed = [row for row in found.by_layer if row.by_category]
    if changed:
        lines += ["", "By layer, the largest difference first:"]
        for row in changed[:_SHOWN_LAYERS]:
            lines.append(_line(printable(row.path), row.a_bytes, row.b_bytes))
        if len(changed) > _SHOWN_LAYERS:
            lines.append(f"and {len(changed) - _SHOWN_LAYERS} more")
    elif found.by_layer:
        lines += ["", "Each layer holds the same."]
    return [*lines, *(f"* {printable(note)}" for note in found.notes)]


def _line(name: str, before: int | None, after: int | None) -> str:
    difference = _difference(before, after)
    change = (
        "unknown" if difference is None else "the same" if not difference else format_bytes(difference, signed=True)
    )
    if difference and before:
        change += f" ({difference / before:+.1%})"
    return f"{shortened(name, 40):<40} {format_bytes(before):>11} -> {format_bytes(after):>11}   {change}"
