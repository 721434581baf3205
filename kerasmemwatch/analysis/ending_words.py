"""A run that has not ended properly in words, for the text, the tab and the page."""

from __future__ import annotations

from collections.abc import Sequence

from kerasmemwatch.names import printable
from kerasmemwatch.records.ending import KILLED, RUNNING, Ending
from kerasmemwatch.units import format_bytes

__all__ = ["ending_lines", "is_running"]

# Below this share of the limit, one step hardly fills the rest.
_PLENTY = 0.75


def ending_lines(endings: Sequence[Ending]) -> tuple[str, ...]:
    """What ended a run that did not end by itself: a headline, then details; empty if it did, or still runs.

    Example:
        >>> ending_lines([Ending("killed", 40, host_bytes=97, limit_bytes=100, was_near=True)])[0]
        'Ended abruptly at step 40, host at 97.0% of its limit: probably killed for memory.'
    """
    return tuple(printable(line) for each in endings if each.how != RUNNING for line in _lines(each))


def is_running(endings: Sequence[Ending]) -> bool:
    """Whether a process still records."""
    return any(each.how == RUNNING for each in endings)


def _lines(ending: Ending) -> list[str]:
    ended = "nded abruptly" if ending.how == KILLED else "nded by SIGTERM"
    words = f"{ending.worker} e{ended}" if ending.worker else f"E{ended}"
    share = "" if ending.share is None else f", host at {_share(ending.share)}its limit"
    lines = [f"{words} at step {ending.step:,}{share}{_cause(ending)}."]
    if ending.host_bytes is not None and ending.limit_bytes:
        source = f" ({ending.limit_source})" if ending.limit_source else ""
        used, limit = format_bytes(ending.host_bytes), format_bytes(ending.limit_bytes)
        files = ", with pages of files that the limit need not count" if ending.host_bytes > ending.limit_bytes else ""
        lines.append(f"  Host memory: {used} resident after that step{files}; the limit is {limit}{source}.")
    if ending.grown:
        found = ", ".join(f"{name} {format_bytes(size, signed=True)}" for name, size in ending.grown)
        lines.append(f"  Had grown since step {ending.since_step:,}: {found}.")
    elif ending.since_step is not None:
        lines.append(f"  Nothing had grown since step {ending.since_step:,}.")
    if ending.how == KILLED and ending.was_near:
        lines.append(
            "  What helps: a smaller shuffle, cache or prefetch in the input pipeline, fewer workers, no lists that "
            "keep arrays or tensors; or a higher limit."
        )
    return lines


def _share(share: float) -> str:
    return f"{share:.1%} of " if share < 1 else ""


def _cause(ending: Ending) -> str:
    if ending.how != KILLED:
        return ""
    if ending.was_near:
        return ": probably killed for memory"
    if ending.share is None:
        return ": killed or crashed; how full the host was is unknown"
    if ending.share < _PLENTY:
        return ": killed or crashed, with plenty of memory left"
    return ": killed or crashed, perhaps for memory"
