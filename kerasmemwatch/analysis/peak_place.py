"""When the run's peak and the traced peak occurred. They may differ, so each table and figure says which it shows."""

from __future__ import annotations

from kerasmemwatch.analysis.caveats import at_least, is_planned
from kerasmemwatch.analysis.findings import Findings, find_peak
from kerasmemwatch.analysis.steps.live_set import by_layer, highest_step, peak_event, requested_at
from kerasmemwatch.analysis.steps.shown_step import is_explained, is_very_moment, is_well_above
from kerasmemwatch.names import shortened
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.units import format_bytes

__all__ = [
    "during",
    "elsewhere",
    "is_between",
    "is_shown",
    "is_untraced",
    "is_very_peak",
    "kind_words",
    "numbered",
    "step_shown",
    "step_words",
    "traced_words",
]

_LONGEST = 60
_STAGES = {"train": "training step", "predict": "prediction step"}


def step_words(report: Findings, stage: str | None, step: int | None) -> str:
    """A step with its kind: ``"training step 7"``, ``"validation step 30"``, ``"evaluation step 3"``."""
    # In a run that trains, a test step is a validation step.
    tested = "validation step" if "train" in report.samples["stage"] else "evaluation step"
    kind = _STAGES.get(stage or "", tested if stage == "test" else "step")
    return kind if step is None else f"{kind} {step:,}"


def traced_words(report: Findings) -> str:
    """The step that ``report.layers`` and the live set describe; ``"the step"`` without a trace.

    Names the device if there are several to choose from: ``"training step 7 on GPU:0"``.
    """
    traced = report.traced
    if traced is None:
        return "the step"
    devices = {*report.devices, *(device.name for device in report.run.devices)}
    device = f" on {traced.device}" if len(devices) > 1 or not is_shown(report) else ""
    if traced.after is not None:
        return _gap_words(traced.step, traced.after) + device
    planned = ", as XLA planned it" if is_planned(report) else ""
    return f"{step_words(report, traced.stage, traced.step)}{_origin(traced.measured_in)}{device}{planned}"


def numbered(step: TracedStep) -> str:
    """The number of a traced step or gap, with the run if it is another one.

    ``"step 2"``, ``"step 2 of run 'first'"``, or ``"the gap between step 20 and 21"``.
    """
    if step.after is not None:
        return _gap_words(step.step, step.after)
    return f"step {step.step:,}{_origin(step.measured_in)}"


def kind_words(step: TracedStep) -> str:
    """The stage of a traced step or gap; for a step also its mode: ``"train, graph"``."""
    return f"{step.stage}, {step.mode}" if step.after is None else step.stage


def _gap_words(step: int, after: int) -> str:
    if step <= after:
        return f"the gap after step {after:,}"
    return f"the gap between step {after:,} and {after + 1:,}" if after else f"the gap before step {after + 1:,}"


def _origin(measured_in: str | None) -> str:
    """Suffix for a step's number: where it was measured; ``""`` if in this run."""
    return "" if measured_in is None else f" of run {measured_in!r}" if measured_in else " of an earlier fit"


def is_between(report: Findings) -> bool:
    """Whether the run's peak was between two batches, according to the samples."""
    return find_peak(report.run, report.samples).phase == "between"


def is_shown(report: Findings) -> bool:
    """Whether the device shown is the one with the run's peak, as far as known."""
    return report.traced is None or report.peak.device in (None, report.traced.device)


def step_shown(report: Findings) -> TracedStep | None:
    """The traced step or gap that ``report.traced`` describes."""
    traced = report.traced
    if traced is None:
        return None
    place = (traced.step, traced.after, traced.measured_in)
    # Several workers may have traced the same one.
    found = [one for one in report.steps if (one.step, one.after, one.measured_in) == place]
    return highest_step(found, traced.device)


def is_very_peak(report: Findings) -> bool:
    """Whether the step or gap shown is the one in which the run's peak occurred."""
    shown = step_shown(report)
    return shown is not None and is_very_moment(find_peak(report.run, report.samples), shown)


def is_untraced(report: Findings) -> bool:
    """Whether the run's peak is neither in the step shown nor explained by it; false if its step did not end."""
    shown, peak = step_shown(report), find_peak(report.run, report.samples)
    if shown is None or peak.bytes is None or not peak.ended or shown.measured_in is not None or not is_shown(report):
        return False  # it may be traced on its own device
    return not is_very_moment(peak, shown) and not is_explained(peak, shown)


def during(report: Findings) -> str:
    """Suffix for the run's peak: what was going on then; ``""`` if only another kind of step was traced."""
    traced = report.traced
    if is_between(report):
        return "" if is_very_peak(report) else ", between two batches"
    if not report.peak.ended:
        return ", which did not end"
    if traced is None or traced.phase == "between" or traced.stage != report.peak.stage:
        return ""
    if is_untraced(report) or not is_shown(report):
        return ""
    if traced.measured_in is not None:
        return f"; {traced_words(report)} was highest during {traced.phase}"
    if traced.step == report.peak.step:
        return f", during {traced.phase}"
    return f"; traced step {traced.step:,} was highest during {traced.phase}"


def elsewhere(report: Findings) -> str:
    """A sentence about the moment that is not shown; ``""`` if there is nothing to say.

    If the run's peak is not the traced one, it describes that. If it is, and is well above a training step, it names
    the layer that holds most in that step.
    """
    peak, traced = report.peak, report.traced
    if traced is None or peak.bytes is None:
        return ""
    if is_very_peak(report):
        return _in_lower_step(report)
    if is_between(report):
        place = f"between two batches, before {step_words(report, peak.stage, peak.step)}"
    elif (
        peak.stage != traced.stage
        or not peak.ended
        or traced.after is not None
        or is_untraced(report)
        or not is_shown(report)
    ):
        place = f"in {step_words(report, peak.stage, peak.step)}"
    else:
        return "" if traced.measured_in is None else _not_of_this_run(report)
    untraced = ", which was not traced" if is_between(report) or peak.step not in report.traced_steps else ""
    size = at_least(report.run, peak.device, peak.bytes)
    if not is_shown(report):
        return f"The run's peak of {size} was on {peak.device}, {place}. Shown is {traced_words(report)}."
    alike = ", which was as high" if traced.after is not None and not is_untraced(report) else ""
    return f"The run's peak of {size} was {place}{untraced}. Shown is {traced_words(report)}{alike}."


def _in_lower_step(report: Findings) -> str:
    """Name the layer that holds most in the highest training step that the peak is well above, if there is one."""
    trained = [step for step in report.steps if (step.stage, step.after, step.measured_in) == ("train", None, None)]
    lower = highest_step([step for step in trained if is_well_above(report.peak, step)])
    if lower is None:
        return ""
    event = peak_event(lower.timeline)
    size = int(requested_at(lower.timeline)[event + 1])
    layer = next((row for row in by_layer(lower.timeline, event) if row.class_name), None)
    if layer is None:
        return ""
    held = f"{format_bytes(layer.total_bytes)} of {format_bytes(size)} requested"
    path = shortened(layer.path, _LONGEST)
    return f"In {step_words(report, lower.stage, lower.step)}, {path} held most of all layers: {held}."


def _not_of_this_run(report: Findings) -> str:
    shown = traced_words(report)
    return f"This fit was not traced. Shown is {shown}: model, shapes, optimizer and batch are the same."
