"""The first figures of a report, each with a plain explanation, for readers who only glance at it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kerasmemwatch.analysis.caveats import all_notes, at_least, in_part, is_planned, untraced
from kerasmemwatch.analysis.death_words import asked_beyond
from kerasmemwatch.analysis.findings import ENOUGH_COVERAGE, Findings
from kerasmemwatch.analysis.growth_words import brief, by_weight, pace
from kerasmemwatch.analysis.peak_story import peak_place, peak_story
from kerasmemwatch.units import floored_percent, format_bytes

__all__ = ["Tile", "headline", "verdict_tiles"]

_HIGH, _TIGHT = 0.9, 0.75
_VERDICT_TONES = {"growing": "warning", "steady": "good"}


@dataclass(frozen=True)
class Tile:
    """One figure."""

    label: str  # what it is
    value: str  # the figure, with its unit; `"unknown"` if it is
    detail: str  # what it means
    tone: str = ""  # `""`, `"good"` or `"warning"`


def headline(report: Findings) -> tuple[Tile, ...]:
    """The tiles of a report: device peak, share of its limit, host RSS, growth, coverage and warnings.

    They contain the user's names unescaped; the code that shows them must escape them.
    """
    return (_device(report), _limit(report), _host(report), _growth(report), _coverage(report), _warnings(report))


def _device(report: Findings) -> Tile:
    peak = report.peak
    if peak.bytes is None:
        return Tile("Device peak", "unknown", "no allocator could be read; the notes say why", "warning")
    part, place = in_part(report.run, peak.device), peak_place(report, brief=True) + peak_story(report)
    return Tile(f"Device peak{part}", at_least(report.run, peak.device, peak.bytes), place, "warning" if part else "")


def _limit(report: Findings) -> Tile:
    label = "Share of the device limit"
    limit = next((device.limit_bytes for device in report.run.devices if device.name == report.peak.device), None)
    if report.peak.bytes is None or not limit:
        return Tile(label, "unknown", "limit not reported")
    if in_part(report.run, report.peak.device):
        return Tile(label, "unknown", f"of {format_bytes(limit)}; the peak is counted in part", "warning")
    share = report.peak.bytes / limit
    left = format_bytes(max(0, limit - report.peak.bytes))
    beyond = asked_beyond(report.run.deaths, report.peak.device)
    detail = f"of {format_bytes(limit)}; {left} were left at the peak{beyond}"
    return Tile(label, f"{share:.1%}", detail, "warning" if beyond else _tone(share))


def _host(report: Findings) -> Tile:
    highest, limit = report.samples.highest("host_rss_bytes"), report.run.host.get("limit_bytes")
    if highest is None:
        return Tile("Host RSS", "unknown", "the process's resident memory could not be read", "warning")
    peak = "peak of one worker" if report.workers else "peak"
    if not isinstance(limit, (int, float)) or limit <= 0:
        return Tile("Host RSS", format_bytes(highest), peak)
    share = highest / limit
    source = report.run.host.get("limit_source")
    of = f"{share:.1%} of {format_bytes(limit)}" + (f" ({source})" if source else "")
    return Tile("Host RSS", format_bytes(highest), f"{peak}, {of}", _tone(share))


def _growth(report: Findings) -> Tile:
    if not report.growth:
        return Tile("Growth", "unknown", "no series of memory to judge")
    first = verdict_tiles(report)[0]
    series = f"{first.label}, " if by_weight(report.growth)[0].is_growing else ""  # other verdicts name it themselves
    return replace(first, label="Growth", detail=series + first.detail)


def verdict_tiles(report: Findings) -> tuple[Tile, ...]:
    """A tile for each series that was judged for growth, the one that matters most first."""
    return tuple(
        Tile(each.label, pace(each), brief(each), _VERDICT_TONES.get(each.verdict, ""))
        for each in by_weight(report.growth)
    )


def _coverage(report: Findings) -> Tile:
    label = "Known by layer"
    if report.coverage is None:
        return Tile(label, "unknown", untraced(report))
    share = floored_percent(report.coverage)
    part = in_part(report.run, report.traced.device) if report.traced else ""
    tone = "good" if report.coverage >= ENOUGH_COVERAGE and not part else "warning"
    return Tile(
        label,
        share,
        f"of the {'planned' if is_planned(report) else 'traced'} peak{part} has a known layer and category",
        tone,
    )


def _warnings(report: Findings) -> Tile:
    notes = all_notes(report)
    if not notes:
        return Tile("Notes", "none", "everything was measured as it should be", "good")
    return Tile("Notes", str(len(notes)), notes[0], "warning" if report.leaks else "")


def _tone(share: float) -> str:
    return "warning" if share >= _HIGH else "" if share >= _TIGHT else "good"
