"""Whether traced steps peaked as the untraced ones around them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import lines, run_info, samples
from timelines import step, timeline

from kerasmemwatch.analysis.caveats import all_notes
from kerasmemwatch.analysis.traced_peaks_apart import apart
from kerasmemwatch.reports.report import Report, make_report
from kerasmemwatch.units import MIB


def report(peaks: list[float], *traced: int, device: str = "GPU:0", **about: Any) -> Report:
    """A run whose steps had some peaks, of which some were traced."""
    steps = [step(timeline(lines(), 12, device=device), number) for number in traced]
    about = {"devices": 1, **about}
    return make_report(run_info(**about), samples(len(peaks), peak=np.array(peaks) * MIB), (), steps)


def test_a_traced_step_that_peaks_as_the_others_needs_no_note() -> None:
    assert apart(report([90, 21, 22, 21, 22.5, 21], 4)) == ""


@pytest.mark.parametrize(("peak", "words"), [(30, "30.0 MiB"), (12, "12.0 MiB")])
def test_one_that_peaks_otherwise_is_told_with_both_figures(peak: float, words: str) -> None:
    found = report([90, 21, 22, peak, 22, 21], 4)
    assert apart(found).startswith(
        f"Traced step 4 peaked at {words}, the untraced steps around it at 21.0 MiB to 22.0 MiB: tracing may have "
    )
    assert apart(found) in all_notes(found)


def test_a_gap_is_no_step_of_its_number() -> None:
    found = report([90, 21, 22, 21, 22, 21], 6)
    gap = replace(found.steps[0], step=4, after=3)
    odd = make_report(found.run, samples(6, peak=np.array([90, 21, 22, 40, 22, 21]) * MIB), (), [*found.steps, gap])
    assert apart(odd) == ""


def test_one_figure_is_told_where_the_others_are_alike() -> None:
    assert ", the untraced steps around it at 21.0 MiB: " in apart(report([90, 21, 21, 30, 21, 21], 4))


def test_the_first_step_and_other_traced_ones_are_not_compared_with() -> None:
    assert apart(report([90, 40, 21, 21, 21, 21, 40], 1, 7)) != ""
    assert apart(report([90, 21, 21, 21, 21], 1)) == ""  # what it makes, later ones do not
    assert apart(report([90, 40, 21, 41, 21, 42, 21], 2, 4, 6)).startswith("Traced step 2 peaked at 40.0 MiB")


def test_batches_of_changing_shapes_are_no_reason() -> None:
    assert apart(report([90, 10, 10, 10, 30, 30, 30, 30], 5)) == ""


def test_with_few_steps_around_nothing_is_said() -> None:
    assert apart(report([90, 21, 40, 21], 3)) == ""


@pytest.mark.parametrize("changed", [{"reset_peak": False}, {"sample_every": 4}])
def test_a_peak_that_may_be_another_steps_is_not_compared(changed: dict[str, Any]) -> None:
    assert apart(report([90, 21, 21, 40, 21, 21], 4, configuration=changed)) == ""


def test_a_step_of_another_fit_or_device_is_not_compared() -> None:
    found = report([90, 21, 21, 40, 21, 21], 4)
    other = replace(found.steps[0], measured_in="first")
    assert apart(replace(found, steps=(other,))) == ""
    assert apart(report([90, 21, 21, 40, 21, 21], 4, device="CPU:0")) == ""


def test_nothing_is_said_of_a_partial_count() -> None:
    found = report([90, 21, 21, 40, 21, 21], 4)
    device = replace(found.run.devices[0], counting="partial")
    assert apart(replace(found, run=replace(found.run, devices=(device,)))) == ""
