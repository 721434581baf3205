"""Views of the tab as data: tiles, figures, tables and notes, which the page draws in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kerasmemwatch.analysis.caveats import alerts, all_notes, untraced
from kerasmemwatch.analysis.death_words import death_lines
from kerasmemwatch.analysis.ending_words import ending_lines
from kerasmemwatch.analysis.key_figures import headline, verdict_tiles
from kerasmemwatch.analysis.layer_columns import LayerColumn, LayerRow, layer_columns, layer_rows, live_columns
from kerasmemwatch.analysis.leak_words import THEIRS, by_owner, leak_lines, leak_title, marked_trace, without_cause
from kerasmemwatch.analysis.peak_place import elsewhere, kind_words, numbered, traced_words
from kerasmemwatch.errors import InvalidArgumentError, MemWatchError
from kerasmemwatch.names import printable
from kerasmemwatch.recording import Recording
from kerasmemwatch.reports.figures.allocations import allocations
from kerasmemwatch.reports.figures.comparison import comparison
from kerasmemwatch.reports.figures.growth import growth
from kerasmemwatch.reports.figures.layers import layers
from kerasmemwatch.reports.figures.overview import overview
from kerasmemwatch.reports.figures.peak import peak
from kerasmemwatch.reports.figures.step_timeline import step_timeline
from kerasmemwatch.reports.report import Report
from kerasmemwatch.tensorboard_plugin.choices import chosen_report, chosen_step, device_choice, number
from kerasmemwatch.tensorboard_plugin.queries import Queries

__all__ = ["VIEWS", "run_list"]

Recordings = Mapping[str, Recording]
Section = dict[str, Any]


def run_list(queries: Queries, context: Any, experiment: str) -> dict[str, Any]:
    """List every run, newest first, with values that change when data is added to it."""
    found = []
    for name, stored in queries.stored(context, experiment).items():
        created, problem = 0.0, ""
        try:
            created = queries.created(context, experiment, stored)
        except MemWatchError as error:
            problem = str(error)
        newest = max(time for _, time in stored.tags.values())
        found.append(
            {"name": name, "created": created, "updated": newest, "tags": len(stored.tags), "problem": problem}
        )
    return {"runs": sorted(found, key=lambda run: (-run["created"], run["name"]))}


def _overview(recordings: Recordings, asked: Mapping[str, str]) -> Iterator[Section]:
    report = _first(recordings).report
    for lines in (ending_lines(report.endings), death_lines(report.run.deaths)):
        if lines:
            yield {"kind": "notes", "title": lines[0], "notes": [line.strip() for line in lines[1:]]}
    if alerts(report):
        yield {"kind": "notes", "title": "Counted in part", "notes": list(alerts(report))}
    yield {"kind": "tiles", "tiles": [asdict(tile) for tile in headline(report)]}
    yield from _causes(report)
    yield _figure("Over the run", overview(report, theme=_theme(asked)))
    yield {
        "kind": "notes",
        "title": "Notes",
        "notes": list(all_notes(report)),
        "empty": "All that was asked for was measured.",
    }


def _peak(recordings: Recordings, asked: Mapping[str, str]) -> Iterator[Section]:
    report = chosen_report(_first(recordings), asked)
    yield from device_choice(_first(recordings).report.steps, report.traced)
    figure = peak(report, theme=_theme(asked), layer=asked.get("layer") or None)
    step = traced_words(report)
    help = "Click a layer to see only that, in all views."
    yield _figure(
        f"Alive at the peak of {step}" if report.traced else "Alive at the peak", figure, pick=True, help=help
    )
    if report.traced:
        rows, columns = layer_rows(report, report.peak.by_layer), live_columns(report)
        yield _table(f"At the peak of {step}, by layer", rows, columns, "total_bytes", "memory-peak")


def _timeline(recordings: Recordings, asked: Mapping[str, str]) -> Iterator[Section]:
    steps, step = _first(recordings).steps, chosen_step(_first(recordings), asked)
    if step is None:
        notes = [untraced(_first(recordings).report)]
        yield {"kind": "notes", "title": "Step timeline", "notes": notes}
        return
    by, layer = asked.get("by", "category"), asked.get("layer") or None
    yield from device_choice([step], step.timeline)
    options = [[one.number, f"{numbered(one)}, {kind_words(one)}: {one.reason}"] for one in steps]
    yield {
        "kind": "choice",
        "name": "step",
        "title": "Traced step",
        "value": step.number,
        "options": options,
        "number": True,
    }
    choice = [["category", "by category"], ["layer", "by layer"]]
    yield {"kind": "choice", "name": "by", "title": "Stacked", "value": by, "options": choice}
    figure = step_timeline(step, theme=_theme(asked), by=_by(by), layer=layer)
    help = "Drag or scroll to zoom; the details of what is shown are then looked up."
    yield _figure("Alive within the step", figure, zoom="moments", pick=True, help=help)
    yield _figure("Single buffers", allocations(step, theme=_theme(asked), layer=layer), zoom="buffers", pick=True)


def _layers(recordings: Recordings, asked: Mapping[str, str]) -> Iterator[Section]:
    report = chosen_report(_first(recordings), asked)
    yield from device_choice(_first(recordings).report.steps, report.traced)
    yield from _elsewhere(report)
    figure = layers(report, theme=_theme(asked), layer=asked.get("layer") or None)
    yield _figure("Over the whole step", figure, pick=True)
    title = f"Layers in {traced_words(report)}" if report.traced else "Layers"
    order = "at_peak_bytes" if report.traced else "weights_bytes"
    yield _table(title, layer_rows(report), layer_columns(report, ()), order, "memory-layers")


def _growth(recordings: Recordings, asked: Mapping[str, str]) -> Iterator[Section]:
    report = _first(recordings).report
    if report.growth:
        yield {"kind": "tiles", "tiles": [asdict(tile) for tile in verdict_tiles(report)]}
    yield from _causes(report)
    figure = growth(report, theme=_theme(asked), layer=asked.get("layer") or None)
    yield _figure("Growth", figure, pick=True)
    columns = [("series", "series", "text"), ("verdict", "verdict", "text"), ("rate", "rate", "number")]
    columns += [("unit", "bytes a", "text"), ("bytes_per_step", "bytes a step", "number")]
    columns += [("low", "at least", "number"), ("high", "at most", "number"), ("since_step", "since step", "number")]
    columns += [("met_at", "limit met at step", "number"), ("num_samples", "samples", "number")]
    rows = [[getattr(each, key) for key, *_ in columns] for each in report.growth]
    yield {"kind": "table", "title": "Bytes a step, with 95 % interval", "rows": rows, **_columns(columns)}
    if not report.leaks and not without_cause(report.growth, report.leaks):
        yield {"kind": "notes", "title": "Causes of growth", "notes": [], "empty": "None was found."}


def _compare(recordings: Recordings, asked: Mapping[str, str]) -> Iterator[Section]:
    if len(recordings) < 2:
        yield {
            "kind": "notes",
            "title": "Compare",
            "notes": ["There is one run only. Record another, or choose two above."],
        }
        return
    reports = {name: recording.report for name, recording in recordings.items()}
    layer = asked.get("layer") or None
    figure = comparison(list(reports.values()), list(reports), theme=_theme(asked), layer=layer)
    yield _figure("Side by side", figure, pick=True)
    names = list(reports)
    path, class_name = layer_columns(reports[names[0]])[:2]
    named = (path._replace(key="layer"), class_name)
    columns = [*named, *((f"run{i}", name, "bytes") for i, name in enumerate(names))]
    totals = [{row.owner: row.total_bytes for row in reports[name].peak.by_layer} for name in names]
    owners = dict.fromkeys(owner for total in totals for owner in total)
    rows = [[owner.path, owner.class_name, *(total.get(owner, 0) for total in totals)] for owner in owners]
    yield {
        "kind": "table",
        "title": "At the peak, by layer",
        "rows": rows,
        "order": len(named),
        "pick": True,
        **_columns(columns),
    }


def _moments(recordings: Recordings, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the step timeline within a window."""
    step, window = chosen_step(_first(recordings), asked), _window(asked)
    layer = asked.get("layer") or None
    by = _by(asked.get("by", "category"))
    return {"figure": step_timeline(step, theme=_theme(asked), by=by, layer=layer, window=window)}


