"""The page itself: all text is escaped, all figures are embedded, and nothing refers to an outside address."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from os import PathLike

from kerasmemwatch._version import __version__
from kerasmemwatch.analysis.caveats import alerts, all_notes
from kerasmemwatch.analysis.death_words import death_lines
from kerasmemwatch.analysis.ending_words import ending_lines, is_running
from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.key_figures import headline
from kerasmemwatch.analysis.leak_words import THEIRS, by_owner, leak_lines, leak_title, marked_trace, without_cause
from kerasmemwatch.analysis.peak_place import traced_words
from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.names import printable
from kerasmemwatch.records.growth import LeakFinding
from kerasmemwatch.reports.html.sections import sections, tile_list
from kerasmemwatch.reports.text.report_text import plain_text
from kerasmemwatch.storage.files.file_system import check_working_dir

__all__ = ["THEMES", "html_page", "plotly_script", "write_page"]

THEMES = ("auto", "light", "dark")


def write_page(report: Findings, path: str | PathLike[str], *, theme: str = "auto") -> None:
    """Write ``html_page`` to a file.

    Raises:
        LogDirError: If the path is relative to a working directory that was deleted.
    """
    check_working_dir(os.fsdecode(path), "the report's path")
    page = html_page(report, theme=theme)
    with open(path, "wb") as file:
        # A name that is not valid text, such as some file names, must not prevent writing the report.
        file.write(page.encode("utf-8", "replace"))


def html_page(report: Findings, *, theme: str = "auto") -> str:
    """The report as one HTML page.

    Args:
        theme: ``"light"``, ``"dark"``, or ``"auto"``, which follows the reader's system.

    Raises:
        InvalidArgumentError: If there is no such theme.
    """
    if theme not in THEMES:
        raise InvalidArgumentError(f"Expected theme to be 'auto', 'light' or 'dark'. Received: theme={theme!r}.")
    assets = files("kerasmemwatch.reports.html")
    style, code = (assets.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    library = plotly_script()
    # Only these two scripts run, whatever else may get into the page, and nothing is fetched.
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in (library, code))
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
    name = report.run.name or "(no name)"
    # Without JavaScript, the theme is the system's unless one was requested.
    shown = "" if theme == "auto" else f' data-shown="{theme}"'
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en" data-theme="{theme}"{shown}>',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Memory of {escape(name)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            *_header(report, name),
            "<main>",
            *_alarm("ending", ending_lines(report.endings)),
            *_alarm("death", death_lines(report.run.deaths)),
            *(f'<p class="alert" role="note">{escape(printable(alert))}</p>' for alert in alerts(report)),
            *tile_list(headline(report)),
            *_leaks(report),
            *sections(report),
            *_notes(report),
            *_text(report),
            "</main>",
            f"<footer>Written by kerasmemwatch {escape(__version__)}.</footer>",
            f"<script>{library}</script>",
            f"<script>{code}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def plotly_script() -> str:
    """The JavaScript library that draws the figures, read from the plotly package without importing it."""
    from importlib.metadata import distribution

    script = distribution("plotly").locate_file("plotly/package_data/plotly.min.js")
    with open(str(script), encoding="utf-8") as file:
        # An end tag within a string would end the script.
        return file.read().replace("</script", "<\\/script")


def _digest(script: str) -> str:
    import hashlib

    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _header(report: Findings, name: str) -> Iterator[str]:
    samples = report.samples
    told = []
    if samples.num_samples:
        so_far = " so far (still running)" if is_running(report.endings) else ""
        last = int(samples["step"][-1])
        told.append(f"{last:,} step{'s' * (last != 1)}{so_far}")
    if report.traced and (report.traced.after is not None or not report.traced_steps):
        told.append(f"shown: {traced_words(report)}")
    if report.traced_steps:
        steps = ", ".join(map(str, report.traced_steps))
        told.append(f"traced: step{'s' if len(report.traced_steps) > 1 else ''} {steps}")
    told += [f"{key} {value}" for key, value in report.run.versions.items()]
    yield "<header>"
    yield f"<h1>Memory of <b>{escape(name)}</b></h1>"
    yield '<button type="button" id="theme" hidden>Dark theme</button>'
    yield f"<p>{escape(' · '.join(told))}</p>" if told else ""
    yield "</header>"


def _alarm(name: str, lines: Sequence[str]) -> Iterator[str]:
    headline, *details = lines or ("",)
    if headline:
        yield f'<section id="{name}" class="alert" role="alert"><h2>{escape(printable(headline))}</h2>'
        yield "<ul>"
        yield from map(_labelled, details)
        yield "</ul></section>"


def _labelled(line: str) -> str:
    label, colon, rest = printable(line).strip().partition(":")
    return f"<li><strong>{escape(label)}:</strong>{escape(rest)}</li>" if colon else f"<li>{escape(label)}</li>"


def _leaks(report: Findings) -> Iterator[str]:
    if words := without_cause(report.growth, report.leaks):
        yield f'<section id="leaks"><h2>Causes of growth</h2><p>{escape(words)}</p></section>'
    yours, theirs = by_owner(report.leaks)
    yield from _causes("leaks", "Causes of growth", yours)
    yield from _causes("library-leaks", THEIRS, theirs)


def _causes(name: str, heading: str, leaks: Sequence[LeakFinding]) -> Iterator[str]:
    if not leaks:
        return
    yield f'<section id="{name}"><h2>{heading}</h2>'
    for leak in leaks:
        yield f"<h3>{escape(printable(leak_title(leak)))}</h3><ul>"
        yield from map(_labelled, leak_lines(leak))
        yield "</ul>"
        if leak.trace:
            lines = ((escape(printable(line)), is_suspect) for line, is_suspect in marked_trace(leak))
            trace = "\n".join(f"<strong>{line}</strong>" if is_suspect else line for line, is_suspect in lines)
            yield f'<pre class="trace">{trace}</pre>'
    yield "</section>"


def _notes(report: Findings) -> Iterator[str]:
    notes = all_notes(report)
    if notes:
        yield '<section id="notes"><h2>Notes</h2><ul>'
        yield from (f"<li>{escape(printable(note))}</li>" for note in notes)
        yield "</ul></section>"


def _text(report: Findings) -> Iterator[str]:
    words = plain_text(report, everything=True, width=118, blocks=True)
    yield '<section id="text"><h2>As text</h2><details><summary>The report as plain text</summary>'
    yield f"<pre>{escape(words)}</pre></details></section>"
