"""Views of a report by name, each with its figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.analysis.peak_place import step_shown
from kerasmemwatch.analysis.steps.live_set import highest_step
from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.reports.figures.allocations import allocations
from kerasmemwatch.reports.figures.growth import growth
from kerasmemwatch.reports.figures.layers import layers
from kerasmemwatch.reports.figures.layout import Figure
from kerasmemwatch.reports.figures.overview import overview
from kerasmemwatch.reports.figures.peak import peak
from kerasmemwatch.reports.figures.step_timeline import step_timeline

__all__ = ["VIEWS", "traced_step", "view_figure"]


# Views that draw one traced step; besides the report they take ``step``.
_DRAWN: Mapping[str, Callable[..., Figure]] = {"step": step_timeline, "allocations": allocations}
# Views of one device's live memory.
_OF_DEVICE = ("peak", "step", "allocations", "layers")


def _options_of(view: str) -> set[str]:
    parameters = set(list(signature(_DRAWN.get(view, VIEWS[view])).parameters)[1:])
    return parameters | ({"step"} if view in _DRAWN else set()) | ({"device"} if view in _OF_DEVICE else set())


def _step(report: Findings, *, step: float | None = None, **options: Any) -> Figure:
    return step_timeline(traced_step(report, step), **options)


def _allocations(report: Findings, *, step: float | None = None, **options: Any) -> Figure:
    return allocations(traced_step(report, step), **options)


VIEWS: Mapping[str, Callable[..., Figure]] = {
    "overview": overview,
    "peak": peak,
    "step": _step,
    "allocations": _allocations,
    "layers": layers,
    "growth": growth,
}


def view_figure(report: Findings, view: str, *, device: str | None = None, **options: Any) -> Figure:
    """Make the figure of a view.

    Args:
        device: One of ``report.devices``, whose live memory to show.
        **options: Those of the view's function, such as ``theme``; ``step`` is the number of a traced step.

    Raises:
        InvalidArgumentError: If there is no such view, option, device or traced step.
    """
    if not isinstance(view, str) or view not in VIEWS:
        raise InvalidArgumentError(
            f"Expected view to be one of {', '.join(map(repr, VIEWS))}. Received: view={view!r}."
        )
    known = _options_of(view)
    unknown = sorted(set(options) - known | ({"device"} - known if device is not None else set()))
    if unknown:
        raise InvalidArgumentError(
            f"Expected options of the view {view!r}: {', '.join(sorted(known))}. Received: {', '.join(unknown)}."
        )
    return VIEWS[view](report if device is None else report.on_device(device), **options)


def traced_step(report: Findings, number: float | None = None) -> TracedStep | None:
    """A traced step or gap by its number (see ``TracedStep.number``); the one the report shows if none is given.

    Raises:
        InvalidArgumentError: If the step of that number was not traced.
    """
    if number is None:
        return step_shown(report)
    # Several workers may have traced the same step.
    found = highest_step([step for step in report.steps if step.number == number])
    if found is None:
        known = ", ".join(f"{number:g}" for number in sorted({step.number for step in report.steps})) or "none"
        raise InvalidArgumentError(f"Expected step to be a traced one ({known}). Received: step={number!r}.")
    return found