def _buffers(recordings: Recordings, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the single buffers within a window."""
    step, window = chosen_step(_first(recordings), asked), _window(asked)
    pixels = int(min(max(number(asked, "width", 1000.0), 100), 4000))
    figure = allocations(step, theme=_theme(asked), window=window, layer=asked.get("layer") or None, pixels=pixels)
    return {"figure": figure}


def _sections(view: Callable[[Recordings, Mapping[str, str]], Iterator[Section]]) -> Callable[..., dict[str, Any]]:
    return lambda recordings, asked: {"sections": list(view(recordings, asked))}


# By route: a function of the recordings, by name, and of the request's parameters.
VIEWS: dict[str, Callable[[Recordings, Mapping[str, str]], dict[str, Any]]] = {
    "overview": _sections(_overview),
    "peak": _sections(_peak),
    "timeline": _sections(_timeline),
    "layers": _sections(_layers),
    "growth": _sections(_growth),
    "compare": _sections(_compare),
    "moments": _moments,
    "buffers": _buffers,
}


def _first(recordings: Recordings) -> Recording:
    return next(iter(recordings.values()))


def _theme(asked: Mapping[str, str]) -> str:
    return "dark" if asked.get("theme") == "dark" else "light"


def _by(by: str) -> str:
    if by not in ("category", "layer"):
        raise InvalidArgumentError(f"Expected by to be 'category' or 'layer'. Received: by={by!r}.")
    return by


def _window(asked: Mapping[str, str]) -> tuple[float, float] | None:
    if not asked.get("from") or not asked.get("to"):
        return None
    return number(asked, "from", 0.0), number(asked, "to", 0.0)


def _figure(title: str, figure: dict[str, Any], **more: Any) -> Section:
    return {"kind": "figure", "title": title, "figure": figure, "text": figure["layout"]["meta"]["summary"], **more}


def _causes(report: Report) -> Iterator[Section]:
    if words := without_cause(report.growth, report.leaks):
        yield {"kind": "notes", "title": "Causes of growth", "notes": [words]}
    yours, theirs = by_owner(report.leaks)
    for leak in (*yours, *theirs):
        if theirs and leak is theirs[0]:
            yield {"kind": "notes", "title": THEIRS, "notes": [], "empty": "Each says what helps."}
        trace = [[printable(line), is_suspect] for line, is_suspect in marked_trace(leak)]
        notes = [printable(line) for line in leak_lines(leak)]
        yield {"kind": "notes", "title": printable(leak_title(leak)), "notes": notes, "trace": trace}


def _elsewhere(report: Report) -> Iterator[Section]:
    """Which peak is shown, if that is another kind of moment than the run's."""
    words = elsewhere(report)
    if words:
        yield {"kind": "notes", "title": "Which peak this is", "notes": [words]}


def _columns(columns: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    return {"columns": [column._asdict() for column in (LayerColumn(*each) for each in columns)]}


def _table(title: str, rows: Sequence[LayerRow], columns: Sequence[LayerColumn], order: str, file: str) -> Section:
    cells = [row.cells(columns) for row in rows]
    more = {"file": file, "order": [column.key for column in columns].index(order), **_columns(columns)}
    return {"kind": "table", "title": title, "rows": cells, "pick": True, **more}
