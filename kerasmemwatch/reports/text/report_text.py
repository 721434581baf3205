"""A report as text: with rich on a terminal, and the same lines as plain text elsewhere."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TextIO

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kerasmemwatch.analysis.caveats import alerts, at_least, counting, in_part, measured
from kerasmemwatch.analysis.death_words import asked_beyond, death_lines
from kerasmemwatch.analysis.ending_words import ending_lines, is_running
from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.growth_words import by_weight
from kerasmemwatch.analysis.layer_columns import cell_words
from kerasmemwatch.analysis.leak_words import THEIRS, by_owner, leak_lines, leak_title, marked_trace, without_cause
from kerasmemwatch.analysis.peak_story import peak_place, peak_story
from kerasmemwatch.names import printable, shortened
from kerasmemwatch.records.categories import OF_VARIABLES
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.reports.text.driver_facts import driver_facts
from kerasmemwatch.reports.text.layer_text import layer_table, moment
from kerasmemwatch.reports.text.text_chart import BLOCKS, PLAIN, chart
from kerasmemwatch.units import format_bytes

__all__ = ["plain_text", "print_report", "renderable"]

_TOP_LAYERS = 8
_BRIEF_NOTES = 4


def plain_text(
    report: Findings, *, everything: bool = False, title: str = "", width: int = 100, blocks: bool = False
) -> str:
    """The report as plain text, the same on every system; in ASCII by default, except for the user's own names.

    Args:
        title: A title that replaces the run and what its samples say.
        blocks: Whether characters beyond ASCII can be written, for lines and charts.
    """
    console = Console(
        file=io.StringIO(),
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
    )
    console.print(renderable(report, everything=everything, title=title, blocks=blocks, width=width))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def print_report(report: Findings, file: TextIO, *, everything: bool = False, title: str = "") -> None:
    """Write the report to a terminal or a file, using only characters that it can encode."""
    # A file of text rather than bytes can write any character.
    encoding = getattr(file, "encoding", None) or "utf-8"
    blocks = _has_blocks(encoding)
    if file.isatty():
        console = Console(file=file)
        console.print(renderable(report, everything=everything, title=title, blocks=blocks, width=console.width))
    else:
        text = plain_text(report, everything=everything, title=title, blocks=blocks)
        print(text.encode(encoding, "replace").decode(encoding), file=file)


def renderable(
    report: Findings, *, everything: bool = False, title: str = "", blocks: bool = True, width: int = 100
) -> RenderableType:
    """The report for rich. Names of runs and layers are text, never markup.

    Args:
        width: Width of the text in columns; tables omit columns that do not fit.
    """
    report = _printable(report)
    lines = (*ending_lines(report.endings), *death_lines(report.run.deaths))
    parts: list[RenderableType] = [Text(line, style="" if line.startswith(" ") else "bold") for line in lines]
    parts += [Text(alert, style="bold") for alert in alerts(report)]
    parts += [Text(printable(title), style="bold")] if title else [_title(report)]
    if report.samples.num_samples and not title:
        parts += [_facts(report, everything), *_charts(report, blocks), *_growth(report), *_leaks(report, width)]
    parts += moment(report, everything)
    parts += layer_table(report, everything, blocks, width) if report.traced else _layers(report, everything, blocks)
    parts += _notes(report, everything)
    return Group(*parts)


def _title(report: Findings) -> Text:
    run, samples = report.run, report.samples
    title = Text.assemble(("Memory", "bold"), f" of run {shortened(run.name, 80) or '(none yet)'}")
    if report.workers:
        title.append(f" on {len(report.workers)} workers")
    if not samples.num_samples:
        return title.append(": nothing was recorded. Train with callbacks=[MemoryWatch()].")
    stages = [f"{np.count_nonzero(samples['stage'] == stage)} {stage}" for stage in dict.fromkeys(samples["stage"])]
    seconds = float(samples["time_s"][-1] - samples["time_s"][0])
    so_far = " so far (still running)" if is_running(report.endings) else ""
    steps = f"{int(samples['step'][-1])} steps in {seconds:.1f} s{so_far}"
    return title.append(f"\n{steps}; samples: {', '.join(stages)}\n")


def _facts(report: Findings, everything: bool) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column()
    for name, value, comment in [*_device_facts(report, everything), *_host_facts(report, everything)]:
        table.add_row(Text(name), Text(value), Text(comment))
    return table


def _device_facts(report: Findings, everything: bool) -> Iterator[tuple[str, str, str]]:
    peak, samples = report.peak, report.samples
    if peak.bytes is None:
        yield "Device peak", "unknown", "see the notes"
    else:
        place = peak_place(report) + peak_story(report)
        yield f"Device peak{in_part(report.run, peak.device)}", at_least(report.run, peak.device, peak.bytes), place
    yield from _worker_facts(report)
    # Several workers have many devices.
    for index, device in enumerate(report.run.devices if everything or not report.workers else ()):
        in_use = at_least(report.run, device.name, _newest(samples, "device_in_use_bytes", index))
        yield f"{device.name} in use", in_use, f"at the end; {counting(device)}"
        if device.limit_bytes:
            yield (
                f"{device.name} limit",
                format_bytes(device.limit_bytes),
                f"the peak was {_share(peak.bytes, device.limit_bytes)} of it"
                + asked_beyond(report.run.deaths, device.name),
            )
    if report.weights_bytes is not None:
        optimizer = format_bytes(report.optimizer_bytes)
        yield "Variables", format_bytes(report.weights_bytes), f"weights, and {optimizer} of the optimizer"
    yield from driver_facts(report)


def _worker_facts(report: Findings) -> Iterator[tuple[str, str, str]]:
    for worker in report.workers:
        place = f"its device peak, step {worker.peak_step}; " if worker.peak_bytes is not None else ""
        comment = f"{place}host RSS at most {format_bytes(worker.host_rss_bytes)}"
        if worker.ends_early:
            ended = "is empty" if worker.last_step is None else f"ends at step {worker.last_step}"
            name, last = worker.name.replace(":", " "), int(report.samples["step"][-1])
            comment += f"; {name}'s recording {ended} of {last}"
        yield f"  {worker.name}", at_least(report.run, f"{worker.name}/{worker.device}", worker.peak_bytes), comment


def _host_facts(report: Findings, everything: bool) -> Iterator[tuple[str, str, str]]:
    samples, host = report.samples, report.run.host
    if "host_rss_bytes" not in samples:
        return
    highest, limit = samples.highest("host_rss_bytes"), host.get("limit_bytes")
    comment = "" if highest is None else "peak of one worker" if report.workers else "peak"
    if isinstance(limit, (int, float)) and highest is not None:
        comment += f", {_share(highest, limit)} of {format_bytes(limit)} ({host.get('limit_source')})"
    yield "Host RSS", format_bytes(highest), comment
    exact = [i for i, one in enumerate(report.run.devices) if (one.name, one.counting) == ("CPU:0", "exact")]
    in_use = _newest(samples, "device_in_use_bytes", exact[0]) if exact else None
    newest = _newest(samples, "host_rss_bytes")
    if in_use is not None and newest is not None:
        rest = format_bytes(newest - in_use)
        yield (
            "  at the end",
            format_bytes(newest),
            f"of which {format_bytes(in_use)} tensors and {rest} libraries, Python, arrays, caches",
        )
    if everything:
        for name, words in _SLOW_HOST:
            value = _newest(samples, name)
            if value is not None and name == "host_rss_peak_bytes":
                value = max(value, highest or 0.0)  # a later sample may be higher than the last reading
            if value is not None:
                yield "  " + words[0], format_bytes(value), words[1]


_SLOW_HOST = (
    ("host_rss_peak_bytes", ("peak", "the process's highest RSS so far, also between samples (VmHWM)")),
    ("host_uss_bytes", ("own (USS)", "what would be free if the process ended")),
    ("host_children_uss_bytes", ("children (USS)", "of all worker processes")),
)


def _charts(report: Findings, blocks: bool) -> Iterator[RenderableType]:
    samples = report.samples
    if samples.num_samples < 2:
        return
    within, between = samples.get("device_peak_bytes"), samples.get("device_between_peak_bytes")
    series = []
    if within is not None and between is not None and within.shape[1]:
        name = f"device peak{in_part(report.run, report.peak.device)}"
        series.append((name, np.fmax.reduce(np.fmax(within, between).astype(float), axis=1)))
    if "host_rss_bytes" in samples:
        series.append(("host RSS", samples["host_rss_bytes"].astype(float)))
    for name, values in series:
        if not np.isnan(values).all():
            yield from _chart(name, samples["step"].astype(float), values, blocks)


def _chart(name: str, steps: np.ndarray, values: np.ndarray, blocks: bool) -> Iterator[RenderableType]:
    lines = chart(steps, values, height=3, ramp=BLOCKS if blocks else PLAIN)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    bottom = format_bytes(0 if low == high else low)
    if bottom == format_bytes(high):  # the difference is smaller than the digits shown
        bottom = f"{format_bytes(high - low)} less"
    labels = [format_bytes(high), *[""] * (len(lines) - 2), bottom]
    yield Text(f"\n{name} over steps {int(steps[0])} to {int(steps[-1])}", style="bold")
    for label, line in zip(labels, lines, strict=True):
        yield Text(f"{label:>14} {'|' if not blocks else '┤'}{line}", no_wrap=True, overflow="crop")


def _growth(report: Findings) -> Iterator[RenderableType]:
    if report.growth:
        yield Text("\n" + "\n".join(growth.explanation for growth in by_weight(report.growth)))


def _leaks(report: Findings, width: int) -> Iterator[RenderableType]:
    if words := without_cause(report.growth, report.leaks):
        yield Text(f"\n{words}")
    yours, theirs = by_owner(report.leaks)
    for leak in (*yours, *theirs):
        if theirs and leak is theirs[0]:
            yield Text(f"\n{THEIRS}:", style="bold")
        yield Text(f"\nCause: {leak_title(leak)}", style="bold")
        yield from (Padding(Text(line), (0, 0, 0, 2)) for line in leak_lines(leak))
        for line, is_suspect in marked_trace(leak):
            words = line.lstrip()
            indent = min(4 + len(line) - len(words), width // 2)
            yield Padding(Text(words, style="bold" if is_suspect else ""), (0, 0, 0, indent))


def _layers(report: Findings, everything: bool, blocks: bool) -> Iterator[RenderableType]:
    if not report.layers:
        return
    ranked = sorted(report.layers, key=lambda layer: -layer.known_variables_bytes)
    shown = list(report.layers) if everything else ranked[:_TOP_LAYERS]
    table = Table(box=SIMPLE_HEAD if blocks else None, pad_edge=False, show_edge=False)
    table.add_column("Variables of", overflow="fold", ratio=3)
    table.add_column("class", overflow="fold", ratio=1)
    for heading in OF_VARIABLES:
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in shown:
        cells = [Text(cell_words(getattr(layer, f"{name}_bytes"), "bytes")) for name in OF_VARIABLES]
        table.add_row(Text(shortened(layer.path, 80)), Text(layer.class_name), *cells)
    yield Text("")
    yield table
    if hidden := ranked[len(shown) :]:
        more = f"{len(hidden)} more with {format_bytes(sum(layer.known_variables_bytes for layer in hidden))}"
        yield Text(f"and {more} (all: `kerasmemwatch show LOGDIR --all`)")


def _notes(report: Findings, everything: bool) -> Iterator[RenderableType]:
    notes = (*measured(report), *report.notes)  # causes of growth are told above
    for note in notes if everything else notes[:_BRIEF_NOTES]:
        yield Text(f"* {note}")
    if not everything and len(notes) > _BRIEF_NOTES:
        more = len(notes) - _BRIEF_NOTES
        yield Text(f"and {more} more note{'s' * (more > 1)} (all: `kerasmemwatch show LOGDIR --all`)")


def _newest(samples: Samples, name: str, index: int | None = None) -> float | None:
    found = samples.newest(name, index)
    return None if found is None else found[0]


def _share(part: float | None, whole: float) -> str:
    return "an unknown share" if part is None else f"{part / whole:.1%}"


def _printable(value: Any) -> Any:
    """The same value without control characters in its strings, because those must not reach a terminal."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, (Samples, TracedStep)):  # text shows only what the report says about a step
        return value
    if isinstance(value, Mapping):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_printable, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _printable(getattr(value, f.name)) for f in fields(value)})
    return value


def _has_blocks(encoding: str) -> bool:
    try:
        BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
